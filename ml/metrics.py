"""Metrics of predictions, and their intervals by resampling whole blocks (days) of rows.

Rows of the same day have the same weather and congestion, so intervals that resample single rows are several times too
narrow. Resampling whole blocks keeps the dependence: the block bootstrap of Künsch (1989), with a day as the block.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.card import Figure
from ml.runtime import Scores
from ml.schema import Task

METRICS: dict[Task, tuple[str, ...]] = {
    "binary": ("roc_auc", "pr_auc", "log_loss", "brier", "accuracy", "f1"),
    "multiclass": ("log_loss", "accuracy", "f1_macro", "roc_auc"),
    "regression": ("rmse", "mae", "r2"),
}
LARGER_IS_BETTER = frozenset({"roc_auc", "pr_auc", "accuracy", "f1", "f1_macro", "r2"})
LEVEL = 0.95
"""Percentiles of every interval."""

Weights = NDArray[np.float64]
"""Shape (1 + replicates, blocks): how often each block was drawn; the first row is the original data."""


def day_blocks(
    seconds: NDArray[np.float64] | None, rows: int, seed: int, groups: NDArray[Any] | None = None
) -> NDArray[np.int64]:
    """The block of each row, numbered from 0: its group or day; without these a random block of at most 2,000."""
    if groups is not None:
        return np.unique(groups, return_inverse=True)[1].astype(np.int64)
    if seconds is None:
        return np.random.default_rng(seed).permutation(rows) % min(max(rows, 1), 2000)
    return np.unique(np.floor(seconds / 86400), return_inverse=True)[1].astype(np.int64)


def block_weights(blocks: int, replicates: int, seed: int) -> Weights:
    """A row of ones, then the weights of `replicates` bootstrap draws of the blocks, with replacement."""
    if not blocks:
        return np.ones((1 + replicates, 0))
    draws = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), size=replicates)
    return np.vstack([np.ones(blocks), draws])


def values(
    metric: str,
    actual: NDArray[np.float64],
    scores: Scores,
    predicted: NDArray[np.float64],
    blocks: NDArray[np.int64],
    weights: Weights,
) -> NDArray[np.float64]:
    """The metric on the original rows, and on each replicate: shape (1 + replicates,).

    `actual` and `predicted` contain class indices (as floats), or numbers for a regression;
    `scores` is the result of `Bundle.scores`.
    If the metric isn't defined on a replicate (for example with a single class), it is NaN.
    """

    def mean(per_row: NDArray[Any]) -> NDArray[np.float64]:
        return _sums(per_row, blocks, weights) / _sums(np.ones(len(blocks)), blocks, weights)

    with np.errstate(invalid="ignore", divide="ignore"):
        match metric:
            case "log_loss":
                return mean(log_losses(actual, scores))
            case "brier":
                return mean((scores[:, 1] - actual) ** 2)
            case "accuracy":
                return mean(predicted == actual)
            case "f1":
                return _f1(actual, predicted, 1, blocks, weights)
            case "f1_macro":
                each = [_f1(actual, predicted, k, blocks, weights) for k in range(scores.shape[1])]
                return np.mean(each, axis=0)
            case "rmse":
                return np.sqrt(mean((predicted - actual) ** 2))
            case "mae":
                return mean(np.abs(predicted - actual))
            case "r2":
                spread = mean(actual**2) - mean(actual) ** 2
                return 1 - mean((predicted - actual) ** 2) / spread
            case "roc_auc" if scores.shape[1] > 2:
                each = [_ranked("roc_auc", actual == k, scores[:, k], blocks, weights) for k in range(scores.shape[1])]
                return np.mean(each, axis=0)
            case "roc_auc" | "pr_auc":
                return _ranked(metric, actual == 1, scores[:, 1], blocks, weights)
    raise ValueError(f"{metric!r} is not a metric; metrics are {', '.join(sorted(set(sum(METRICS.values(), ()))))}")


def log_losses(actual: NDArray[np.float64], scores: Scores) -> NDArray[np.float64]:
    """The negative logarithm of each row's probability of its actual class, which counts as 1e-15 or more."""
    return -np.log(np.clip(scores[np.arange(len(actual)), actual.astype(int)], 1e-15, 1))


def figures(
    metrics: Sequence[str],
    actual: NDArray[np.float64],
    scores: Scores,
    predicted: NDArray[np.float64],
    blocks: NDArray[np.int64],
    weights: Weights,
) -> dict[str, Figure]:
    """Each metric with its bootstrap percentile interval; metrics that aren't defined on these rows are left out."""
    found = {}
    for metric in metrics:
        drawn = values(metric, actual, scores, predicted, blocks, weights)
        if np.isfinite(drawn[0]):
            found[metric] = interval(drawn)
    return found


def interval(drawn: NDArray[np.float64]) -> Figure:
    """The first value, with the percentiles of all other values as its interval."""
    replicates = drawn[1:][np.isfinite(drawn[1:])]
    if len(replicates) < 2:
        return Figure(value=float(drawn[0]))
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Figure(value=float(drawn[0]), low=float(low), high=float(high))


def improvement(metric: str, candidate: NDArray[np.float64], incumbent: NDArray[np.float64]) -> Figure:
    """The candidate's improvement, paired by replicate: positive is better for every metric."""
    sign = 1.0 if metric in LARGER_IS_BETTER else -1.0
    return interval(sign * (candidate - incumbent))


def _sums(per_row: NDArray[Any], blocks: NDArray[np.int64], weights: Weights) -> NDArray[np.float64]:
    return weights @ np.bincount(blocks, per_row.astype(np.float64), minlength=weights.shape[1])


def _f1(
    actual: NDArray[np.float64], predicted: NDArray[np.float64], k: int, blocks: NDArray[np.int64], weights: Weights
) -> NDArray[np.float64]:
    hits = _sums((actual == k) & (predicted == k), blocks, weights)
    errors = _sums((actual == k) != (predicted == k), blocks, weights)
    return np.where(hits + errors > 0, 2 * hits / (2 * hits + errors), 0.0)


def _ranked(
    metric: str, positive: NDArray[np.bool_], score: NDArray[np.float64], blocks: NDArray[np.int64], weights: Weights
) -> NDArray[np.float64]:
    """Weighted ROC-AUC or average precision; equal scores are a single step, as in scikit-learn."""
    order = np.argsort(-score, kind="stable")
    ordered, block, hit = score[order], blocks[order], positive[order]
    if not len(ordered):
        return np.full(len(weights), np.nan)
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    out = np.empty(len(weights))
    for replicate, by_block in enumerate(weights):
        weight = by_block[block]
        tp = np.cumsum(weight * hit)[ends]
        everything = np.cumsum(weight)[ends]
        fp = everything - tp
        if tp[-1] == 0 or fp[-1] == 0:
            out[replicate] = np.nan
        elif metric == "roc_auc":
            before = np.concatenate([[0.0], tp[:-1]])
            out[replicate] = np.sum(np.diff(fp, prepend=0.0) * (tp + before) / 2) / (tp[-1] * fp[-1])
        else:
            precision = np.divide(tp, everything, out=np.ones_like(tp), where=everything > 0)
            out[replicate] = np.sum(np.diff(tp, prepend=0.0) * precision) / tp[-1]
    return out
