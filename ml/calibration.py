"""Chooses the calibration and the threshold, on rows that the model never saw."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ml.decision import Calibration, IsotonicCalibration, NoCalibration, SigmoidCalibration, TemperatureCalibration
from ml.metrics import log_losses
from ml.model_params import ThresholdParams
from ml.runtime import Scores

HeldOut = tuple[Scores, NDArray[np.float64]]
"""Raw scores and target (class indices) of rows that the model that predicted them had not seen."""


@dataclass(frozen=True, slots=True)
class CalibrationChoice:
    """The chosen calibration, and what was found out about each candidate."""

    calibration: Calibration
    log_loss: dict[str, float]
    """Mean log-loss over the folds, by method."""
    excluded: dict[str, str]
    """Why a method could not be chosen, by method."""


def choose_calibration(held_out: list[HeldOut], methods: tuple[str, ...], *, in_order: bool) -> CalibrationChoice:
    """Choose the method with the lowest mean log-loss, or `none` unless the gain over it exceeds its standard error.

    A gain that may be chance isn't worth a calibration: isotonic gives many rows the same probability, which costs
    ROC-AUC. Each method is judged on a fold of `held_out` after it was fitted on the other folds; if folds are
    `in_order` of time, on the earlier folds.
    A method that can't be fitted (for example on a single class), or whose loss isn't a finite number, is not chosen.
    """
    losses: dict[str, float] = {}
    rows: dict[str, NDArray[np.float64]] = {}
    excluded: dict[str, str] = {}
    for method in dict.fromkeys(("none", *methods)):
        fold_losses = []
        try:
            for place in range(1 if in_order else 0, len(held_out)):
                others = held_out[:place] if in_order else held_out[:place] + held_out[place + 1 :]
                if others:
                    scores, target = held_out[place]
                    fold_losses.append(log_losses(target, fit_calibration(method, others).apply(scores)))
            fit_calibration(method, held_out)
        except ValidationError:  # a document holds only finite numbers
            excluded[method] = "its parameters are not finite numbers: the scores separate the classes"
            continue
        except ValueError as error:
            excluded[method] = f"it can't be fitted on every fold: {' '.join(str(error).split())}"
            continue
        loss = float(np.mean([each.mean() for each in fold_losses])) if fold_losses else np.inf
        if np.isfinite(loss):
            losses[method], rows[method] = loss, np.concatenate(fold_losses)
        elif method != "none":
            excluded[method] = (
                "its log-loss is not a finite number" if fold_losses else "there are too few folds to judge it"
            )
    allowed = {
        method: loss
        for method, loss in losses.items()
        if method in methods and ("none" not in methods or method == "none" or _is_sure(rows["none"] - rows[method]))
    }
    best = min(allowed, key=lambda method: (round(allowed[method], 6), method != "none"), default="none")
    return CalibrationChoice(fit_calibration(best, held_out), losses, excluded)


def _is_sure(gains: NDArray[np.float64]) -> bool:
    """Whether the mean of the rows' gains exceeds its standard error (Breiman et al., 1984, the one-error rule)."""
    return bool(gains.mean() > gains.std() / np.sqrt(len(gains)))


def log_loss(scores: Scores, target: NDArray[np.float64]) -> float:
    """Mean log-loss of the rows."""
    return float(log_losses(target, scores).mean())


def fit_calibration(method: str, held_out: list[HeldOut]) -> Calibration:
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
            return log_loss(TemperatureCalibration(temperature=float(np.exp(log_temperature))).apply(scores), target)

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
    if np.isnan(worth).all():  # balanced accuracy isn't defined if the rows have a single class
        return 0.5
    return float(candidates[int(np.nanargmax(worth))])
