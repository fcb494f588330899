from src.preprocessing import scale


def test_the_brightest_pixel_becomes_one():
    assert scale({"pixels": [0, 8, 16]}, {"brightest": 16}) == [0, 0.5, 1]
