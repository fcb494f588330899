from src.preprocessing import clean_text

CONFIG = {"max_length": 40}


def test_markup_and_addresses_go():
    assert clean_text({"text": "<p>I &hearts; it!\n\nSee https://example.com/x</p>"}, CONFIG) == "I ♥ it! See"


def test_long_texts_are_cut():
    assert len(clean_text({"text": "good " * 100}, CONFIG)) == CONFIG["max_length"]
