"""The automatic choice of the estimators when params.yaml names none: candidates are compared on folds, and averaged.

Every candidate of ml/portfolio.py predicts the held-out rows of the folds that the split implies. Boosted trees stop
where these rows no longer gain; their number is fixed then. The average is built greedily (Caruana et al., 2004,
Ensemble selection from libraries of models): the candidate that lowers the loss most is added, again and again.
"""

import logging
from dataclasses import dataclass
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from ml.calibration import HeldOut
from ml.card import AutomaticChoice, Tried
from ml.decision import TargetTransform
from ml.judging import EncodedFold, Judged, best_average, encode_folds, judge
from ml.model_params import EstimatorParams
from ml.params import Params, ParamsError
from ml.portfolio import Candidate, Size, candidates
from ml.rows import Rows
from ml.schema import Schema

LARGEST = 1e100
"""The largest number of a regression's target; squares of numbers beyond 1e154 overflow float64."""
SKEWED = 1.0
"""From this skewness on, the logarithm of a positive target is tried."""
FEW = {"max_iter": 50}
"""Trees if their number can't be found on held-out rows."""
TREND = 0.8
"""The share of the trees' error below which a linear estimator's error shows a trend that trees can't follow."""
CELLS = 1_500_000
"""Values of the matrix, at most, that the candidates are compared on, for each 60 seconds of the budget."""

OVERRUN = 2.0
"""A candidate that is expected to take more than this many budgets isn't tried: the clock can't stop it halfway."""


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """What was chosen."""

    estimators: dict[str, EstimatorParams]
    target: TargetTransform
    held_out: list[HeldOut]
    """Raw scores of the chosen average and the target, for each fold; each row once.

    A calibration is judged on a fold after it was fitted on the others, which must not hold the same rows again.
    """
    facts: AutomaticChoice


def choose(rows: Rows, schema: Schema, params: Params, log: logging.Logger) -> ChosenModel:
    """Choose estimators by cross-validation on these rows, in about `model.budget` seconds."""
    start = monotonic()
    timed, metric = params.split.method == "time", "rmse" if schema.task == "regression" else "log_loss"
    sample = _sample(rows, schema, params)
    folds = encode_folds(sample, schema, params)
    width = folds[0].matrix.shape[1] if folds else 1
    per_round = len(schema.classes) if schema.task == "multiclass" else 1
    listed = [
        one
        for one in candidates(Size(schema.task, len(sample), width, per_round, timed))
        if not params.model.monotone or one.stops_early  # the boosted trees
    ]
    budget = params.model.budget.total_seconds()
    twice = _is_undecided(rows.target, schema, params)
    planned = _plan(listed, len(folds), budget, undecided=twice) if folds else []
    facts = AutomaticChoice(rows=len(sample), folds=len(folds), metric=metric, planned=len(planned), tried=())
    transform, known = _choose_target(planned, folds, rows.target, schema, params, log)

    judged, tried, stopped = _try_all(planned, known, folds, transform, schema, params, start, log)
    facts = facts.model_copy(update={"tried": tuple(tried), "stopped_by_clock": stopped})
    if not judged:
        plain = min(listed, key=lambda one: (one.estimator.kind != "linear", one.seconds))
        log.warning("there are too few rows to compare estimators: %s is taken", plain.name)
        return ChosenModel(
            {plain.name: plain.estimator.model_copy(update=FEW if plain.stops_early else {})}, transform, [], facts
        )
    able = _follow_trend(judged) if timed and schema.task == "regression" else judged
    weights, loss = best_average(able, folds, transform, schema)
    chosen = {one.candidate.name: (one, weight) for one, weight in zip(able, weights, strict=True) if weight}
    shown = " + ".join(f"{weight:.0%} {name}" for name, (_, weight) in chosen.items())
    log.info("chosen: %s: %s %.4f over the held-out rows", shown, metric, loss)
    shares = {name: round(weight, 4) for name, (_, weight) in chosen.items()}
    weighed = tuple(each.model_copy(update={"weight": shares.get(each.name, 0.0)}) for each in tried)
    return ChosenModel(
        {
            name: one.candidate.estimator.model_copy(update={"weight": shares[name]})
            for name, (one, _) in chosen.items()
        },
        transform,
        [
            (np.sum([weight * one.scores[place] for one, weight in chosen.values()], axis=0), fold.rows.target)
            for place, fold in enumerate(folds)
            if fold.repeat == 0
        ],
        facts.model_copy(update={"loss": loss, "tried": weighed}),
    )


