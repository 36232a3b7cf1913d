"""Encodes columns as the model's float32 matrix, only with numpy: training and the service use the same code."""

import re
from collections import Counter
from functools import cached_property
from typing import Annotated, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ml.schema import Columns, Document

DatetimePart = Literal[
    "year",
    "month",
    "day",
    "dayofweek",
    "dayofyear",
    "hour",
    "minute",
    "hour_sin",
    "hour_cos",
    "dayofweek_sin",
    "dayofweek_cos",
    "dayofyear_sin",
    "dayofyear_cos",
    "epoch_days",
]

MISSING = "\x00missing"
"""The category that stands for a missing value."""
CROSS = "\x1f"
"""Joins the categories of a cross; normal text doesn't contain this character."""

_TOKEN = re.compile(r"\w\w+")


class NumericEncoder(Document):
    """The number, NaN where missing; in float64 moved or bent where float32 would merge numbers (ml/precision.py)."""

    kind: Literal["numeric"] = "numeric"
    column: str
    shift: float = 0.0
    scale: float = 1.0
    """The encoded number is (number - shift) / scale."""
    knots: tuple[float, ...] = ()
    """Instead: the number's place among these ascending numbers, with linear steps between them."""

    def names(self) -> list[str]:
        return [self.column]

    @cached_property
    def _knots(self) -> NDArray[np.float64]:
        return np.array(self.knots)

    def transform(self, columns: Columns) -> NDArray[np.float64]:
        numbers = cast(NDArray[np.float64], columns[self.column])
        if self.knots:
            numbers = np.interp(numbers, self._knots, np.arange(len(self.knots)))
        elif self.shift != 0 or self.scale != 1:
            numbers = (numbers - self.shift) / self.scale
        return numbers[:, None]


class OneHotEncoder(Document):
    """A column per known category; an unknown category gives only zeros."""

    kind: Literal["onehot"] = "onehot"
    columns: tuple[str, ...]
    categories: tuple[str, ...]

    def names(self) -> list[str]:
        return [f"{'_x_'.join(self.columns)}={show(category)}" for category in self.categories]

    def transform(self, columns: Columns) -> NDArray[np.float64]:
        index = {category: i for i, category in enumerate(self.categories)}
        values = keys(columns, self.columns)
        out = np.zeros((len(values), len(self.categories)))
        known = [(row, index[value]) for row, value in enumerate(values) if value in index]
        if known:
            rows, places = zip(*known, strict=True)
            out[list(rows), list(places)] = 1.0
        return out


class LookupEncoder(Document):
    """A learnt vector per category (target means, frequencies); `default` for an unknown category."""

    kind: Literal["target", "frequency"]
    columns: tuple[str, ...]
    outputs: tuple[str, ...]
    """The meaning of each number in a vector: the class whose mean it is, or empty for a single number."""
    table: dict[str, tuple[float, ...]]
    default: tuple[float, ...]

    def names(self) -> list[str]:
        stem = f"{'_x_'.join(self.columns)}:{self.kind}"
        return [f"{stem}:{output}" if output else stem for output in self.outputs]

    def transform(self, columns: Columns) -> NDArray[np.float64]:
        rows = [self.table.get(value, self.default) for value in keys(columns, self.columns)]
        return np.asarray(rows, dtype=np.float64).reshape(len(rows), len(self.outputs))


class DatetimeEncoder(Document):
    """Parts of the calendar and the clock, in float64."""

    kind: Literal["datetime"] = "datetime"
    column: str
    parts: tuple[DatetimePart, ...]

    def names(self) -> list[str]:
        return [f"{self.column}:{part}" for part in self.parts]

    def transform(self, columns: Columns) -> NDArray[np.float64]:
        seconds = cast(NDArray[np.float64], columns[self.column])
        return np.stack([_datetime_part(seconds, part) for part in self.parts], axis=1)


class BendEncoder(Document):
    """Days since a moment, 0 before it: with the day itself, a linear model's trend may bend there."""

    kind: Literal["bend"] = "bend"
    column: str
    moment: float
    """Seconds since 1970: the middle of the training rows."""

    def names(self) -> list[str]:
        return [f"{self.column}:later_half"]

    def transform(self, columns: Columns) -> NDArray[np.float64]:
        seconds = cast(NDArray[np.float64], columns[self.column])
        return np.maximum(seconds - self.moment, 0.0)[:, None] / 86400


class OrdinalEncoder(Document):
    """The place of a category in its declared order, from 0; NaN for a missing or unknown category."""

    kind: Literal["ordinal"] = "ordinal"
    column: str
    order: tuple[str, ...]

    def names(self) -> list[str]:
        return [self.column]

    def transform(self, columns: Columns) -> NDArray[np.float64]:
        places = {category: float(place) for place, category in enumerate(self.order)}
        return np.array([[places.get(str(value), np.nan)] for value in columns[self.column]]).reshape(-1, 1)


