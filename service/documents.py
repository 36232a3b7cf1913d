"""The JSON documents of /predict as typed values: requests in, answers out, each in a single pass over the bytes.

What the typed decoder doesn't take, such as a value of another type, an unknown field, a key that is there twice, NaN
or a document that isn't JSON, is left to the careful decoder (routes/shared.py), which decides what it means.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from service.lookup import Found
from service.predictor import Answers, Predictor
from service.protocols import Features, LookedUp
from service.tables import Tables
from service.typed import QUOTE, UNDECODED, RowTypes, can_be_fields, encode, struct
from service.typed_tensors import Tensors


class Documents:
    """Decodes the requests for a predictor and encodes its answers; safe to call from several threads."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        schema, bundle = predictor.schema, predictor.bundle
        self._types = RowTypes(predictor.inputs, len(schema.features))
        self.tables = Tables(predictor, self._types)
        """Those of MLflow's scoring protocol and of KServe's first protocol."""
        self.tensors = Tensors(self._types)
        """Those of the Open Inference Protocol."""
        self._decode: Callable[[bytes], Any] | None = None
        if self._types.objects is not None:
            request = msgspec.defstruct("Request", [("rows", self._types.objects)], forbid_unknown_fields=True)
            self._decode = msgspec.json.Decoder(request).decode
        self._model = {"name": bundle.name, "version": bundle.version}
        self._probabilities: Callable[..., Any] | None = None
        if schema.classes and can_be_fields(schema.classes):
            self._probabilities = struct("Probabilities", dict.fromkeys(schema.classes, (float, ...)))
        elif schema.classes:
            self._probabilities = lambda *shares: dict(zip(schema.classes, shares, strict=True))
        fields = ("prediction", "probabilities", "warnings")
        self._prediction = struct("Prediction", dict.fromkeys(fields, (Any, ...)) | {"features": (Any, UNSET)})

    def predict(self, body: bytes, limit: int) -> Answers | None:
        """The answers for a request of at most `limit` rows; None if the careful decoder must decide.

        Raises InvalidRowsError as the predictor does.
        """
        try:
            rows = [] if self._decode is None else self._decode(body).rows
        except UNDECODED:
            return None
        if not 0 < len(rows) <= limit:
            return None
        # JSON's numbers are finite, so "missing" and "error" mean the same here, and NaN stands for a missing number.
        if len(rows) == 1:
            row, strings = [*msgspec.structs.astuple(rows[0])], 1 + len(self._types.names)
            for place, value in enumerate(row):
                if type(value) is str:
                    strings += 1
                elif value is UNSET or value != value:  # noqa: PLR0124 - only NaN differs from itself
                    row[place] = None
                    strings -= 1
            return self._predictor.predict_row(row, "missing") if body.count(QUOTE) == 2 * strings else None
        columns, strings = self._types.read_objects(rows)
        whole = body.count(QUOTE) == 2 * (1 + strings)
        return self._predictor.predict_columns(columns, "missing") if whole else None

    def answer(self, answers: Answers) -> bytes:
        """The body of an answer."""
        make, empty = self._prediction, ()
        features: Sequence[Any] = [UNSET] * len(answers)
        if answers.found is not None:
            features = [features_of(found, self._predictor.names) for found in answers.found]
        if self._probabilities is None:
            rows = [
                make(number, UNSET, answers.warnings.get(row, empty), origin)
                for row, (number, origin) in enumerate(zip(answers.scores, features, strict=True))
            ]
        else:
            labels, shares = answers.values, self._probabilities
            rows = [
                make(labels[winner], shares(*scores), answers.warnings.get(row, empty), origin)
                for row, (winner, scores, origin) in enumerate(
                    zip(answers.winners, answers.scores, features, strict=True)
                )
            ]
        return encode({"model": self._model, "predictions": rows})


def features_of(found: Found, names: Sequence[str]) -> Features:
    """Where each of the features of a row came from."""
    known = {*found.sent, *found.values}
    missing = [name for name in names if name not in known]
    looked_up = {name: LookedUp(value, found.ages[name]) for name, value in found.values.items()}
    return Features(found.sent, looked_up, missing, found.trouble)