def _try_all(
    planned: list[Candidate],
    known: dict[str, Judged],
    folds: list[EncodedFold],
    transform: TargetTransform,
    schema: Schema,
    params: Params,
    start: float,
    log: logging.Logger,
) -> tuple[list[Judged], list[Tried], bool]:
    """The judged candidates, all that were tried, and whether the clock stopped the search.

    `known`: candidates by name that the choice of the target has judged.
    """
    judged: list[Judged] = []
    tried: list[Tried] = []
    budget = params.model.budget.total_seconds()
    # A linear one first: it takes moments, and if the clock stops the search after slow trees, a trend is still seen.
    first = next((place for place, one in enumerate(planned) if one.estimator.kind == "linear"), 0)
    order = sorted(range(len(planned)), key=lambda place: place != first)
    for count, place in enumerate(order):
        candidate = planned[place]
        facts = Tried(name=candidate.name, kind=candidate.estimator.kind, settings=candidate.estimator.settings)
        progress = f"candidate {count + 1} of {len(planned)}: {candidate.name}"
        if judged and count > 1 and monotonic() - start > budget:
            log.warning("model.budget (%.0f s) is spent after %d of %d candidates", budget, count, len(planned))
            return judged, tried, True
        try:
            found = known.get(candidate.name) or judge(
                candidate, folds, transform, schema, params.model, params.seed + place
            )
            if not np.isfinite(found.loss):
                raise ValueError("its loss is not a finite number")
        except ValueError as error:  # it can't learn from a fold, such as one that has a single class
            reason = " ".join(str(error).split())[:200]
            log.info("%s can't be fitted: %s", progress, reason)
            tried.append(facts.model_copy(update={"why_not": reason}))
            continue
        judged.append(found)
        settings = found.candidate.estimator.settings
        tried.append(
            facts.model_copy(update={"settings": settings, "loss": found.loss, "by_fold": tuple(found.by_fold)})
        )
        log.info("%s: loss %.4f (%.0f of at most %.0f s)", progress, found.loss, monotonic() - start, budget)
    return judged, tried, False


def standardised(
    target: NDArray[np.float64], schema: Schema, kind: str = "identity", *, shifted: bool = True
) -> TargetTransform:
    """The transform that gives a regression's target the mean 0 and the standard deviation 1.

    `shifted=False` leaves the mean, so that a target without negative numbers keeps having none.
    """
    if schema.task != "regression":
        return TargetTransform()
    if kind == "log" and target.min() <= -1:
        raise ParamsError(f"model.target: log needs numbers above -1, but {schema.target!r} has {target.min():g}")
    if (largest := np.abs(target).max()) > LARGEST:
        raise ParamsError(f"the target {schema.target!r} has {largest:g}, too large to learn: divide it in the table")
    number = np.log1p(target) if kind == "log" else target
    return TargetTransform.model_validate(
        {"kind": kind, "shift": float(number.mean()) if shifted else 0.0, "scale": float(number.std()) or 1.0}
    )


def _sample(rows: Rows, schema: Schema, params: Params) -> Rows:
    """The rows to compare candidates on: all, or, from too large a table, the latest or random ones."""
    most = int(CELLS * max(params.model.budget.total_seconds(), 1.0) / 60 / max(1, len(schema.features)))
    if len(rows) <= most:
        return rows
    if params.split.method == "time":
        return rows.take(np.arange(len(rows) - most, len(rows)))
    return rows.take(np.sort(np.random.default_rng(params.seed).permutation(len(rows))[:most]))


def _plan(listed: list[Candidate], folds: int, budget: float, *, undecided: bool = False) -> list[Candidate]:
    """The candidates, in order, that the budget's seconds are expected to be enough for; at least three.

    One that doesn't fit is passed over, and a later one that takes less time is planned instead. Of those that would
    take much longer than all the budget alone, such as boosted trees for dozens of classes, none.
    `undecided`: the first two are judged once more, for the choice of the target.
    """
    able = [one for one in listed if one.seconds * folds <= OVERRUN * budget]
    planned: list[Candidate] = []
    work = sum(one.seconds for one in able[:2]) * folds if undecided else 0.0
    for candidate in able or [min(listed, key=lambda one: one.seconds)]:
        cost = candidate.seconds * folds
        if work + cost <= budget or len(planned) < 3:
            planned.append(candidate)
            work += cost
    return planned


def _skewed(target: NDArray[np.float64]) -> bool:
    spread = target.std()
    return bool(target.min() >= 0 and spread > 0 and (((target - target.mean()) / spread) ** 3).mean() > SKEWED)


def _is_undecided(target: NDArray[np.float64], schema: Schema, params: Params) -> bool:
    """Whether the choice includes what is learnt of the target."""
    return schema.task == "regression" and params.model.target is None and _skewed(target)


def _choose_target(
    planned: list[Candidate],
    folds: list[EncodedFold],
    target: NDArray[np.float64],
    schema: Schema,
    params: Params,
    log: logging.Logger,
) -> tuple[TargetTransform, dict[str, Judged]]:
    """The target as it is, or its logarithm: whichever lets the first two candidates predict the numbers better.

    Also these candidates by name, as they were judged with it.
    """
    plain = standardised(target, schema, params.model.target or "identity")
    if not planned or not _is_undecided(target, schema, params):
        return plain, {}
    transforms = {"identity": plain, "log": standardised(target, schema, "log")}
    judged = {
        kind: {
            one.name: judge(one, folds, each, schema, params.model, params.seed + place)
            for place, one in enumerate(planned[:2])
        }
        for kind, each in transforms.items()
    }
    losses = {kind: min(one.loss for one in found.values()) for kind, found in judged.items()}
    best = min(losses, key=lambda kind: losses[kind])
    log.info("the target is learnt as %s (rmse %s)", best, {kind: round(loss, 4) for kind, loss in losses.items()})
    return transforms[best], judged[best]


def _follow_trend(judged: list[Judged]) -> list[Judged]:
    """Only the linear candidates, if one of them predicts later rows much better than all trees do.

    A tree predicts nothing beyond the numbers that it has learnt from. If that matters within the folds, it matters
    more the further ahead the model is used, and trees would spoil the average, though the folds may not show it.
    """
    lines = [one for one in judged if one.candidate.estimator.kind == "linear"]
    trees = [one for one in judged if one.candidate.estimator.kind != "linear"]
    if not lines or not trees:
        return judged
    best_line, best_tree = (min(one.loss for one in group) for group in (lines, trees))
    return lines if best_line < TREND * best_tree else judged
