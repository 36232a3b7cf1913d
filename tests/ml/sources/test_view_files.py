"""Rows of declared views: what a file means, what the join gives, and one clear line for what is wrong."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from ml.data_params import DataParams
from ml.features.offline import TIMESTAMP
from ml.features.views import HOUR, spell_key
from ml.sources.reading import SourceError
from ml.sources.view_files import joined, read_rows

VIEW = {"uri": "weather.csv", "keys": ["city"], "timestamp": "observed", "ttl": "6h", "features": ["wind"]}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def data(view: dict[str, Any] | None = None, **others: Any) -> DataParams:
    section = {"source": "table", "uri": "t.csv", "target": "y", "task": "binary", "time": "at", "timezone": "UTC"}
    return DataParams.model_validate(section | {"views": {"weather": VIEW | (view or {})}} | others)


def write(text: str) -> None:
    Path("weather.csv").write_text("city,observed,wind\n" + text)


def test_a_row_counts_from_its_time_until_it_expires_and_the_last_of_two_wins() -> None:
    write("Rome,2024-03-01T08:00,1\nRome,2024-03-01T06:00,7\nRome,2024-03-01T08:00,2\n,2024-03-01T08:00,9\n")
    params = data(horizon="1h")
    found = read_rows(params, "weather")
    assert found.table["wind"].tolist() == [7.0, 2.0]
    assert found.assumed == (
        "weather.csv: 1 rows without a key are left out",
        "weather.csv: of rows with the same keys and time the last counts: 1 don't",
    )
    asked = {
        "2024-03-01T06:59": None, "2024-03-01T07:00": 7.0, "2024-03-01T08:59": 7.0, "2024-03-01T09:00": 2.0,
        "2024-03-01T15:00": 2.0, "2024-03-01T15:01": None, "2024-03-01T10:00+01:00": 2.0,
    }  # fmt: skip
    table = pd.DataFrame({"at": [*asked, None], "city": " Rome"})
    wind = joined(table, params, {"weather": found.table})["wind"]
    assert [None if pd.isna(value) else value for value in wind] == [*asked.values(), None]


def test_times_without_offset_are_of_the_datas_zone() -> None:
    write("Rome,2024-07-01T08:00,1\n")
    [berlin] = read_rows(data(timezone="Europe/Berlin"), "weather").table[TIMESTAMP]
    [utc] = read_rows(data(), "weather").table[TIMESTAMP]
    assert utc - berlin == 2 * HOUR


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (7, 7.0), (7, "7"), (True, "True"), (False, "false"), ("Zürich", " Zu\u0308rich "),
        ("2024-03-01", pd.Timestamp("2024-03-01")), ("2024-03-01T12:00+02:00", "2024-03-01 10:00:00Z"),
    ],
)  # fmt: skip
def test_the_same_key_has_one_spelling(one: object, other: object) -> None:
    assert spell_key(one) == spell_key(other)


@pytest.mark.parametrize(
    ("view", "text", "message"),
    [
        ({"uri": "no.csv"}, "", "no.csv not found: check data.views.weather.uri in params.yaml"),
        (
            {"keys": ["town"]},
            "a,2024-03-01,1",
            "data.views.weather.keys: weather.csv has no column 'town', only city",
        ),
        ({"features": ["rain"]}, "a,2024-03-01,1", "data.views.weather.features: weather.csv has no column 'rain'"),
        ({"timestamp": "seen"}, "a,2024-03-01,1", "data.views.weather.timestamp: weather.csv has no column 'seen'"),
        ({}, "a,2024-03-01,1\na,soon,1", "weather.csv: 'soon' in column 'observed', row 1, is no time"),
        ({}, "a,2024-03-01,1\na,,1", "weather.csv has no time in column 'observed', row 1: add it, or drop the row"),
        ({}, "a,01/02/2024,1", "declare data.views.weather.timestamp_format in params.yaml as"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_line(view: dict[str, Any], text: str, message: str) -> None:
    write(text + "\n")
    with pytest.raises(SourceError, match=re.escape(message)) as error:
        read_rows(data(view), "weather")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"at": ["2024-03-01"]}, "data.views.weather.keys: the table has no column 'city', only at"),
        (
            {"at": ["2024-03-01"], "city": ["a"], "wind": [1]},
            "weather.features: the table has a column 'wind'",
        ),
        ({"city": ["a"]}, "data.time: the table has no column 'at', which data.views needs"),
        ({"at": ["soon"], "city": ["a"]}, "data.time: t.csv: 'soon' in column 'at', row 0, is no time"),
        ({"at": ["01/02/2024"], "city": ["a"]}, "declare data.time_format in params.yaml as"),
    ],
)
def test_what_is_wrong_with_the_table_is_said_in_a_line(table: dict[str, Any], message: str) -> None:
    write("a,2024-03-01,1\n")
    with pytest.raises(SourceError, match=re.escape(message)) as error:
        joined(pd.DataFrame(table), data(), {"weather": read_rows(data(), "weather").table})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("view", "others", "message"),
    [
        ({}, {"time": None}, "views need data.time, the column with the time of a row"),
        ({}, {"source": "flights"}, "the flights have their own views"),
        ({"features": []}, {}, "at least 1 item"),
        ({"features": ["city"]}, {}, "'city' is named twice in this view"),
        ({"ttl": "0h"}, {}, "must be longer than 0"),
        ({}, {"views": {"Weather!": VIEW}}, "should match pattern"),
        ({}, {"views": {"a": VIEW, "b": VIEW}}, "views.b.features: 'wind' is a feature of views.a, too"),
    ],
)
def test_what_params_can_not_say(view: dict[str, Any], others: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        data(view, **others)
