"""Reading a column gives values in the feature's type, and the rows that can't be converted."""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml.schema import Feature, FeatureType, Form, Schema, SchemaError
from ml.tables import cast_column, forms_of, learn_times, merged_spellings, moments_of, read_column, to_columns

DAY = 1704067200.0
"""2024-01-01 in seconds since 1970."""
BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("kind", "written", "values", "unreadable"),
    [
        ("numeric", ["1", 2.5, None, "two", np.inf, " "], [1.0, 2.5, np.nan, np.nan, np.inf, np.nan], [3, 4]),
        ("boolean", ["Yes ", 0, None, "perhaps", True, ""], [1.0, 0.0, np.nan, np.nan, 1.0, np.nan], [3]),
        ("datetime", ["2024-01-01", None, "soon", date(2024, 1, 2)], [DAY, np.nan, np.nan, DAY + 86400], [2]),
        ("datetime", [20240101, 20240102], [DAY, DAY + 86400], []),
        ("datetime", [20240101.5, np.inf, np.nan], [np.nan] * 3, [0, 1]),
        ("datetime", ["9999-12-31", "1650-01-01", "0001-01-01"], [253402214400, -10098172800, -62135596800], []),
        ("categorical", ["a", None, ["b"], b"c", {"d": 1}, 5], ["a", None, None, None, None, "5"], [2, 3, 4]),
        (
            "categorical",
            [5.0, 4.5, None, True, " a\u00a0", "Zu\u0308rich"],
            ["5", "4.5", None, "true", "a", "Zürich"],
            [],
        ),
        ("text", ["a b", (1, 2), None, "\t"], ["a b", None, None, None], [1]),
        ("numeric", [1.0, np.array([1.0, 2.0]), None], [1.0, np.nan, np.nan], [1]),
        ("datetime", ["2024-01-01", ["2024-01-01"]], [DAY, np.nan], [1]),
    ],
)
def test_a_column_is_read_and_the_unreadable_rows_are_reported(
    kind: FeatureType, written: list[object], values: list[object], unreadable: list[int]
) -> None:
    read, bad = read_column(pd.Series(written, dtype=object), Feature(name="x", type=kind))
    assert list(np.flatnonzero(bad)) == unreadable
    np.testing.assert_array_equal(read, np.array(values, dtype=read.dtype))


@pytest.mark.parametrize(
    ("kind", "written", "values"),
    [
        ("numeric", pd.Series([1.0, -999.0, 3.0]), [1.0, np.nan, 3.0]),
        ("numeric", pd.Series([1, -999, 3]), [1.0, np.nan, 3.0]),
        ("numeric", pd.Series(["1", "-999", "n/a"]), [1.0, np.nan, np.nan]),
        ("categorical", pd.Series(["a", " n/a ", "-999"]), ["a", None, None]),
        ("text", pd.Series(["NA", "N/a", ""]), ["NA", "N/a", None]),
        ("datetime", pd.Series(["2024-01-01", "n/a", ""]), [DAY, np.nan, np.nan]),
        ("boolean", pd.Series(["n/a", "yes", "no"]), [np.nan, 1.0, 0.0]),
    ],
)
def test_a_spelling_of_a_missing_value_is_missing_in_every_type(
    kind: FeatureType, written: "pd.Series[Any]", values: list[object]
) -> None:
    feature = Feature(name="x", type=kind, missing=("-999",))
    schema = Schema(target="y", task="regression", features=(feature,), missing=("n/a",))
    read = to_columns(pd.DataFrame({"x": written}), schema)["x"]
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
    with pytest.raises(SchemaError, match=r"first is '2024-01-01T00:00' in row 1: it must have an offset from UTC"):
        cast_column(pd.Series(["2024-01-01T00:00Z", "2024-01-01T00:00"]), Feature(name="x", type="datetime", utc=True))


@pytest.mark.parametrize(
    ("written", "utc", "zone"),
    [
        (["2024-01-01", "2024-01-01 10:00:00", "2024-01-01T10:00", None], False, None),
        (["2024-01-01 08:00:00.250Z"], True, None),
        ([datetime(2024, 1, 1, tzinfo=UTC), None], True, None),
        (["2024-01-01", None, "2024-01-01T00:00-05:00"], True, "UTC"),
        ([], False, None),
    ],
)
def test_times_count_in_utc_when_any_has_an_offset(written: list[object], utc: bool, zone: str | None) -> None:
    found = learn_times(pd.Series(written, dtype=object), "x", None, None)
    assert (found.utc, found.timezone, found.format) == (utc, zone, None)


def test_offsets_and_times_without_them_are_not_mixed_unless_a_zone_says_what_is_meant() -> None:
    column = pd.Series(["2024-01-01T00:00", "2024-01-01T00:00+02:00", "2023-12-31 19:00:00-0500", "x", None])
    for utc, zone, hours, unreadable in (
        (True, "UTC", [0, -2, 0, np.nan, np.nan], [3]),
        (True, None, [np.nan, -2, 0, np.nan, np.nan], [0, 3]),
        (False, None, [0, np.nan, np.nan, np.nan, np.nan], [1, 2, 3]),
        (False, BERLIN, [0, -1, 1, np.nan, np.nan], [3]),
    ):
        read, bad = read_column(column, Feature(name="x", type="datetime", utc=utc, timezone=zone))
        np.testing.assert_array_equal((read.astype(float) - DAY) / 3600, hours)
        assert list(np.flatnonzero(bad)) == unreadable


