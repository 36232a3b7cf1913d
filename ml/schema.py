"""The schema of a row: names, types, bounds and categories, shared by training and serving."""

from collections.abc import Callable
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from ml import values

FeatureType = Literal["numeric", "categorical", "datetime", "text", "boolean"]
Task = Literal["binary", "multiclass", "regression"]
Form = Literal["boolean", "number", "text"]
"""A type of JSON."""
Label = Literal["text", "integer", "number", "boolean"]
"""What the labels of a target are in JSON."""

MISSING = (
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NULL", "NaN",
    "n/a", "nan", "null",
)  # fmt: skip
"""The default spellings of a missing value: as pandas has them, without the words NA (Namibia) and None."""

Columns = dict[str, NDArray[np.generic]]
"""Rows by column, every array of length n:

numeric   float64, NaN where missing
boolean   float64: 0.0, 1.0, NaN where missing
datetime  float64: seconds since 1970-01-01 by the clock of `Feature.timezone`, or of UTC if `Feature.utc`; NaN: missing
categorical, text   object: str, None where missing
"""


class SchemaError(ValueError):
    """A table or a row that doesn't fit its schema."""


class Document(BaseModel):
    """A frozen JSON or YAML document that rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Feature(Document):
    """An input column: declared properties, and properties learnt in training."""

    name: str
    type: FeatureType
    required: bool = False
    """Whether a request must contain a value; otherwise the model accepts a missing value."""
    minimum: float | None = None
    """Declared hard bound (numeric): a smaller number is refused."""
    maximum: float | None = None
    """Declared hard bound (numeric): a larger number is refused."""
    unknown: Literal["accept", "refuse"] = "accept"
    """How a category that training never saw is treated."""
    live: bool = False
    """Whether it is known only shortly before the prediction; quality is reported with and without live features."""
    description: str = ""
    missing: tuple[str, ...] = ()
    """Declared or learnt: spellings that mean in this column that the value is missing, besides `Schema.missing`."""
    format: str | None = None
    """Declared or learnt (datetime): how times are written if not as ISO 8601, `%d.%m.%Y` or a key of values.EPOCHS."""
    timezone: str | None = None
    """Declared (datetime): the zone of the calendar and clock that the model sees, and of times without an offset."""

    integer: bool = False
    """Learnt: whether all numbers were whole."""
    utc: bool = False
    """Learnt: whether times have an offset and count as UTC; otherwise they are wall-clock times without an offset."""
    complete: bool = False
    """Learnt: whether no training row lacked it, so that the model has never seen it missing."""
    forms: tuple[Form, ...] = ()
    """Learnt: how JSON writes the values of the training file (numeric, categorical)."""
    low: float | None = None
    """Learnt: smallest value in training (numeric, or datetime in epoch seconds)."""
    high: float | None = None
    """Learnt: largest value in training (numeric, or datetime in epoch seconds)."""
    categories: tuple[str, ...] = ()
    """Learnt: categories in training, most frequent first."""
    example: str | float | bool | None = None
    """A value from training, in the format of a request (datetime: ISO 8601)."""

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        if (self.minimum is not None or self.maximum is not None) and self.type != "numeric":
            raise ValueError(f"{self.name}: minimum and maximum are for numeric features, but its type is {self.type}")
        if (self.format is not None or self.timezone is not None) and self.type != "datetime":
            raise ValueError(f"{self.name}: format and timezone are for datetime features, but its type is {self.type}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"{self.name}: minimum {self.minimum} is above maximum {self.maximum}")
        return self


class Schema(Document):
    """The columns that a model reads, in order, and the target that it predicts."""

    target: str
    task: Task
    classes: tuple[str, ...] = ()
    """Labels in the order of the model's probabilities; binary: (negative, positive); regression: none."""
    labels: Label = "text"
    """Learnt: what the labels are in the training file, and so in an answer; `classes` are their texts."""
    features: tuple[Feature, ...]
    missing: tuple[str, ...] = MISSING
    """Spellings that mean in every column that the value is missing; a blank text is always missing."""
    horizon: str | None = None
    """How long before the event a prediction is made (e.g. `2h`), if the data has a prediction time."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [feature.name for feature in self.features]
        if len(set(names)) != len(names):
            raise ValueError(f"feature names repeat: {sorted({n for n in names if names.count(n) > 1})}")
        if self.target in names:
            raise ValueError(f"the target {self.target!r} is also a feature")
        expected = {
            "binary": len(self.classes) == 2,
            "multiclass": len(self.classes) > 2,
            "regression": not self.classes,
        }
        if not expected[self.task]:
            raise ValueError(f"a {self.task} target can't have the classes {list(self.classes)}")
        return self

    def spellings(self, feature: Feature) -> frozenset[str]:
        """The spellings of a missing value of this feature, cleaned (`values.clean`)."""
        return frozenset(map(values.clean, (*self.missing, *feature.missing)))

    def answers(self) -> tuple[str | int | float | bool, ...]:
        """The classes as an answer contains them, in their order."""
        convert: dict[Label, Callable[[str], str | int | float | bool]] = {
            "text": str,
            "integer": int,
            "number": float,
            "boolean": lambda text: text == "true",
        }
        return tuple(map(convert[self.labels], self.classes))

    def feature(self, name: str) -> Feature:
        """The feature with this name; KeyError if it doesn't exist."""
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(name)
