"""Quick reading and encoding give bitwise what the careful readers and the encoding give, for any values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray

from ml.encoding import (
    BendEncoder,
    DatetimeEncoder,
    Encoding,
    LookupEncoder,
    NumericEncoder,
    OneHotEncoder,
    OrdinalEncoder,
)
from service import matrix as matrix_module
from service.predictor import InvalidRowsError, NonFinite, Predictor
from service.usual import Column
from tests.bundles import COLOURS, ENCODING, JULY, SHOPS

Row = Mapping[str, Any]

EVERY = Encoding(
    encoders=(
        *ENCODING.encoders,
        NumericEncoder(column="amount", shift=120.25, scale=3.7),
        NumericEncoder(column="visits", knots=(0.0, 2.0, 5.0, 9.0)),
        OneHotEncoder(columns=("shop",), categories=("north",)),
        LookupEncoder(
            kind="target",
            columns=("colour", "shop"),
            outputs=("a", "b"),
            table={"red\x1fnorth": (0.1, 0.7), "\x00missing\x1fsouth": (0.3, 1 / 3), "mauve\x1fnorth": (0.9, 0.8)},
            default=(0.2, 0.6),
        ),
        LookupEncoder(
            kind="frequency",
            columns=("member", "visits"),
            outputs=("",),
            table={"1.0\x1f3.0": (0.4,), "\x00missing\x1f\x00missing": (0.7,)},
            default=(0.0,),
        ),
        OrdinalEncoder(column="colour", order=("blue", "red")),
        BendEncoder(column="seen", moment=JULY - 86400 * 90),
        DatetimeEncoder(column="bought", parts=("year", "dayofyear_sin", "minute", "hour_cos")),
        DatetimeEncoder(column="seen", parts=("hour", "minute", "dayofweek", "epoch_days")),
    )
)
"""Encoders of every kind, and every way to encode."""

USUAL = {
    "amount": st.floats(1, 500),
    "visits": st.one_of(st.none(), st.integers(0, 9)),
    "colour": st.sampled_from([*COLOURS, None]),
    "shop": st.sampled_from(SHOPS),
    "bought": st.datetimes(datetime(2024, 1, 1), datetime(2024, 7, 1)).map(datetime.isoformat),
    "seen": st.sampled_from(["2024-03-02T08:00:00Z", "2024-05-30T23:59:59.5-03:00", "2024-06-01T00:00+00:00", None]),
    "member": st.sampled_from([True, False, None]),
    "note": st.sampled_from(["late refund", "thanks thanks late", None]),
}
ODD: dict[str, st.SearchStrategy[Any]] = {
    "amount": st.sampled_from([500, 500.0000001, 0, -0.0, -1, 1001, True, "3", "nan", None, math.nan, 10**400]),
    "visits": st.sampled_from([9.5, -999, 2**63, 10**400, 1e39, math.nan, -math.inf, True, "3", "", " nan "]),
    "colour": st.sampled_from(["mauve", "", " red", "NaN", 3, True, ["red"], "Red", "e\u0301"]),
    "shop": st.sampled_from([None, "east", " south"]),
    "bought": st.one_of(
        st.datetimes().map(datetime.isoformat),
        st.sampled_from(["2024-03-01", "2024-03-01T17:30:00Z", None, 7, " 2024-03-01T17:30", "2024-03-01T24:00"]),
        st.sampled_from(["20240301T173000", "2024-02-30T10:00:00", "n/a", "2024-03-01ü17:30:00", "2024-03-01 17:30"]),
    ),
    "seen": st.sampled_from(
        ["", "2024-03-02T08:00", "2023-12-31T23:59:59+00:00", "2024-01-01T00:00:00+00:30", "0001-01-01T00:00:00+14:00"]
    ),
    "member": st.sampled_from([1, 0.0, "yes", "perhaps", "", math.nan]),
    "note": st.sampled_from(["", "e\u0301 late", 5]),
    "unknown": st.just(1),
}  # fmt: skip


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """A row that is usual but for at most two values."""
    row: dict[str, Any] = draw(st.fixed_dictionaries({}, optional=USUAL) | st.fixed_dictionaries(USUAL))
    for name in draw(st.sets(st.sampled_from([*ODD]), max_size=2)):
        row[name] = draw(ODD[name])
    return row


def careful(predictor: Predictor, given: Sequence[Row], non_finite: NonFinite) -> Any:
    """Matrix, warnings and missing counts by the careful readers alone; or the problems."""
    try:
        columns, warnings, missing = predictor._parse(given, non_finite)
    except InvalidRowsError as refused:
        return refused.problems, refused.total, refused.reasons
    with np.errstate(all="ignore"):
        matrix = predictor.bundle.parts.encoding.transform(columns)
    return matrix.tobytes(), {row: tuple(found) for row, found in enumerate(warnings) if found}, missing


class Recorder:
    """A model that records the matrix that it gets."""

    def __init__(self, predictor: Predictor, encoding: Encoding, **features: dict[str, object]) -> None:
        def run(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
            self.matrix = matrix
            return np.zeros((len(matrix), 2))

        bundle = predictor.bundle
        made = tuple(feature.model_copy(update=features.get(feature.name, {})) for feature in bundle.schema.features)
        schema = bundle.schema.model_copy(update={"features": made})
        self.predictor = Predictor(
            replace(bundle, parts=replace(bundle.parts, encoding=encoding, schema=schema), run=run)
        )

    def quick(self, given: Sequence[Row], non_finite: NonFinite) -> Any:
        """As `careful`, by the predictor."""
        try:
            answers = self.predictor.predict(given, non_finite)
        except InvalidRowsError as refused:
            return refused.problems, refused.total, refused.reasons
        return self.matrix.tobytes(), answers.warnings, answers.missing


FEATURES: dict[str, dict[str, dict[str, object]]] = {
    "as they are": {},
    "sentinels": {"visits": {"missing": ("3", "unknown")}, "bought": {"missing": ("2024-03-01T17:30",)}},
    "never missing": {"visits": {"complete": True}, "colour": {"complete": True}, "note": {"required": True}},
    "other forms": {
        "amount": {"forms": ("text", "boolean")},
        "colour": {"categories": ("3", "red", "true"), "forms": ("number", "boolean")},
        "bought": {"timezone": "Europe/Berlin"},
    },
    "without a range": {"amount": {"low": None, "high": None}, "seen": {"low": None, "high": None}},
}


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
@pytest.mark.parametrize("cells", [matrix_module.CELLS, 3], ids=["tables", "by text"])
def test_quick_and_careful_reading_agree_bitwise(
    predictor: Predictor, features: dict[str, dict[str, object]], cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix_module, "CELLS", cells)
    recorder = Recorder(predictor, EVERY, **features)

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(rows(), min_size=1, max_size=6), st.sampled_from(["error", "missing"]))
    def agree(given: Sequence[Row], non_finite: NonFinite) -> None:
        assert recorder.quick(given, non_finite) == careful(recorder.predictor, given, non_finite)
        for row in given:
            assert recorder.quick([row], non_finite) == careful(recorder.predictor, [row], non_finite)

    agree()


def test_usual_rows_are_not_read_carefully(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(predictor, EVERY)
    monkeypatch.setattr(recorder.predictor, "_parse", None)
    sample: dict[str, Any] = {"amount": 120.5, "shop": "north", "bought": "2024-03-01T17:30:00", "member": True}
    assert recorder.predictor.predict([sample]).missing == {"visits": 1, "colour": 1, "seen": 1, "note": 1}
    assert recorder.predictor.predict([sample] * 3).missing == {"visits": 3, "colour": 3, "seen": 3, "note": 3}
    later = {**sample, "bought": "2031-03-01T17:30:00"}  # as nearly all requests are
    for rows in ([later], [later, later]):
        warned = recorder.predictor.predict(rows).warnings
        assert [[(each.field, each.code) for each in warned[row]] for row in range(len(rows))] == [
            [("bought", "out_of_range")]
        ] * len(rows)


def test_columns_of_numpy_mean_the_same_as_rows(predictor: Predictor) -> None:
    recorder = Recorder(predictor, EVERY)
    given = [{"amount": amount, "visits": float(visits), "shop": "south", "member": True} for amount, visits in
             [(0.1, 3), (499.5, math.nan), (700.25, 12)]]  # fmt: skip
    expected = careful(recorder.predictor, given, "missing")
    columns: dict[str, Column] = {
        "amount": np.array([0.1, 499.5, 700.25]),
        "visits": np.array([3, math.nan, 12], dtype=np.float32),
        "shop": ["south"] * 3,
        "member": np.array([True] * 3),
    }
    answers = recorder.predictor.predict_columns(
        [columns.get(name, (None,) * 3) for name in recorder.predictor.names], "missing"
    )
    assert (recorder.matrix.tobytes(), answers.warnings, answers.missing) == expected
