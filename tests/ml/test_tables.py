"""Reading a column gives values in the feature's type, and the rows that can't be converted."""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml.schema import Feature, FeatureType, SchemaError
from ml.tables import cast_column, has_offset, parse_times, read_column

DAY = 1704067200.0
"""2024-01-01 in seconds since 1970."""


@pytest.mark.parametrize(
    ("kind", "written", "values", "unreadable"),
    [
        ("numeric", ["1", 2.5, None, "two", np.inf], [1.0, 2.5, np.nan, np.nan, np.inf], [3, 4]),
        ("boolean", ["Yes ", 0, None, "perhaps", True], [1.0, 0.0, np.nan, np.nan, 1.0], [3]),
        ("datetime", ["2024-01-01", None, "soon", date(2024, 1, 2)], [DAY, np.nan, np.nan, DAY + 86400], [2]),
        ("datetime", [20240101, 20240102], [DAY, DAY + 86400], []),
        ("datetime", [20240101.5, np.inf, np.nan], [np.nan] * 3, [0, 1]),
        ("categorical", ["a", None, ["b"], b"c", {"d": 1}, 5], ["a", None, None, None, None, "5"], [2, 3, 4]),
        ("text", ["a b", (1, 2), None], ["a b", None, None], [1]),
        ("numeric", [1.0, np.array([1.0, 2.0]), None], [1.0, np.nan, np.nan], [1]),
        ("datetime", ["2024-01-01", ["2024-01-01"]], [DAY, np.nan], [1]),
    ],
)
def test_a_column_is_read_and_the_unreadable_rows_are_reported(
    kind: FeatureType, written: list[object], values: list[object], unreadable: list[int]
) -> None:
    read, bad = read_column(pd.Series(written), Feature(name="x", type=kind))
    assert list(np.flatnonzero(bad)) == unreadable
    np.testing.assert_array_equal(read, np.array(values, dtype=read.dtype))


@pytest.mark.parametrize(
    "column", [pd.to_datetime(pd.Series(["2024-01-01", None])), pd.to_timedelta(pd.Series(["1h", None]))]
)
def test_moments_and_durations_are_no_numbers(column: "pd.Series[Any]") -> None:
    read, bad = read_column(column, Feature(name="x", type="numeric"))
    assert np.isnan(read.astype(float)).all()
    assert list(bad) == [True, False]


def test_a_cast_that_fails_names_the_column_how_many_values_and_the_first() -> None:
    with pytest.raises(SchemaError, match=r"'x' is numeric, but 2 of its values are not: the first is 'b' in row 1 \("):
        cast_column(pd.Series(["1", "b", "c"], index=[7, 8, 9]), Feature(name="x", type="numeric"))


def test_a_column_has_offsets_when_any_of_its_times_does() -> None:
    assert has_offset(pd.Series(["2024-01-01", None, "2024-01-01T00:00-05:00"]))
    assert has_offset(pd.Series(["2024-01-01 08:00:00.250Z"]))
    assert has_offset(pd.Series([datetime(2024, 1, 1, tzinfo=UTC), None], dtype=object))
    assert not has_offset(pd.Series(["2024-01-01", "2024-01-01 10:00:00", "2024-01-01T10:00", None]))
    assert not has_offset(pd.Series([], dtype=object))


def test_times_with_offsets_count_in_utc_and_one_among_wall_clock_times_is_unreadable() -> None:
    column = pd.Series(["2024-01-01T00:00", "2024-01-01T00:00+02:00", "2023-12-31 19:00:00-0500", "x", None])
    hours = (parse_times(column, utc=True) - pd.Timestamp(DAY, unit="s")) / pd.Timedelta("1h")
    np.testing.assert_array_equal(hours, [0, -2, 0, np.nan, np.nan])
    _, bad = read_column(column, Feature(name="x", type="datetime", utc=True))
    assert list(np.flatnonzero(bad)) == [3]
    _, bad = read_column(column, Feature(name="x", type="datetime"))
    assert list(np.flatnonzero(bad)) == [1, 2, 3]
