"""A breach names its rule and its rows; depending on the params it stops the pipeline or sets rows aside."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml.contract import Checked, ContractError, check
from ml.params import ContractParams
from tests.ml.conftest import Workspace

NOW = datetime(2024, 1, 10, tzinfo=UTC).replace(tzinfo=None)


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": ["a", "b", "c", "c"],
            "day": ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"],
            "wind": [3.0, 1048.0, None, 5.0],
            "code": ["X1", "X2", "bad", None],
            "flag": ["true", "no", "perhaps", None],
        }
    )


def checked(**rules: Any) -> Checked:
    defaults = {"on_breach": "set_aside", "max_set_aside": 1.0}
    return check(table(), ContractParams.model_validate(defaults | rules), "id", "day", NOW)


@pytest.mark.parametrize(
    ("rules", "rule", "ids"),
    [
        ({"columns": {"wind": {"maximum": 150}}}, "maximum 150", ["b"]),
        ({"columns": {"wind": {"minimum": 4}}}, "minimum 4", ["a"]),
        ({"columns": {"wind": {"required": True}}}, "required", ["c"]),
        ({"columns": {"code": {"pattern": r"X\d"}}}, r"pattern X\d", ["c"]),
        ({"columns": {"code": {"pattern": r"X{1,2000}\d"}}}, r"pattern X{1,2000}\d", ["c"]),
        ({"columns": {"code": {"categories": ["X1", "bad"]}}}, "one of X1, bad", ["b"]),
        ({"columns": {"flag": {"type": "boolean"}}}, "type boolean", ["c"]),
        ({"columns": {"code": {"minimum": 0}}}, "a number", ["a", "b", "c"]),
        ({"unique": ["id"]}, "unique (an earlier row is the same)", ["c"]),
    ],
)
def test_each_rule_sets_aside_the_rows_that_break_it(rules: dict[str, Any], rule: str, ids: list[str]) -> None:
    result = checked(**rules)
    (breach,) = result.report.breaches
    assert breach.rule == rule
    assert [example.id for example in breach.examples] == ids
    assert list(result.set_aside["id"]) == ids
    assert len(result.kept) + len(result.set_aside) == 4
    assert rule in result.set_aside["breach"].iloc[0]


def test_a_clean_table_is_kept_whole() -> None:
    result = checked(columns={"wind": {"maximum": 2000}})
    assert (len(result.kept), len(result.set_aside), result.report.breaches) == (4, 0, ())
    assert result.report.newest == "2024-01-04T00:00:00"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"on_breach": "stop", "columns": {"wind": {"maximum": 150}}},
            r"wind: maximum 150: 1 rows; row 1 \(b\) is 1048",
        ),
        ({"max_set_aside": 0.1, "columns": {"wind": {"maximum": 150}}}, r"in 1 of 4 rows, more than .*10\.00%"),
        ({"columns": {"height": {}}}, "lacks 'height'"),
        ({"min_rows": 5}, r"4 rows, but contract\.min_rows requires 5"),
        ({"freshness": {"max_age": "2d"}}, "the newest row is from 2024-01-04"),
    ],
)
def test_what_the_contract_does_not_allow_stops_with_the_reason(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        checked(**rules)


def test_offsets_that_differ_from_row_to_row_are_times_and_the_newest_is_in_utc() -> None:
    days = ["2024-03-30T12:00:00", "2024-03-30T23:30:00+01:00", "2024-03-31T23:30:00+02:00", "soon"]
    rules = {"on_breach": "set_aside", "max_set_aside": 1.0, "columns": {"day": {"type": "datetime"}}}
    result = check(table().assign(day=days), ContractParams.model_validate(rules), "id", "day", NOW)
    assert [example.value for breach in result.report.breaches for example in breach.examples] == ["soon"]
    assert result.report.newest == "2024-03-31T21:30:00"


@pytest.mark.parametrize(("rule", "named"), [({"type": "numeric"}, "type numeric"), ({"minimum": 0}, "a number")])
def test_a_list_or_infinity_where_a_number_belongs_is_a_breach_of_its_row(rule: dict[str, Any], named: str) -> None:
    wind = pd.Series([3.0, [1048.0, 5.0], None, float("inf")], dtype=object)
    rules = {"on_breach": "set_aside", "max_set_aside": 1.0, "columns": {"wind": rule}}
    result = check(table().assign(wind=wind), ContractParams.model_validate(rules), "id", "day", NOW)
    (breach,) = result.report.breaches
    assert (breach.rule, [example.row for example in breach.examples]) == (named, [1, 3])


def test_fresh_enough_and_counted_from_a_day_of_choice() -> None:
    assert checked(freshness={"max_age": "7d"}).report.rows == 4
    assert checked(freshness={"max_age": "1d", "as_of": "2024-01-05"}).report.rows == 4


def test_a_breach_stops_the_stage_and_writes_nothing(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    table().assign(y=["a", "b", "a", "b"]).to_csv("table.csv", index=False)
    workspace.params(contract={"columns": {"wind": {"maximum": 150}}})
    assert workspace.run("data_ingestion") == [1]
    assert "wind: maximum 150: 1 rows; row 1" in capsys.readouterr().err
    assert not Path("data").exists()
    workspace.params(contract={"columns": {"wind": {"maximum": 150}}, "on_breach": "set_aside", "max_set_aside": 0.5})
    assert workspace.run("data_ingestion") == [0]
    assert list(pd.read_parquet("data/raw/set_aside.parquet")["wind"]) == [1048.0]
