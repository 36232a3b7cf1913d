"""Turns the model's raw output into predictions, outside the ONNX graph, so that all routes decide in the same way."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ml.runtime import Scores
from ml.schema import Document, Schema


class NoCalibration(Document):
    """The model's own probabilities."""

    method: Literal["none"] = "none"

    def apply(self, scores: Scores) -> Scores:
        return scores


class SigmoidCalibration(Document):
    """Platt's method on the log-odds of the positive class; binary only."""

    method: Literal["sigmoid"] = "sigmoid"
    slope: float
    intercept: float

    def apply(self, scores: Scores) -> Scores:
        p = np.clip(scores[:, 1], 1e-12, 1 - 1e-12)
        calibrated = 1 / (1 + np.exp(-(self.slope * np.log(p / (1 - p)) + self.intercept)))
        return np.stack([1 - calibrated, calibrated], axis=1)


class IsotonicCalibration(Document):
    """A monotone, piecewise linear curve through the points; binary only."""

    method: Literal["isotonic"] = "isotonic"
    x: tuple[float, ...]
    y: tuple[float, ...]

    def apply(self, scores: Scores) -> Scores:
        calibrated = np.interp(scores[:, 1], self.x, self.y)
        return np.stack([1 - calibrated, calibrated], axis=1)


class TemperatureCalibration(Document):
    """Log-probabilities divided by a temperature (Guo et al., 2017); binary and multiclass."""

    method: Literal["temperature"] = "temperature"
    temperature: Annotated[float, Field(gt=0)]

    def apply(self, scores: Scores) -> Scores:
        logits = np.log(np.clip(scores, 1e-12, 1)) / self.temperature
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


Calibration = Annotated[
    NoCalibration | SigmoidCalibration | IsotonicCalibration | TemperatureCalibration, Field(discriminator="method")
]


LEAST = -0.999
"""The least number whose logarithm (of 1 + number) is learnt; later rows may hold lower ones than the training rows."""


class TargetTransform(Document):
    """A regression's target as the estimator learns it, (f(y) - shift) / scale, with f the identity or the logarithm.

    The estimator and the compiled graph compute in float32, which has seven digits; so the shift is added here, in
    float64, and a target of 1e9 +- 50 keeps its digits.
    """

    kind: Literal["identity", "log"] = "identity"
    shift: float = 0.0
    scale: Annotated[float, Field(gt=0)] = 1.0

    def apply(self, target: Scores) -> Scores:
        """What the estimator learns. A number at or below -1 has no logarithm, so it counts as slightly above -1."""
        number = np.log1p(np.maximum(target, LEAST)) if self.kind == "log" else target
        return (number - self.shift) / self.scale

    def invert(self, raw: Scores) -> Scores:
        """The estimator's output as a number of the target."""
        if self == TargetTransform():
            return raw
        number = raw * self.scale + self.shift
        # Above 709, exp overflows float64.
        return np.expm1(np.minimum(number, 700.0)) if self.kind == "log" else number


class Decision(Document):
    """The calibration and the threshold of a bundle; for a regression the transform of its target."""

    calibration: Calibration = NoCalibration()
    target: TargetTransform = TargetTransform()
    threshold: float | None = None
    """Binary: predict the positive class from this probability on; otherwise None."""

    def scores(self, raw: Scores) -> Scores:
        """The model's raw output as calibrated probabilities, or as numbers of the target."""
        return self.target.invert(self.calibration.apply(raw))


def winners(decision: Decision, scores: Scores) -> NDArray[np.int64]:
    """The place of each row's class in `Schema.classes`; the threshold is applied only here."""
    if decision.threshold is not None:
        return (scores[:, 1] >= decision.threshold).astype(np.int64)
    return scores.argmax(axis=1)


def decide(schema: Schema, decision: Decision, scores: Scores) -> NDArray[np.object_] | Scores:
    """Labels as text (object, shape (n,)) from calibrated scores; the numbers themselves for a regression."""
    if schema.task == "regression":
        return scores
    return np.asarray(schema.classes, dtype=object)[winners(decision, scores)]
