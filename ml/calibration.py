"""Chooses the calibration and the threshold, on rows that the model never saw."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ml.decision import Calibration, IsotonicCalibration, NoCalibration, SigmoidCalibration, TemperatureCalibration
from ml.params import ThresholdParams
from ml.runtime import Scores


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen calibration, and the log-loss of each candidate."""

    calibration: Calibration
    log_loss: dict[str, float]
    """Mean log-loss over the folds, by method."""


def rolling_origin(rows: int, folds: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions of training and prediction rows: each fold is predicted from all rows before it (Tashman, 2000).

    The first half of the rows is only used for training.
    """
    borders = np.linspace(rows / 2, rows, folds + 1).astype(int)
    for begin, end in pairwise(borders):
        yield np.arange(begin), np.arange(begin, end)


def choose_calibration(held_out: list[tuple[Scores, NDArray[np.float64]]], methods: tuple[str, ...]) -> Choice:
    """Choose the method with the lowest mean log-loss, or `none` on a tie.

    Each method is fitted on all previous folds and evaluated on the next fold. `held_out`: (scores, class indices) of
    each fold in order, predicted by a model that never saw the fold.
    """
    losses: dict[str, float] = {}
    for method in dict.fromkeys(("none", *methods)):
        fold_losses = []
        for place in range(1, len(held_out)):
            scores, target = held_out[place]
            try:
                calibrated = fit_calibration(method, held_out[:place]).apply(scores)
            except ValueError:  # a fold with a single class
                fold_losses.append(np.inf)
                continue
            likelihood = np.clip(calibrated[np.arange(len(target)), target.astype(int)], 1e-15, 1)
            fold_losses.append(float(-np.log(likelihood).mean()))
        losses[method] = float(np.mean(fold_losses)) if fold_losses else 0.0
    allowed = {method: loss for method, loss in losses.items() if method in methods}
    best = min(allowed, key=lambda method: (round(allowed[method], 6), method != "none"))
    return Choice(fit_calibration(best, held_out), losses)


def fit_calibration(method: str, held_out: list[tuple[Scores, NDArray[np.float64]]]) -> Calibration:
    """The method fitted on all these folds together."""
    if method == "none":
        return NoCalibration()
    from scipy.optimize import minimize_scalar
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    scores = np.concatenate([fold for fold, _ in held_out])
    target = np.concatenate([fold for _, fold in held_out])
    if method == "temperature":

        def loss(log_temperature: float) -> float:
            calibrated = TemperatureCalibration(temperature=float(np.exp(log_temperature))).apply(scores)
            return float(-np.log(np.clip(calibrated[np.arange(len(target)), target.astype(int)], 1e-15, 1)).mean())

        best = minimize_scalar(loss, bounds=(-3, 3), method="bounded")
        return TemperatureCalibration(temperature=float(np.exp(best.x)))
    p = np.clip(scores[:, 1], 1e-12, 1 - 1e-12)
    if method == "sigmoid":
        platt = LogisticRegression(C=np.inf).fit(np.log(p / (1 - p))[:, None], target.astype(int))
        return SigmoidCalibration(slope=float(platt.coef_[0, 0]), intercept=float(platt.intercept_[0]))
    isotonic = IsotonicRegression(out_of_bounds="clip").fit(p, target)
    return IsotonicCalibration(x=tuple(map(float, isotonic.X_thresholds_)), y=tuple(map(float, isotonic.y_thresholds_)))


def choose_threshold(probability: NDArray[np.float64], target: NDArray[np.float64], params: ThresholdParams) -> float:
    """The best threshold on these rows, among the probabilities that occur (at most 1,001 quantiles of them)."""
    candidates = np.unique(np.quantile(probability, np.linspace(0, 1, 1001), method="nearest"))
    order = np.argsort(probability)
    ordered = target[order]
    first = np.searchsorted(probability[order], candidates)  # rows from this position on are predicted as positive
    positives_before = np.concatenate([[0.0], np.cumsum(ordered)])[first]
    tp = ordered.sum() - positives_before
    fp = (len(ordered) - first) - tp
    fn = ordered.sum() - tp
    tn = len(ordered) - tp - fp - fn
    with np.errstate(invalid="ignore"):
        worth = {
            "f1": 2 * tp / (2 * tp + fp + fn),
            "balanced_accuracy": (tp / (tp + fn) + tn / (tn + fp)) / 2,
            "cost": -(fp * params.cost_false_positive + fn * params.cost_false_negative),
        }[params.maximize]
    return float(candidates[int(np.nanargmax(worth))])
