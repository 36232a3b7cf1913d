"""The automatic choice of the estimators when params.yaml names none: candidates are compared on folds, and averaged.

Every candidate of ml/portfolio.py predicts the held-out rows of the folds that the split implies. Boosted trees stop
where these rows no longer gain; their number is fixed then. The average is built greedily (Caruana et al., 2004,
Ensemble selection from libraries of models): the candidate that lowers the loss most is added, again and again.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.card import AutomaticChoice, Tried
from ml.decision import TargetTransform
from ml.encoding_fitting import Encoded, fit_encoding
from ml.estimators import all_classes, fit_estimator, make_estimator, sample_weights, sequential
from ml.folds import make_folds
from ml.model_params import EstimatorParams
from ml.params import Params
from ml.portfolio import Candidate, Size, candidates
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
SKEWED = 1.0
"""From this skewness on, the logarithm of a positive target is tried."""
TREND = 0.8
"""The share of the trees' error below which a linear estimator's error shows a trend that trees can't follow."""
CELLS = 1_500_000
"""Values of the matrix, at most, that the candidates are compared on, for each 60 seconds of the budget."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen."""

    estimators: dict[str, EstimatorParams]
    target: TargetTransform
    held_out: list[tuple[Scores, NDArray[np.float64]]]
    """Raw scores of the chosen average and the target, for each fold."""
    facts: AutomaticChoice


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A fold, encoded: rows to learn from, and rows to predict."""

    learn: Encoded
    learn_rows: Rows
    learn_weights: NDArray[np.float64] | None
    matrix: NDArray[np.float32]
    rows: Rows
    weights: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate with its settings fixed, and its raw scores of each fold."""

    candidate: Candidate
    scores: list[Scores]
    loss: float
    by_fold: list[float]


def choose(rows: Rows, schema: Schema, params: Params, log: logging.Logger) -> Choice:
    """Choose estimators by cross-validation on these rows, within `model.budget` seconds."""
    start = time.monotonic()
    budget = params.model.budget.total_seconds()
    sample = _sample(rows, schema, params)
    folds = _encode(sample, schema, params)
    width = folds[0].matrix.shape[1] if folds else 1
    per_round = len(schema.classes) if schema.task == "multiclass" else 1
    timed = params.split.method == "time"
    listed = candidates(Size(schema.task, len(sample), width, per_round, timed))
    if not folds:
        log.warning("there are too few rows to hold some out: the estimator is linear, without a comparison")
        first = next(candidate for candidate in listed if candidate.estimator.kind == "linear")
        facts = AutomaticChoice(rows=len(rows), folds=0, metric=_metric(schema), planned=0, tried=())
        return Choice({first.name: first.estimator}, standardised(rows.target, schema), [], facts)

    planned = _plan(listed, len(folds), budget)
    target = standardised(rows.target, schema)
    judged: list[Judged] = []
    tried: list[Tried] = []
    stopped = False
    if schema.task == "regression" and _skewed(rows.target):
        target = _choose_target(planned[0], folds, rows.target, target, schema, params, log)
    for place, candidate in enumerate(planned):
        spent = time.monotonic() - start
        if spent > budget and judged:
            stopped = True
            log.warning("the budget of %.0f s is spent after %d of %d candidates", budget, place, len(planned))
            break
        try:
            found = _judge(candidate, folds, target, schema, params.seed + place)
        except ValueError as error:  # an estimator that can't learn from a fold, such as one with a single class
            reason = " ".join(str(error).split())[:200]
            log.info("candidate %d of %d: %s can't be fitted: %s", place + 1, len(planned), candidate.name, reason)
            tried.append(_tried(candidate, why_not=reason))
            continue
        judged.append(found)
        log.info(
            "candidate %d of %d: %s: %s %.4f (%.0f of at most %.0f s)",
            place + 1, len(planned), candidate.name, _metric(schema), found.loss, time.monotonic() - start, budget,
        )  # fmt: skip
        tried.append(_tried(found.candidate, found))
    facts = AutomaticChoice(
        rows=len(sample),
        folds=len(folds),
        metric=_metric(schema),
        planned=len(planned),
        stopped_by_clock=stopped,
        tried=tuple(tried),
    )
    if not judged:
        line = next(candidate for candidate in listed if candidate.estimator.kind == "linear")
        return Choice({line.name: line.estimator}, target, [], facts)
    able = _follow_trend(judged) if timed and schema.task == "regression" else judged
    weights, loss = _average(able, folds, target, schema)
    chosen = [(one, weight) for one, weight in zip(able, weights, strict=True) if weight]
    log.info(
        "chosen: %s: %s %.4f",
        " + ".join(f"{weight:.0%} {one.candidate.name}" for one, weight in chosen), _metric(schema), loss,
    )  # fmt: skip
    held_out = [
        (np.sum([weight * one.scores[place] for one, weight in chosen], axis=0), fold.rows.target)
        for place, fold in enumerate(folds)
    ]
    estimators = {
        one.candidate.name: one.candidate.estimator.model_copy(update={"weight": round(weight, 4)})
        for one, weight in chosen
    }
    shares = {one.candidate.name: round(weight, 4) for one, weight in chosen}
    facts = facts.model_copy(
        update={
            "loss": loss,
            "tried": tuple(each.model_copy(update={"weight": shares.get(each.name, 0.0)}) for each in tried),
        }
    )
    return Choice(estimators, target, held_out, facts)


