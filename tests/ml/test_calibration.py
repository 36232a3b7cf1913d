"""The calibration is chosen on rows that neither the model nor the calibration saw, and only if its loss is finite."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ml.calibration import choose_calibration, choose_threshold
from ml.model_params import ThresholdParams

METHODS = ("none", "sigmoid", "isotonic", "temperature")
HeldOut = list[tuple[NDArray[np.float64], NDArray[np.float64]]]


def fold(rows: int, seed: int, slope: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores whose log-odds are `slope` times the true log-odds, and the outcome."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=rows)
    p = 1 / (1 + np.exp(-slope * odds))
    return np.stack([1 - p, p], axis=1), (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(float)


def test_scores_that_are_too_extreme_are_calibrated_and_good_ones_are_not() -> None:
    extreme = choose_calibration([fold(800, seed, slope=4.0) for seed in range(3)], METHODS, in_order=False)
    assert extreme.calibration.method in {"sigmoid", "temperature"}
    assert extreme.log_loss[extreme.calibration.method] < extreme.log_loss["none"] - 0.1
    good = choose_calibration([fold(200, seed) for seed in range(3)], ("none", "isotonic"), in_order=False)
    assert good.calibration.method == "none"


def test_a_gain_that_may_be_chance_leaves_the_scores_as_they_are() -> None:
    held_out = [fold(600, seed, slope=1.2) for seed in range(3)]
    both = choose_calibration(held_out, ("none", "temperature"), in_order=False)
    gain = both.log_loss["none"] - both.log_loss["temperature"]
    assert 0 < gain < 0.002
    assert both.calibration.method == "none"
    # If params.yaml doesn't name `none`, the best of what it names is taken.
    assert choose_calibration(held_out, ("temperature",), in_order=False).calibration.method == "temperature"


def test_folds_in_time_order_are_judged_by_earlier_folds_only() -> None:
    # The last fold alone is extreme; a method that may look ahead would win by it.
    held_out = [fold(400, 1), fold(400, 2), fold(400, 3, slope=6.0)]
    ahead = choose_calibration(held_out, ("none", "temperature"), in_order=False)
    before = choose_calibration(held_out, ("none", "temperature"), in_order=True)
    assert ahead.log_loss["temperature"] != before.log_loss["temperature"]


@pytest.mark.parametrize(
    ("held_out", "why"),
    [
        ([(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0.0, 0.0]))] * 2, "can't be fitted"),
        ([fold(50, 1)], "too few folds"),
    ],
)
def test_a_method_without_a_finite_loss_is_not_chosen_and_the_reason_is_kept(held_out: HeldOut, why: str) -> None:
    choice = choose_calibration(held_out, ("none", "sigmoid"), in_order=False)
    assert choice.calibration.method == "none"
    assert why in choice.excluded["sigmoid"]
    assert np.isfinite(list(choice.log_loss.values())).all()


def test_separable_scores_give_a_choice_with_finite_numbers() -> None:
    target = np.repeat([0.0, 1.0], 10)
    scores = np.stack([1 - target, target], axis=1)
    choice = choose_calibration([(scores, target)] * 3, METHODS, in_order=False)
    assert np.isfinite(choice.calibration.apply(scores)).all()
    assert np.isfinite(list(choice.log_loss.values())).all()


def test_there_is_a_choice_if_no_wanted_method_can_be_fitted() -> None:
    one_class = (np.array([[0.9, 0.1]]), np.array([0.0]))
    choice = choose_calibration([one_class, one_class], ("sigmoid",), in_order=True)
    assert choice.calibration.method == "none"
    assert set(choice.excluded) == {"sigmoid"}


@pytest.mark.parametrize("maximize", ["f1", "balanced_accuracy", "cost"])
def test_rows_of_a_single_class_have_a_threshold(maximize: str) -> None:
    params = ThresholdParams.model_validate({"maximize": maximize})
    assert 0 <= choose_threshold(np.array([0.2, 0.4]), np.zeros(2), params) <= 1
