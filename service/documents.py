"""The JSON documents of /predict as typed values: requests in, answers out, each in a single pass over the bytes.

What the typed decoder doesn't take, such as a value of another type, an unknown field, a key that is there twice, NaN
or a document that isn't JSON, is left to the careful decoder (routes/shared.py), which decides what it means.
"""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from ml.schema import FeatureType, Schema
from service.predictor import Answers, Predictor
from service.usual import Column

_TYPES: dict[FeatureType, Any] = {"numeric": float, "boolean": bool}
"""The type of a feature's values in JSON; text if it isn't here."""


class Documents:
    """Decodes the requests for a predictor and encodes its answers; safe to call from several threads."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        schema, bundle = predictor.schema, predictor.bundle
        self._types = [_TYPES.get(feature.type, str) for feature in schema.features]
        self._decode: Callable[[bytes], Any] | None = None
        if _can_be_fields([feature.name for feature in schema.features]):
            self._decode = msgspec.json.Decoder(_request(schema, self._types)).decode
        self._encode = msgspec.json.Encoder().encode
        self._model = {"name": bundle.name, "version": bundle.version}
        self._probabilities: Callable[..., Any] | None = None
        if schema.classes and _can_be_fields(schema.classes):
            self._probabilities = _struct("Probabilities", dict.fromkeys(schema.classes, (float, ...)))
        elif schema.classes:
            self._probabilities = lambda *shares: dict(zip(schema.classes, shares, strict=True))
        fields = ("prediction", "probabilities", "warnings")
        self._prediction = _struct("Prediction", dict.fromkeys(fields, (Any, ...)))

    def predict(self, body: bytes, limit: int) -> Answers | None:
        """The answers for a request of at most `limit` rows; None if the careful decoder must decide.

        Raises InvalidRowsError as the predictor does.
        """
        try:
            rows = [] if self._decode is None else self._decode(body).rows
        except msgspec.MsgspecError:  # includes a body that isn't UTF-8
            return None
        if not 0 < len(rows) <= limit:
            return None
        # JSON's numbers are finite, so "missing" and "error" mean the same here, and NaN stands for a missing number.
        if len(rows) == 1:
            row, strings = [*msgspec.structs.astuple(rows[0])], 1 + len(self._types)
            for place, value in enumerate(row):
                if type(value) is str:
                    strings += 1
                elif value is UNSET or value != value:  # noqa: PLR0124 - only NaN differs from itself
                    row[place] = None
                    strings -= 1
            return self._predictor.predict_row(row, "missing") if _each_key_once(body, strings) else None
        columns: list[Column] = []
        strings = 1 + len(rows) * len(self._types)
        for kind, values in zip(self._types, zip(*map(msgspec.structs.astuple, rows), strict=True), strict=True):
            column: Any = values
            if kind is float:
                column = np.array(values, dtype=np.float64)
                if blank := np.count_nonzero(np.isnan(column)):
                    strings -= int(blank) - values.count(None)
            else:
                kinds = set(map(type, values))
                if UnsetType in kinds:
                    strings -= values.count(UNSET)
                    column = [None if value is UNSET else value for value in values]
                if str in kinds:
                    strings += len(rows) if len(kinds) == 1 else sum(type(value) is str for value in values)
            columns.append(column)
        return self._predictor.predict_columns(columns, "missing") if _each_key_once(body, strings) else None

    def answer(self, answers: Answers) -> bytes:
        """The body of an answer."""
        make, empty = self._prediction, ()
        if self._probabilities is None:
            rows = [make(number, UNSET, answers.warnings.get(row, empty)) for row, number in enumerate(answers.scores)]
        else:
            labels, shares = answers.values, self._probabilities
            rows = [
                make(labels[winner], shares(*scores), answers.warnings.get(row, empty))
                for row, (winner, scores) in enumerate(zip(answers.winners, answers.scores, strict=True))
            ]
        document = {"model": self._model, "predictions": rows}
        try:
            return self._encode(document) + b"\n"
        except UnicodeEncodeError:  # half of a pair of surrogates, which JSON can only contain in ASCII
            return json.dumps(msgspec.to_builtins(document)).encode() + b"\n"


def _each_key_once(body: bytes, strings: int) -> bool:
    """Whether the body has just this number of strings, keys included; False if this can't be told by counting quotes.

    A decoder keeps the last of two equal keys, so the body has more strings than what was decoded.
    """
    return body.count(b'"') == 2 * strings and (b"\\" not in body or b'\\"' not in body)


def _can_be_fields(names: Sequence[str]) -> bool:
    """Whether the keys of an object can be fields of a msgspec type, which takes no name that JSON would escape."""
    return not any(character in '"\\' or character < " " for name in names for character in name)


def _request(schema: Schema, types: Sequence[Any]) -> Any:
    names = [feature.name for feature in schema.features]
    fields = {
        name: (float | None, math.nan) if kind is float else (kind | None | UnsetType, UNSET)
        for name, kind in zip(names, types, strict=True)
    }
    row = _struct("Row", fields)
    return msgspec.defstruct("Request", [("rows", list[row])], forbid_unknown_fields=True)  # type: ignore[valid-type]


def _struct(title: str, fields: dict[str, tuple[Any, Any]]) -> Any:
    """A type of JSON objects with these keys; each with the type of its value, and a default or `...`."""
    made = [
        (f"f{place}", kind) if default is ... else (f"f{place}", kind, default)
        for place, (kind, default) in enumerate(fields.values())
    ]
    rename = {f"f{place}": name for place, name in enumerate(fields)}
    return msgspec.defstruct(title, made, rename=rename, forbid_unknown_fields=True, gc=False)