def standardised(target: NDArray[np.float64], schema: Schema, kind: str = "identity") -> TargetTransform:
    """The transform that gives a regression's target the mean 0 and the standard deviation 1."""
    if schema.task != "regression":
        return TargetTransform()
    number = np.log1p(target) if kind == "log" else target
    return TargetTransform.model_validate(
        {"kind": kind, "shift": float(number.mean()), "scale": float(number.std()) or 1.0}
    )


def _metric(schema: Schema) -> str:
    return "rmse" if schema.task == "regression" else "log_loss"


def _sample(rows: Rows, schema: Schema, params: Params) -> Rows:
    """The rows to compare candidates on: all, or, from too large a table, the latest or random ones."""
    most = int(CELLS * max(params.model.budget.total_seconds(), 1.0) / 60 / max(1, len(schema.features)))
    if len(rows) <= most:
        return rows
    if params.split.method == "time":
        return rows.take(np.arange(len(rows) - most, len(rows)))
    return rows.take(np.sort(np.random.default_rng(params.seed).permutation(len(rows))[:most]))


def _encode(rows: Rows, schema: Schema, params: Params) -> list[HeldOut]:
    """The folds, encoded: five, twice for few rows; three for many; one fifth of the rows for very many."""
    classes = None if schema.task == "regression" else rows.target
    timed, many = params.split.method == "time", len(rows) > 20_000
    folds = []
    for repeat in range(2 if len(rows) < 1000 and not timed else 1):
        folds += make_folds(params.split, len(rows), 3 if many else 5, params.seed + repeat, classes, None)
    encoded = []
    weights = sample_weights(rows, schema, params.model)
    for learn, predict in folds:
        past, next_rows = rows.take(learn), rows.take(predict)
        if classes is not None and len(np.unique(past.target)) < 2:
            continue
        fitted = fit_encoding(past.columns, past.target, schema, params.encoding, params.seed, params.split)
        encoded.append(
            HeldOut(
                fitted,
                past,
                None if weights is None else weights[learn],
                fitted.encoding.transform(next_rows.columns),
                next_rows,
                np.ones(len(predict)) if weights is None else weights[predict],
            )
        )
    return encoded


def _plan(listed: list[Candidate], folds: int, budget: float) -> list[Candidate]:
    """As many candidates, in order, as the budget's seconds are expected to be enough for; at least three."""
    planned: list[Candidate] = []
    work = 0.0
    for candidate in listed:
        work += candidate.seconds * folds
        if work <= budget or len(planned) < 3:
            planned.append(candidate)
    return planned


def _skewed(target: NDArray[np.float64]) -> bool:
    spread = target.std()
    return bool(target.min() >= 0 and spread > 0 and (((target - target.mean()) / spread) ** 3).mean() > SKEWED)


