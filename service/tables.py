"""The documents of MLflow's scoring protocol and of KServe's first protocol as typed values: tables in, scores out.

As in documents.py, what the typed decoders don't take is left to the careful one (scoring.py), which gives the same
answers, and says what is wrong with a document that is wrong.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from service.predictor import Answers, Predictor
from service.typed import QUOTE, UNDECODED, Read, RowTypes, can_be_fields, encode, struct

ORDERS = 16
"""Orders of columns for which decoders are kept: callers choose them."""
_START = re.compile(rb"[ \t\n\r]*(?:(\{)|\[[ \t\n\r]*([\[{]))")
"""The start of a table: an object of columns, or a list of lists or of objects."""


class _Forms(Struct):
    """The forms of a table, of which a document has one; a string in another key is noticed by its quotes."""

    dataframe_split: Raw | UnsetType = UNSET
    dataframe_records: Raw | UnsetType = UNSET
    instances: Raw | UnsetType = UNSET
    inputs: Raw | UnsetType = UNSET


class _Split(Struct, forbid_unknown_fields=True):
    data: Raw
    columns: list[str] | UnsetType | None = UNSET
    index: list[int] | UnsetType | None = UNSET


class Tables:
    """Decodes tables for a predictor and encodes its scores; safe to call from several threads."""

    def __init__(self, predictor: Predictor, types: RowTypes) -> None:
        self._predictor, self._types = predictor, types
        self._forms = msgspec.json.Decoder(_Forms).decode
        self._split = msgspec.json.Decoder(_Split).decode
        self._objects: Callable[[bytes], Any] | None = None
        self._columns: Callable[[bytes], Any] | None = None
        if types.objects is not None:
            self._objects = msgspec.json.Decoder(types.objects).decode
            lists = {name: (types.column(name) | UnsetType, UNSET) for name in types.names}
            self._columns = msgspec.json.Decoder(struct("Columns", lists)).decode
        self._lists = lru_cache(ORDERS)(lambda names: msgspec.json.Decoder(types.lists(names)).decode)
        classes = predictor.schema.classes
        keys = ["prediction", *(f"probability:{label}" for label in classes)]
        self._scores: Callable[..., Any] = lambda *values: dict(zip(keys, values, strict=True))
        if can_be_fields(keys):
            self._scores = struct("Scores", dict.fromkeys(keys, (Any, ...)))

    def invocation(self, body: bytes, limit: int) -> Callable[[], Answers] | None:
        """What predicts MLflow's table, of at most `limit` rows; None if the careful decoder must decide."""
        return self._table(body, limit, ("dataframe_split", "dataframe_records", "instances", "inputs"))

    def instances(self, body: bytes, limit: int) -> Callable[[], Answers] | None:
        """The same for KServe's first protocol."""
        return self._table(body, limit, ("instances",), columns=False)

    def scores(self, answers: Answers) -> bytes:
        """The body of an answer: {"predictions": [{prediction, probability:LABEL…}]}."""
        make = self._scores
        if not answers.classes:
            return encode({"predictions": [make(number) for number in answers.scores]})
        labels = answers.values
        rows = [make(labels[winner], *row) for winner, row in zip(answers.winners, answers.scores, strict=True)]
        return encode({"predictions": rows})

    def _table(
        self, body: bytes, limit: int, forms: Sequence[str], *, columns: bool = True
    ) -> Callable[[], Answers] | None:
        try:
            found = self._forms(body)
            given = [(form, raw) for form in forms if (raw := getattr(found, form)) is not UNSET]
            if len(given) != 1:
                return None
            ((form, raw),) = given
            text = bytes(raw)
            if body.count(QUOTE) - text.count(QUOTE) != 2:  # the form's name is the only string beside the table
                return None
            read = self._read(form, text, columns=columns)
        except UNDECODED:
            return None
        if read is None or not 0 < len(read.columns[0]) <= limit:
            return None
        if len(read.columns[0]) == 1:
            return lambda: self._predictor.predict_row(read.only_row(), "missing")
        return lambda: self._predictor.predict_columns(read.columns, "missing")

    def _read(self, form: str, text: bytes, *, columns: bool) -> Read | None:
        """The table of that form; `columns`: whether it may be an object of columns."""
        if form == "dataframe_split":
            return self._read_split(text)
        start = _START.match(text)
        if start is None or (start[1] and not columns):
            return None
        if start[2] == b"[" and form != "dataframe_records":
            return self._read_lists(self._types.features, text)
        if start[1] and form != "dataframe_records":
            return self._read_columns(text)
        if start[1] or self._objects is None or not (rows := self._objects(text)):
            return None
        read = self._types.read_objects(rows)
        return read if text.count(QUOTE) == 2 * read.strings else None

    def _read_split(self, text: bytes) -> Read | None:
        split = self._split(text)
        rows = bytes(split.data)
        names = split.columns or self._types.features
        strings = 1 + (split.index is not UNSET) + (split.columns is not UNSET) + len(split.columns or ())
        once = text.count(QUOTE) - rows.count(QUOTE) == 2 * strings
        if not once or len(set(names)) != len(names) or not self._types.kinds.keys() >= set(names):
            return None
        return self._read_lists(names, rows) if split.columns != [] else None

    def _read_lists(self, names: Sequence[str], text: bytes) -> Read | None:
        """Rows as lists of these features' values: without keys, so that none can be there twice."""
        rows = self._lists(tuple(names))(text)
        return (
            self._types.read_columns(dict(zip(names, zip(*rows, strict=True), strict=True)), len(rows))
            if rows
            else None
        )

    def _read_columns(self, text: bytes) -> Read | None:
        if self._columns is None:
            return None
        found = zip(self._types.names, msgspec.structs.astuple(self._columns(text)), strict=True)
        columns = {name: values for name, values in found if values is not UNSET}
        lengths = set(map(len, columns.values()))
        if len(lengths) != 1 or lengths == {0}:
            return None
        read = self._types.read_columns(columns, *lengths)
        return read if text.count(QUOTE) == 2 * (len(columns) + read.strings) else None
