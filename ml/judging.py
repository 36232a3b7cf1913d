"""Judges the candidates of the automatic choice on held-out rows, and finds their best average."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.decision import TargetTransform
from ml.encoding_fitting import Encoded, fit_encoding
from ml.estimators import all_classes, constrain, fit_estimator, make_estimator, sample_weights, sequential
from ml.folds import make_folds
from ml.metrics import log_losses
from ml.model_params import ModelParams
from ml.params import Params
from ml.portfolio import Candidate
from ml.rows import Rows
from ml.runtime import Scores
from ml.schema import Schema

ROUNDS = 25
"""Steps of the greedy average."""
MEMBERS = 4
"""Estimators in the average, at most: each makes the served model larger."""
GAIN = 1e-3
"""An average with more estimators must have a loss that is lower by this share."""
PATIENCE = 25
"""Rounds of boosting without a gain on the held-out rows, after which it stops."""

NO_GAIN = 1e-4
"""Log-loss that counts as no gain. Without it, boosting goes on to the last tree if the classes can be told apart."""


@dataclass(frozen=True, slots=True)
class EncodedFold:
    """A fold, encoded: rows to learn from, and rows to predict."""

    learn: Encoded
    learn_rows: Rows
    matrix: NDArray[np.float32]
    rows: Rows
    learn_weights: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None
    """Of the rows to predict, as `learn_weights` of the others; None if all count the same."""
    repeat: int = 0
    """Which division of the rows it belongs to: the folds of another division hold out the same rows again."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate with its settings fixed, and its raw scores of each fold."""

    candidate: Candidate
    scores: list[Scores]
    loss: float
    by_fold: list[float]


def encode_folds(rows: Rows, schema: Schema, params: Params) -> list[EncodedFold]:
    """The folds, encoded: five, twice for few rows; three for many."""
    classes = None if schema.task == "regression" else rows.target
    timed, many = params.split.method == "time", len(rows) > 20_000
    folds = []
    for repeat in range(2 if len(rows) < 1000 and not timed else 1):
        made = make_folds(params.split, len(rows), 3 if many else 5, params.seed + repeat, classes, rows.groups)
        folds += [(repeat, *fold) for fold in made]
    encoded = []
    weights = sample_weights(rows, schema, params.model)
    for repeat, learn, predict in folds:
        if (fold := encode_fold(rows, learn, predict, schema, params)) is not None:
            if weights is not None:
                fold = replace(fold, learn_weights=weights[learn], weights=weights[predict])
            encoded.append(replace(fold, repeat=repeat))
    return encoded


def encode_fold(
    rows: Rows, learn: NDArray[np.int64], predict: NDArray[np.int64], schema: Schema, params: Params
) -> EncodedFold | None:
    """The rows at these positions, encoded as the rows to learn from imply; None if those are of a single class."""
    past, next_rows = rows.take(learn), rows.take(predict)
    if schema.task != "regression" and len(np.unique(past.target)) < 2:
        return None
    fitted = fit_encoding(past, schema, params)
    return EncodedFold(fitted, past, fitted.encoding.transform(next_rows.columns), next_rows)


def judge(
    candidate: Candidate,
    folds: list[EncodedFold],
    target: TargetTransform,
    schema: Schema,
    model: ModelParams,
    seed: int,
) -> Judged:
    """The candidate's scores on every fold; boosted trees get the number that is best for all folds together."""
    fitted, curves = [], []
    for fold in folds:
        names = fold.learn.encoding.names()
        estimator = make_estimator(candidate.estimator, schema.task, seed, names)
        constrain(estimator, names, model)
        learn, held = (_learnt(rows.target, target, schema) for rows in (fold.learn_rows, fold.rows))
        extra: dict[str, Any] = {}
        if candidate.stops_early:
            estimator.set_params(early_stopping=True, n_iter_no_change=PATIENCE, scoring="loss")
            if schema.task != "regression":
                estimator.set_params(tol=NO_GAIN)
            known = np.isin(held, learn) if schema.task != "regression" else np.ones(len(held), dtype=bool)
            extra = {"X_val": fold.matrix[known], "y_val": held[known]}
        fit_estimator(estimator, fold.learn.matrix, learn, fold.learn_weights, **extra)
        fitted.append(estimator)
        if candidate.stops_early:
            curves.append(np.asarray(estimator.validation_score_))
    trees = 0
    if candidate.stops_early:
        # A fold that stopped earlier counts with its last value from there on.
        longest = max(map(len, curves))
        mean = np.mean([np.pad(curve, (0, longest - len(curve)), mode="edge") for curve in curves], axis=0)
        trees = max(1, int(mean.argmax()))
        settings = candidate.estimator.model_copy(update={"max_iter": trees})
        candidate = replace(candidate, estimator=settings)
    scores = [_scores(estimator, fold.matrix, trees, schema) for estimator, fold in zip(fitted, folds, strict=True)]
    by_fold = [loss_of(each, fold, target, schema) for each, fold in zip(scores, folds, strict=True)]
    return Judged(candidate, scores, total_loss(by_fold, folds, schema), by_fold)


def _learnt(target: NDArray[np.float64], transform: TargetTransform, schema: Schema) -> NDArray[Any]:
    return transform.apply(target) if schema.task == "regression" else target.astype(np.int64)


def _scores(estimator: Any, matrix: NDArray[np.float32], trees: int, schema: Schema) -> Scores:
    method = "predict" if schema.task == "regression" else "predict_proba"
    with sequential():
        if trees:
            staged: Callable[[NDArray[np.float32]], Any] = getattr(estimator, f"staged_{method}")
            *_, raw = islice(staged(matrix), trees)
        else:
            raw = getattr(estimator, method)(matrix)
    return all_classes(raw, estimator, schema)


def loss_of(scores: Scores, fold: EncodedFold, target: TargetTransform, schema: Schema) -> float:
    """Mean log-loss of the fold, or mean squared error in the target's unit."""
    if schema.task == "regression":
        return float(np.average((target.invert(scores) - fold.rows.target) ** 2, weights=fold.weights))
    return float(np.average(log_losses(fold.rows.target, scores), weights=fold.weights))


def total_loss(by_fold: list[float], folds: list[EncodedFold], schema: Schema) -> float:
    """The loss over all folds' rows: log-loss, or root mean squared error."""
    mean = float(np.average(by_fold, weights=[len(fold.rows) for fold in folds]))
    return mean**0.5 if schema.task == "regression" else mean


def best_average(
    judged: list[Judged], folds: list[EncodedFold], target: TargetTransform, schema: Schema
) -> tuple[list[float], float]:
    """The weight of each candidate in the best average that is found, and its loss."""

    def loss(counts: NDArray[np.int64]) -> float:
        used = np.flatnonzero(counts)
        by_fold = []
        for place, fold in enumerate(folds):
            mean = sum(counts[k] * judged[k].scores[place] for k in used) / counts.sum()
            by_fold.append(loss_of(np.asarray(mean), fold, target, schema))
        return total_loss(by_fold, folds, schema)

    counts = best = np.zeros(len(judged), dtype=np.int64)
    lowest = np.inf
    for _ in range(ROUNDS):
        steps = np.eye(len(judged), dtype=np.int64)
        allowed = [k for k in range(len(judged)) if counts[k] or np.count_nonzero(counts) < MEMBERS]
        losses = {k: loss(counts + steps[k]) for k in allowed}
        k = min(losses, key=lambda place: losses[place])
        counts = counts + steps[k]
        if losses[k] < lowest * (1 - GAIN):
            best, lowest = counts, losses[k]
    return [float(count) / float(best.sum()) for count in best], lowest