def test_the_hour_of_a_declared_zone_does_not_move_when_summer_time_begins() -> None:
    noons = ["2024-03-30T12:00:00+01:00", "2024-03-31T12:00:00+02:00"]
    in_utc = pd.to_datetime(pd.Series(noons), utc=True)
    for column in (pd.Series(noons), in_utc, in_utc.dt.tz_convert("America/New_York")):
        found = learn_times(column, "x", None, BERLIN)
        assert not found.utc
        read, bad = read_column(column, found)
        assert not bad.any()
        np.testing.assert_array_equal(read.astype(float) % 86400 / 3600, [12, 12])


@pytest.mark.parametrize(
    ("written", "layout"),
    [
        (["31.12.2024", "01.02.2024"], "%d.%m.%Y"),
        (["12/31/2024 10:00", "1/2/2024 11:30"], "%m/%d/%Y %H:%M"),
        ([1704067200, 1704067201], "epoch_s"),
        ([1704067200000.0, None], "epoch_ms"),
        ([202401, 202412], "%Y%m"),
        (["20240131"], "%Y%m%d"),
        ([580329, 991231], "%y%m%d"),
        ([31299, 311299], "%d%m%y"),
        ([1958.208, 1958, 1959.75], "decimal_year"),
    ],
)
def test_a_layout_that_all_times_fit_is_found(written: list[object], layout: str) -> None:
    column = pd.Series(written)
    found = learn_times(column, "x", None, None)
    assert (found.format, found.utc) == (layout, layout.startswith("epoch"))
    assert not read_column(column, found)[1].any()


def test_digits_that_lost_their_first_zero_are_the_same_time_and_those_that_lack_others_are_none() -> None:
    two_digit_years = learn_times(pd.Series(["010203"]), "x", "%y%m%d", None)
    for written in (10203, "010203"):
        assert moments_of(pd.Series([written]), two_digit_years)[0] == pd.Timestamp("2001-02-03")
    for layout, written in (("%Y%m%d", 2024111), ("%Y%m", 20241), ("%y%m%d", 1010203)):
        assert read_column(pd.Series([written]), learn_times(pd.Series([written]), "x", layout, None))[1].all()


def test_years_with_a_fraction_are_moments_of_that_year() -> None:
    column = pd.Series([2024.0, 2024.5, 1999.25])
    moments = moments_of(column, learn_times(column, "x", None, None))
    assert list(moments) == [*map(pd.Timestamp, ("2024-01-01", "2024-07-02", "1999-04-02 06:00"))]


def test_an_ambiguous_order_of_digits_asks_for_the_param() -> None:
    with pytest.raises(SchemaError, match=r"'101112' can be read in several ways"):
        learn_times(pd.Series([101112, 111210]), "x", None, None)


def test_an_ambiguous_order_of_day_and_month_asks_for_the_param() -> None:
    column = pd.Series(["01/02/2024", "03/04/2024"])
    with pytest.raises(SchemaError, match=r"'x': '01/02/2024' can be read in several ways: declare data\.features\.x\."
                       r'format in params\.yaml as "%d/%m/%Y" or "%m/%d/%Y"'):  # fmt: skip
        learn_times(column, "x", None, None)
    declared = learn_times(column, "x", "%m/%d/%Y", None)
    assert list(moments_of(column, declared)) == [pd.Timestamp("2024-01-02"), pd.Timestamp("2024-03-04")]


def test_moments_keep_the_zone_utc_and_reach_all_years_of_the_calendar() -> None:
    column = pd.Series(["9999-12-31T00:00Z", "1650-01-01T00:00:00.5Z", None])
    moments = moments_of(column, learn_times(column, "x", None, None))
    assert str(moments.dtype) == "datetime64[us, UTC]"
    assert [moment.isoformat() for moment in moments[:2]] == [
        "9999-12-31T00:00:00+00:00",
        "1650-01-01T00:00:00.500000+00:00",
    ]
    assert moments.isna()[2]


@pytest.mark.parametrize(
    ("column", "forms"),
    [
        (pd.Series([1, 2]), ("number",)),
        (pd.Series([True, False]), ("boolean",)),
        (pd.Series([True, None, "x", 5], dtype=object), ("boolean", "number", "text")),
        (pd.Series(["1", "2"]), ("text",)),
        (pd.Series([1, None], dtype="Int64"), ("number",)),
    ],
)
def test_the_forms_of_a_column_are_those_that_json_has_for_its_values(
    column: "pd.Series[Any]", forms: tuple[Form, ...]
) -> None:
    assert forms_of(column) == forms


def test_spellings_that_count_as_one_category_are_listed() -> None:
    column = pd.Series(["Zürich", "Zu\u0308rich", "Zürich ", "Bern", None])
    assert merged_spellings(column) == {"Zürich": sorted(["Zürich", "Zu\u0308rich", "Zürich "])}
    assert merged_spellings(pd.Series([1.0, 2.0])) == {}
