"""Exact contributions for models that are a sum of trees and linear functions, on the scale on which they are a sum."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ml.bundle import Bundle
from ml.decision import NoCalibration, SigmoidCalibration, TargetTransform, TemperatureCalibration
from service.explanation.graph import Linear, NotAdditiveError, Part, Trees, parts_of
from service.explanation.trees import TreeShapley

Scale = Literal["log_odds", "log_ratio", "probability", "number", "log"]
"""What contributions and base add up to; docs/serving.md explains each."""

TOLERANCE = 1e-4
"""Difference between the sum and the model's own scores; the model computes in float32."""


class Method(Protocol):
    """Contributions of players (groups of the matrix's columns) to scores."""

    scale: Scale
    exact: bool

    def explain(
        self, matrix: NDArray[np.float32], winners: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Base values, shape (rows,), and contributions, shape (rows, players), for the classes `winners`."""


class _LinearShapley:
    """A linear function's Shapley values: coefficient times difference from the background's mean."""

    def __init__(self, part: Linear, players: NDArray[np.int64], background: NDArray[np.float32]) -> None:
        self._part = part
        self._mean = part.inputs.of(background).astype(np.float64).mean(axis=0)
        self._member = np.zeros((len(part.inputs.columns), int(players.max()) + 1))
        self._member[np.arange(len(part.inputs.columns)), players[part.inputs.columns]] = 1
        self.base = part.base + part.coefficients @ self._mean

    def values(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Contributions, shape (rows, players, outputs)."""
        differences = self._part.inputs.of(matrix) - self._mean
        return np.einsum("nf,of,fp->npo", differences, self._part.coefficients, self._member, optimize=True)


@dataclass(frozen=True, slots=True)
class _Term:
    """A weighted part of the sum."""

    weight: float
    base: NDArray[np.float64]
    values: TreeShapley | _LinearShapley


class ExactMethod:
    """Exact Shapley values.

    Raises NotAdditiveError when the model's scores are no link of a single sum.
    """

    exact = True

    def __init__(self, bundle: Bundle, players: NDArray[np.int64], background: NDArray[np.float32]) -> None:
        if bundle.parts.runtime != "onnx":
            raise NotAdditiveError("the model isn't compiled")
        parts = parts_of(bundle.parts.model, background.shape[1])
        links = {part.link for _, part in parts}
        if links != {"NONE"} and len(parts) > 1:
            raise NotAdditiveError("it is an average of probabilities, of which some are no sum")
        self._link = links.pop()
        self._task = bundle.schema.task
        self._terms = [_term(weight, part, players, background) for weight, part in parts]
        self._factor, self._shift, self.scale = self._after(bundle)
        self._check(bundle, background)

    def explain(
        self, matrix: NDArray[np.float32], winners: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """See Method."""
        base = sum((self._ordered(term.weight * term.base) for term in self._terms), start=np.zeros(()))
        found = sum(
            (self._ordered(term.weight * term.values.values(matrix)) for term in self._terms), start=np.zeros(())
        )
        # The positive class's sum, the number, or the sum of each row's own class.
        chosen = winners if self._task == "multiclass" else np.zeros(len(matrix), dtype=np.int64)
        values = found[np.arange(len(matrix)), :, chosen]
        return base[chosen] * self._factor + self._shift, values * self._factor

    def _ordered(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """The last axis: a single output, or an output for each class of a multiclass model."""
        if self._task != "multiclass":
            return sums[..., -1:]
        if self._link == "SOFTMAX":  # only differences between the classes' sums matter
            return sums - sums.mean(axis=-1, keepdims=True)
        return sums

    def _after(self, bundle: Bundle) -> tuple[float, float, Scale]:
        """What calibration or the target's transform do to the sum: factor, shift, and the scale of the result."""
        decision = bundle.parts.decision
        if self._task == "regression":
            target: TargetTransform = decision.target
            return target.scale, target.shift, "log" if target.kind == "log" else "number"
        match decision.calibration, self._link:
            case NoCalibration(), "NONE":
                return 1.0, 0.0, "probability"
            case NoCalibration(), link:
                return 1.0, 0.0, "log_odds" if link == "LOGISTIC" else "log_ratio"
            case SigmoidCalibration(slope=slope, intercept=intercept), "LOGISTIC":
                return slope, intercept, "log_odds"
            case TemperatureCalibration(temperature=temperature), "LOGISTIC" | "SOFTMAX" as link:
                return 1 / temperature, 0.0, "log_odds" if link == "LOGISTIC" else "log_ratio"
        raise NotAdditiveError("its calibration isn't a straight line on the scale of the sum")

    def _check(self, bundle: Bundle, background: NDArray[np.float32]) -> None:
        """Raise NotAdditiveError unless the sums give the model's own scores."""
        rows = background[:5]
        scores = bundle.parts.decision.scores(bundle.run(rows))
        winners = scores.argmax(axis=1) if self._task == "multiclass" else np.ones(len(rows), dtype=np.int64)
        own = scores if scores.ndim == 1 else scores[np.arange(len(rows)), winners]
        base, values = self.explain(rows, winners)
        sums = base + values.sum(axis=1)
        match self.scale:
            case "log_odds":
                sums = 1 / (1 + np.exp(-sums))
            case "log_ratio":
                logs = np.log(np.clip(scores, 1e-30, 1))
                own = own / np.exp(logs.mean(axis=1))
                sums = np.exp(sums)
            case "log":
                sums = np.expm1(sums)
        if not np.allclose(sums, own, rtol=TOLERANCE, atol=TOLERANCE):
            raise NotAdditiveError("the sums of its parts differ from its scores")


def _term(weight: float, part: Part, players: NDArray[np.int64], background: NDArray[np.float32]) -> _Term:
    values = (TreeShapley if isinstance(part, Trees) else _LinearShapley)(part, players, background)  # type: ignore[arg-type]
    return _Term(weight, values.base, values)
