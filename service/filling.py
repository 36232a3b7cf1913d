"""A predictor that looks up the features that a request doesn't contain."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any

import numpy as np

from ml.bundle import Bundle
from ml.schema import Feature
from service.lookup import Found, Lookup
from service.predictor import Answers, InvalidRowsError, NonFinite, Predictor
from service.usual import Column

KEY = "names what features are looked up for; no feature itself"


class FillingPredictor(Predictor):
    """As Predictor; requests may also contain the keys that name entities. Safe to call from several threads."""

    def __init__(self, bundle: Bundle, lookup: Lookup) -> None:
        self.lookup = lookup
        super().__init__(bundle)
        keys = tuple(Feature(name=key, type="text", description=KEY) for key in lookup.keys)
        self.inputs = self.schema.model_copy(update={"features": (*self.schema.features, *keys)})
        self._places = {name: place for place, name in enumerate(self.names)}

    def predict(self, rows: Sequence[Mapping[str, Any]], non_finite: NonFinite = "error") -> Answers:
        """As Predictor.predict."""
        found = self.lookup.find_all([[*map(row.get, self.lookup.fields)] for row in rows])
        return self._valid(
            found, lambda: super(FillingPredictor, self).predict(self.completed(rows, found), non_finite)
        )

    def predict_row(self, row: Sequence[Any], non_finite: NonFinite = "error") -> Answers:
        """As Predictor.predict_row, for values in the order of `inputs`."""
        found = self.lookup.find_all([row])

        def predict() -> Answers:
            whole = [*row[: len(self.names)]]
            for name, value in found[0].values.items():
                whole[self._places[name]] = value
            return super(FillingPredictor, self).predict_row(whole, non_finite)

        return self._valid(found, predict)

    def predict_columns(self, columns: Sequence[Column], non_finite: NonFinite = "error") -> Answers:
        """As Predictor.predict_columns, for columns in the order of `inputs`."""
        given = [_plain(column) for column in columns]
        found = self.lookup.find_all([*zip(*given, strict=True)])

        def predict() -> Answers:
            whole: list[Column] = []
            for name, column, plain in zip(self.names, columns, given, strict=False):
                values = [each.values.get(name) for each in found]
                if values.count(None) == len(values):
                    whole.append(column)
                else:
                    whole.append([new if old is None else old for old, new in zip(plain, values, strict=True)])
            return super(FillingPredictor, self).predict_columns(whole, non_finite)

        return self._valid(found, predict)

    def example(self) -> dict[str, Any]:
        """As Predictor.example; if the store has something, what a caller who predicts now must send."""
        row, soon = super().example(), self.lookup.soon()
        if soon is None:
            return row
        time = self.lookup.views.time
        utc = any(feature.utc for feature in self.schema.features if feature.name == time)
        text = f"{soon.astimezone(UTC):%Y-%m-%dT%H:%MZ}" if utc else f"{soon:%Y-%m-%dT%H:%M}"
        return {feature.name: row[feature.name] for feature in self.schema.features if feature.required} | {time: text}

    def completed(self, rows: Sequence[Mapping[str, Any]], found: Sequence[Found] | None) -> list[Mapping[str, Any]]:
        """The rows with what was looked up, and without the keys that are no features."""
        if found is None:
            return [*rows]
        return [
            {name: value for name, value in row.items() if name not in self.lookup.keys} | each.values
            for row, each in zip(rows, found, strict=True)
        ]

    def _valid(self, found: list[Found], predict: Callable[[], Answers]) -> Answers:
        """The answers; a looked up value that the schema refuses is missing, because the caller can't correct it."""
        try:
            return replace(predict(), found=found)
        except InvalidRowsError as error:
            ours = [(each.row, each.field) for each in error.every if each.field in found[each.row].values]
            if not ours:
                raise
        for row, field in ours:
            found[row].values.pop(str(field))
            found[row].ages.pop(str(field))
        return replace(predict(), found=found)


def _plain(column: Column) -> list[Any]:
    """The column's values, None where missing."""
    values = column.tolist() if isinstance(column, np.ndarray) else column
    return [None if value != value else value for value in values]  # noqa: PLR0124 - only NaN differs from itself
