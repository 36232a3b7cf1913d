"""A model's rows as types that msgspec decodes, and decoded rows as the columns that the predictor takes.

A typed decoder doesn't notice two equal keys in an object, of which it keeps the last. So whoever decodes compares
the number of quotes in the bytes with that of the strings that were decoded, among which a lost key isn't.
"""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from ml.schema import Feature, Schema
from ml.values import number
from service.usual import Column

QUOTE = b'"'
UNDECODED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a typed decoder raises when it doesn't take a document."""


class Read(NamedTuple):
    """Decoded rows."""

    columns: list[Column]
    """The values of each feature, None or NaN where missing; in the order of the schema's features."""
    strings: int
    """Strings in the rows, keys included."""

    def only_row(self) -> list[Any]:
        """The values of the first row, None where missing."""
        row = [column.item(0) if isinstance(column, np.ndarray) else column[0] for column in self.columns]
        return [None if value != value else value for value in row]  # noqa: PLR0124 - only NaN differs from itself


class RowTypes:
    """The types of a model's rows."""

    def __init__(self, inputs: Schema, features: int | None = None) -> None:
        """`inputs`: what a row may contain; the first `features` of them are the model's, by default all."""
        self.names = [feature.name for feature in inputs.features]
        self.features = self.names[:features]
        """Those whose values a list without names contains."""
        self.kinds = {feature.name: _kind(feature) for feature in inputs.features}
        self.objects: Any = None
        """A list of objects of features; None if a name can't be a field of a type."""
        if can_be_fields(self.names):
            fields = {
                # An absent number is NaN, which JSON can't contain, and so is told from null without a look at each.
                name: (float | None, math.nan) if kind is float else (kind | None | UnsetType, UNSET)
                for name, kind in self.kinds.items()
            }
            row = struct("Row", fields)
            self.objects = list[row]  # type: ignore[valid-type]  # made from the schema

    def lists(self, names: Iterable[str]) -> Any:
        """The type of a list of lists of these features' values."""
        row: Any = tuple.__class_getitem__(tuple(self.kinds[name] | None for name in names))
        return list[row]

    def column(self, name: str, *, nested: bool = False) -> Any:
        """The type of a feature's values as a list; `nested`: each in a list of its own."""
        kind: Any = self.kinds[name] | None
        return list[tuple[kind]] if nested else list[kind]

    def read_objects(self, rows: Sequence[Any]) -> Read:
        """Rows of the type `objects`; at least one."""
        columns = zip(*map(msgspec.structs.astuple, rows), strict=True)
        read, strings = self.read_columns(dict(zip(self.names, columns, strict=True)), len(rows))
        return Read(read, strings + len(rows) * len(self.names))

    def read_columns(self, columns: dict[str, Sequence[Any]], count: int) -> Read:
        """The values of `count` rows by feature; features that are left out are missing.

        Absent keys are subtracted from the strings.
        """
        read: list[Column] = []
        strings, blank = 0, [None] * count
        for name, kind in self.kinds.items():
            column, found = _read(kind, columns[name]) if name in columns else (blank, 0)
            read.append(column)
            strings += found
        return Read(read, strings)


def read_values(kind: Any, values: Sequence[Any]) -> Column:
    """The values of a feature of this kind."""
    return _read(kind, values)[0]


def _read(kind: Any, values: Sequence[Any]) -> tuple[Column, int]:
    """The values as a column, and the strings among them without those of absent keys."""
    if kind is float:
        column = np.array(values, dtype=np.float64)
        blank = int(np.count_nonzero(np.isnan(column)))
        return column, values.count(None) - blank if blank else 0
    kinds, strings = set(map(type, values)), 0
    if UnsetType in kinds:
        strings = -values.count(UNSET)
        values = [None if value is UNSET else value for value in values]
    if str in kinds:
        strings += len(values) if len(kinds) == 1 else sum(type(value) is str for value in values)
    return values, strings


def _kind(feature: Feature) -> Any:
    """The type of a feature's usual values in JSON."""
    kind: Any = {"numeric": float, "boolean": bool}.get(feature.type, str)
    if feature.type in ("numeric", "categorical"):
        if feature.type == "categorical" and (
            "number" in feature.forms or any(number(text) is not None for text in feature.categories)
        ):
            kind = kind | int | float
        if "boolean" in feature.forms:
            kind = kind | bool
        if feature.type == "numeric" and "text" in feature.forms:
            kind = kind | str
    return kind


def can_be_fields(names: Sequence[str]) -> bool:
    """Whether the keys of an object can be fields of a msgspec type, which takes no name that JSON would escape."""
    return not any(character in '"\\' or character < " " for name in names for character in name)


def struct(title: str, fields: dict[str, tuple[Any, Any]]) -> Any:
    """A type of JSON objects with these keys; each with the type of its value, and a default or `...`."""
    made = [
        (f"f{place}", kind) if default is ... else (f"f{place}", kind, default)
        for place, (kind, default) in enumerate(fields.values())
    ]
    rename = {f"f{place}": name for place, name in enumerate(fields)}
    return msgspec.defstruct(title, made, rename=rename, forbid_unknown_fields=True, gc=False)


_ENCODER = msgspec.json.Encoder()


def encode(document: Any) -> bytes:
    """A document as a line of JSON."""
    try:
        return _ENCODER.encode(document) + b"\n"
    except UnicodeEncodeError:  # half of a pair of surrogates, which JSON can only contain in ASCII
        return json.dumps(msgspec.to_builtins(document)).encode() + b"\n"