class TextEncoder(Document):
    """L2-normalised tf-idf of lower-case words of two letters or more (as scikit-learn's TfidfVectorizer).

    Each word is a column, or the words are projected onto the columns `outputs`.
    """

    kind: Literal["text"] = "text"
    column: str
    vocabulary: dict[str, int]
    idf: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...] = ()
    """A row of numbers for each word, if the words are projected."""
    offset: tuple[float, ...] = ()
    outputs: tuple[str, ...] = ()

    @cached_property
    def _weights(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.asarray(self.idf), np.asarray(self.directions)

    def names(self) -> list[str]:
        words = sorted(self.vocabulary, key=self.vocabulary.__getitem__)
        return [f"{self.column}:{word}" for word in self.outputs or words]

    def transform(self, columns: Columns) -> NDArray[np.float64]:
        texts = columns[self.column]
        idf, directions = self._weights
        out = np.zeros((len(texts), len(self.outputs) or len(idf)))
        for row, text in enumerate(texts):
            found = Counter(_TOKEN.findall(str(text).lower()) if text is not None else ())
            known = sorted((self.vocabulary[word], count) for word, count in found.items() if word in self.vocabulary)
            if known:
                places, counts = zip(*known, strict=True)
                values = np.array(counts) * idf[list(places)]
                values /= np.sqrt((values * values).sum())
                if self.outputs:
                    # A sum over the first axis adds row by row, so its bits don't depend on the other texts.
                    out[row] = (values[:, None] * directions[list(places)]).sum(axis=0)
                else:
                    out[row, list(places)] = values
        return out + np.asarray(self.offset) if self.outputs else out


Encoder = Annotated[
    NumericEncoder | OneHotEncoder | LookupEncoder | DatetimeEncoder | BendEncoder | OrdinalEncoder | TextEncoder,
    Field(discriminator="kind"),
]


class Encoding(Document):
    """Every encoder, in the order of the matrix's columns."""

    encoders: tuple[Encoder, ...]

    def names(self) -> list[str]:
        """The names of the matrix's columns."""
        return [name for encoder in self.encoders for name in encoder.names()]

    def transform(self, columns: Columns) -> NDArray[np.float32]:
        """The float32 matrix, shape (n rows, number of names); NaN for missing numbers."""
        return np.concatenate([encoder.transform(columns) for encoder in self.encoders], axis=1).astype(np.float32)


def keys(columns: Columns, names: tuple[str, ...]) -> list[str]:
    """A category per row, also for missing values; several columns give a cross. Numbers are converted to text."""
    parts = [[MISSING if _missing(value) else str(value) for value in columns[name]] for name in names]
    return parts[0] if len(parts) == 1 else [CROSS.join(values) for values in zip(*parts, strict=True)]


def show(category: str) -> str:
    """The category in readable form."""
    return category.replace(MISSING, "missing").replace(CROSS, "/")


def _missing(value: object) -> bool:
    return value is None or value != value  # noqa: PLR0124 - only NaN differs from itself


def _datetime_part(seconds: NDArray[np.float64], part: DatetimePart) -> NDArray[np.float64]:
    if part.endswith(("_sin", "_cos")):
        name, wave = part.rsplit("_", 1)
        period = {"hour": 24.0, "dayofweek": 7.0, "dayofyear": 365.25}[name]
        angle = 2 * np.pi * _datetime_part(seconds, cast(DatetimePart, name)) / period
        return np.sin(angle) if wave == "sin" else np.cos(angle)
    missing = np.isnan(seconds)
    whole = np.where(missing, 0.0, seconds)
    days = np.floor(whole / 86400)
    match part:
        case "hour":  # a fraction: 17.5 is half past five
            value = (whole - days * 86400) / 3600
        case "minute":
            value = np.floor((whole % 3600) / 60)
        case "dayofweek":  # Monday is 0; 1970-01-01 was a Thursday
            value = (days + 3) % 7
        case "epoch_days":
            value = days
        case _:
            dates = days.astype("int64").astype("datetime64[D]")
            years, months = dates.astype("datetime64[Y]"), dates.astype("datetime64[M]")
            value = {
                "year": years.astype("int64") + 1970,
                "month": months.astype("int64") % 12 + 1,
                "day": (dates - months).astype("int64") + 1,
                "dayofyear": (dates - years).astype("int64") + 1,
            }[part].astype(np.float64)
    return np.where(missing, np.nan, value)
