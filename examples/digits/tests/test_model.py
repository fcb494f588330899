import joblib
from sklearn.datasets import load_digits
from src.model import load
from src.postprocessing import most_likely
from src.preprocessing import scale
from train import train


def test_it_reads_most_digits(tmp_path):
    classifier, accuracy = train({"C": 1.0, "max_iter": 500, "seed": 1})
    assert accuracy > 0.9
    joblib.dump(classifier, tmp_path / "digits.joblib")
    pixels, digits = load_digits(return_X_y=True)
    (probabilities,) = load(tmp_path, {}).predict([scale({"pixels": pixels[0].tolist()}, {"brightest": 16})])
    assert most_likely(probabilities, {"decimals": 4})["digit"] == digits[0]