def _choose_target(
    candidate: Candidate,
    folds: list[HeldOut],
    numbers: NDArray[np.float64],
    plain: TargetTransform,
    schema: Schema,
    params: Params,
    log: logging.Logger,
) -> TargetTransform:
    """The target as it is, or its logarithm: whichever lets the first candidate predict the numbers better."""
    transforms = {"identity": plain, "log": standardised(numbers, schema, "log")}
    losses = {
        name: _judge(candidate, folds, transform, schema, params.seed).loss for name, transform in transforms.items()
    }
    best = min(losses, key=lambda name: losses[name])
    log.info("the target is learnt as %s (rmse %s)", best, {name: round(loss, 4) for name, loss in losses.items()})
    return transforms[best]


def _judge(candidate: Candidate, folds: list[HeldOut], target: TargetTransform, schema: Schema, seed: int) -> Judged:
    """The candidate's scores on every fold; boosted trees get the number that is best for all folds together."""
    fitted, curves = [], []
    for fold in folds:
        estimator = make_estimator(candidate.estimator, schema.task, seed, fold.learn.encoding.names())
        learn, held = (_learnt(rows.target, target, schema) for rows in (fold.learn_rows, fold.rows))
        extra: dict[str, Any] = {}
        if candidate.stops_early:
            estimator.set_params(early_stopping=True, n_iter_no_change=PATIENCE, scoring="loss")
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
    by_fold = [_loss(each, fold, target, schema) for each, fold in zip(scores, folds, strict=True)]
    return Judged(candidate, scores, _total(by_fold, folds, schema), by_fold)


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


def _loss(scores: Scores, fold: HeldOut, target: TargetTransform, schema: Schema) -> float:
    """Mean log-loss of the fold, or mean squared error in the target's unit."""
    if schema.task == "regression":
        return float(np.average((target.invert(scores) - fold.rows.target) ** 2, weights=fold.weights))
    likelihood = scores[np.arange(len(scores)), fold.rows.target.astype(int)]
    return float(np.average(-np.log(np.clip(likelihood, 1e-15, 1)), weights=fold.weights))


def _total(by_fold: list[float], folds: list[HeldOut], schema: Schema) -> float:
    """The loss over all folds' rows: log-loss, or root mean squared error."""
    mean = float(np.average(by_fold, weights=[len(fold.rows) for fold in folds]))
    return mean**0.5 if schema.task == "regression" else mean


def _follow_trend(judged: list[Judged]) -> list[Judged]:
    """Only the linear candidates, if one of them predicts later rows much better than all trees do.

    A tree predicts nothing beyond the numbers that it has learnt from. If that matters within the folds, it matters more
    the further ahead the model is used, and trees would spoil the average, though the folds may not show it.
    """
    lines = [one for one in judged if one.candidate.estimator.kind == "linear"]
    trees = [one for one in judged if one.candidate.estimator.kind != "linear"]
    if not lines or not trees:
        return judged
    best_line, best_tree = (min(one.loss for one in group) for group in (lines, trees))
    return lines if best_line < TREND * best_tree else judged


def _average(
    judged: list[Judged], folds: list[HeldOut], target: TargetTransform, schema: Schema
) -> tuple[list[float], float]:
    """The weight of each candidate in the best average that is found, and its loss."""

    def loss(counts: NDArray[np.int64]) -> float:
        used = np.flatnonzero(counts)
        by_fold = []
        for place, fold in enumerate(folds):
            mean = sum(counts[k] * judged[k].scores[place] for k in used) / counts.sum()
            by_fold.append(_loss(np.asarray(mean), fold, target, schema))
        return _total(by_fold, folds, schema)

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


def _tried(candidate: Candidate, judged: Judged | None = None, why_not: str = "") -> Tried:
    return Tried(
        name=candidate.name,
        kind=candidate.estimator.kind,
        settings=candidate.estimator.settings,
        loss=None if judged is None else judged.loss,
        by_fold=() if judged is None else tuple(judged.by_fold),
        why_not=why_not,
    )
