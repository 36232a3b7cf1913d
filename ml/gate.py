"""The gate: decides from bundles and test rows whether a candidate becomes champion. It has no side effects."""

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.bundle import Parts, bundle_of
from ml.card import Figure
from ml.evaluation import ALL, Predicted, doubt, evaluate, slice_rows, support
from ml.metrics import METRICS, improvement
from ml.params import Params, ParamsError
from ml.rows import rows_of
from ml.schema import Document, SchemaError


class Verdict(Document):
    """The gate's decision; reports/gate.json."""

    decision: Literal["champion", "same", "challenger"]
    """champion: it passed; same: it is the incumbent; challenger: it was refused."""
    candidate: str
    """Bundle version."""
    incumbent: str
    """Bundle version, `none` (there is no incumbent yet), or `unreadable` (its files aren't available)."""
    reasons: tuple[str, ...] = ()
    """Why it was refused, or would have been if params.yaml did not accept it."""
    accepted: bool = False
    """It did not pass, but `gate.accept` in params.yaml names it: it becomes champion all the same."""
    improvement: Figure | None = None
    """Paired improvement of the gate's metric on the same test rows; positive is better."""
    slices: dict[str, Figure] = {}
    """The improvement by slice, `feature=value`."""


def judge(
    candidate: tuple[str, Parts],
    incumbent: tuple[str, Parts] | Literal["none", "unreadable"],
    test: pd.DataFrame,
    params: Params,
) -> Verdict:
    """The candidate becomes champion if it satisfies three conditions, or if `gate.accept` names it.

    It satisfies the thresholds, it is significantly better than the incumbent over all rows, and it is not
    significantly worse on any slice. One that answers every row as the incumbent does needn't be better: something
    beside the model has changed, such as its views. Both bundles are judged by their models that never saw the test
    rows (`evaluated/`, if it exists). With too few test rows (`evaluation.min_class_rows`) nothing can be significant:
    the gate refuses to decide, unless there is nothing to compare with. Raises ParamsError when the gate's metrics
    don't fit the task.
    """
    verdict = _judge(candidate, incumbent, test, params)
    accept = params.gate.accept
    if verdict.decision == "challenger" and accept is not None and candidate[0].startswith(accept):
        return verdict.model_copy(update={"decision": "champion", "accepted": True})
    return verdict


def _judge(
    candidate: tuple[str, Parts],
    incumbent: tuple[str, Parts] | Literal["none", "unreadable"],
    test: pd.DataFrame,
    params: Params,
) -> Verdict:
    version, parts = candidate
    schema, gate = parts.schema, params.gate
    if isinstance(incumbent, tuple) and incumbent[0] == version:
        return Verdict(decision="same", candidate=version, incumbent=version)
    wanted = {gate.metric, *gate.minimum, *gate.maximum}
    if unknown := sorted(wanted - set(METRICS[schema.task])):
        there = ", ".join(METRICS[schema.task])
        raise ParamsError(
            f"gate: {', '.join(unknown)} is not a metric of a {schema.task} model; its metrics are {there}"
        )

    mine = _predict(parts, test, params)
    few = doubt(support(mine.rows.target, schema), params.evaluation)
    if few is not None and (isinstance(incumbent, tuple) or gate.minimum or gate.maximum):
        return Verdict(
            decision="challenger",
            candidate=version,
            incumbent=incumbent[0] if isinstance(incumbent, tuple) else incumbent,
            reasons=(f"the gate doesn't decide: {few}",),
        )
    reasons = _below_thresholds(mine, params)

    if not isinstance(incumbent, tuple):
        return Verdict(
            decision="challenger" if reasons else "champion",
            candidate=version,
            incumbent=incumbent,
            reasons=tuple(reasons),
        )
    if (incumbent[1].schema.task, incumbent[1].schema.classes, incumbent[1].schema.target) != (
        schema.task,
        schema.classes,
        schema.target,
    ):
        reasons.append(
            "the incumbent predicts another target or other classes, so they can't be compared: set another gate.base"
        )
        return Verdict(decision="challenger", candidate=version, incumbent=incumbent[0], reasons=tuple(reasons))

    try:
        theirs = _predict(incumbent[1], test, params)
    except SchemaError as error:  # a column has another type since then
        reasons.append(f"the incumbent can't read the test rows, so they can't be compared: {error}")
        return Verdict(decision="challenger", candidate=version, incumbent=incumbent[0], reasons=tuple(reasons))

    def gain(chosen: NDArray[np.bool_] | slice = ALL) -> Figure:
        return improvement(gate.metric, mine.values(gate.metric, chosen), theirs.values(gate.metric, chosen))

    overall = gain()
    same = np.array_equal(mine.scores, theirs.scores) and np.array_equal(mine.labels, theirs.labels)
    if not same and not _end(overall, "low") > gate.margin:
        reasons.append(
            f"{gate.metric}: better by {overall.value:.5f} "
            f"({_end(overall, 'low'):.5f} to {_end(overall, 'high'):.5f}), "
            f"not significantly more than gate.margin ({gate.margin})"
        )
    parts_of_test = slice_rows(schema, mine.rows.columns, params.evaluation)
    by_slice = {f"{name}={value}": gain(chosen) for name, value, chosen in parts_of_test}
    by_slice = {name: figure for name, figure in by_slice.items() if np.isfinite(figure.value)}
    for name, figure in by_slice.items():
        if _end(figure, "high") < -gate.slice_margin:
            reasons.append(
                f"{name}: {gate.metric} is worse by {-figure.value:.5f}, "
                f"significantly more than gate.slice_margin ({gate.slice_margin})"
            )
    return Verdict(
        decision="challenger" if reasons else "champion",
        candidate=version,
        incumbent=incumbent[0],
        reasons=tuple(reasons),
        improvement=overall,
        slices=by_slice,
    )


def _predict(parts: Parts, test: pd.DataFrame, params: Params) -> Predicted:
    bundle = bundle_of("", parts.evaluated or parts)
    return evaluate(bundle, rows_of(test, bundle.schema, params), params.evaluation, params.seed)


def _below_thresholds(mine: Predicted, params: Params) -> list[str]:
    gate = params.gate
    found = mine.figures([*gate.minimum, *gate.maximum])
    reasons = []
    for metric, least in gate.minimum.items():
        if metric not in found or _end(found[metric], "low") < least:
            reasons.append(f"{metric}: {_spell(found.get(metric))} is not surely above gate.minimum ({least})")
    for metric, most in gate.maximum.items():
        if metric not in found or _end(found[metric], "high") > most:
            reasons.append(f"{metric}: {_spell(found.get(metric))} is not surely below gate.maximum ({most})")
    return reasons


def _end(figure: Figure, end: Literal["low", "high"]) -> float:
    value = figure.low if end == "low" else figure.high
    return figure.value if value is None else value


def _spell(figure: Figure | None) -> str:
    if figure is None:
        return "not defined on the test rows, which"
    return f"{figure.value:.4f} ({_end(figure, 'low'):.4f} to {_end(figure, 'high'):.4f})"
