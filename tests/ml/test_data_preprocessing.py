"""Which columns become features, and which rows each part gets."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml.data_preprocessing import Processed, preprocess, split
from ml.params import Params, SplitParams
from ml.rows import seconds_of
from ml.schema import SchemaError


def process(table: pd.DataFrame, split: dict[str, Any] | None = None, **data: Any) -> Processed:
    document = {
        "seed": 1,
        "data": {"source": "table", "uri": "t.parquet", "target": "y", "task": "binary"} | data,
        "split": split or {"method": "stratified", "validation": 0.2, "test": 0.2},
        "model": {"name": "m", "estimators": {"line": {"kind": "linear"}}},
        "gate": {"metric": "log_loss"},
        "registry": {"experiment": "e", "model": "m"},
    }
    return preprocess(table, Params.model_validate(document))


def table(rows: int = 40, **columns: Any) -> pd.DataFrame:
    base = {"x": np.arange(rows) / 10, "y": ["no", "yes"] * (rows // 2)}
    return pd.DataFrame(base | {name: pd.Series(values) for name, values in columns.items()})


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([[1, 2]] * 40, "holds lists or bytes"),
        ([np.array([0.5])] * 40, "holds lists or bytes"),
        ([b"jpg"] * 40, "holds lists or bytes"),
        ([{"a": 1}, None] * 20, "holds lists or bytes"),
        (pd.to_timedelta(np.arange(40), unit="h"), "holds durations"),
        ([f"id-{n}" for n in range(40)], "never the same in two training rows"),
        ([None if n % 10 == 0 else f"id-{n}" for n in range(40)], "never the same in two training rows"),
        ([None] * 40, "no training row has a value"),
        (["a"] * 40, "the same in every training row"),
    ],
)
def test_a_column_that_no_model_can_learn_from_is_set_aside_with_the_reason(values: Any, why: str) -> None:
    processed = process(table(z=values))
    assert [feature.name for feature in processed.schema.features] == ["x"]
    assert why in processed.summary.dropped_columns["z"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (list(range(40)), "numeric"),
        ([f"{n} quiet rooms here" for n in range(40)], "text"),
        ([f"2024-01-01T00:{n:02}" for n in range(40)], "datetime"),
        ([f"shop {n // 2}" for n in range(40)], "categorical"),
        (["a", None] * 20, "categorical"),
    ],
)
def test_a_column_that_might_tell_something_stays(values: Any, kind: str) -> None:
    assert process(table(z=values)).schema.feature("z").type == kind


def test_a_few_rows_of_different_words_and_a_declared_column_stay() -> None:
    assert process(table(20, z=[f"id-{n}" for n in range(20)])).schema.feature("z").type == "categorical"
    declared = process(table(z=[f"id-{n}" for n in range(40)]), features={"z": {}})
    assert declared.schema.feature("z").type == "categorical"


def test_times_count_as_utc_when_any_row_has_an_offset() -> None:
    processed = process(table(z=["2024-01-01T00:00", "2024-01-01T05:00+02:00"] * 20), time="z")
    feature = processed.schema.feature("z")
    assert feature.utc
    assert (feature.low, feature.high) == (1704067200.0, 1704078000.0)
    assert not process(table(z=["2024-01-01T00:00", "2024-01-01T05:00"] * 20)).schema.feature("z").utc
    # The same in every part, and in the times that are used for the age and for rolling origins.
    seconds = seconds_of(processed.parts["train"], "z")
    assert seconds is not None
    assert set(seconds) == {1704067200.0, 1704078000.0}


def test_a_value_that_cannot_be_cast_is_named_by_its_row_in_the_table() -> None:
    with pytest.raises(SchemaError, match=r"'z' is numeric, but 1 of its values .* 'many' in row 33 "):
        process(table(z=[*range(33), "many", *range(6)]), features={"z": {"type": "numeric"}})


def test_a_target_of_lists_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"column 'y' is categorical, but 40 of its values are not"):
        process(table(y=[[1], [2]] * 20))


def test_a_class_that_training_would_never_see_is_reported() -> None:
    days = pd.date_range("2024-01-01", periods=40)
    y = ["a", "b"] * 15 + ["c"] * 5 + ["a"] * 5
    by_time = {"method": "time", "validation": 0.2, "test": 0.2}
    with pytest.raises(SchemaError, match="no training row has y = 'c', so it can't be learnt: change split"):
        process(table(day=days).assign(y=y), by_time, task="multiclass", time="day")
    with pytest.raises(SchemaError, match="no training row has y = 'yes'"):
        process(table(day=days).assign(y=["no"] * 30 + ["yes"] * 10), by_time, time="day")


def test_a_split_without_training_rows_says_so() -> None:
    by_day = {"method": "time", "validation": "2020-01-01", "test": "2024-01-05"}
    with pytest.raises(SchemaError, match="the split leaves no row for train: change split"):
        process(table(day=pd.date_range("2024-01-01", periods=40)), by_day, time="day")


def test_a_stratified_split_keeps_a_training_row_of_every_class() -> None:
    target = pd.Series(["common"] * 50 + ["single"] + ["pair"] * 2 + ["three"] * 3)
    part = split(SplitParams(method="stratified", validation=0.4, test=0.4), target, None, 1)
    counts = pd.crosstab(target, part)[["train", "validation", "test"]]
    assert list(counts.loc["single"]) == [1, 0, 0]
    assert list(counts.loc["pair"]) == [1, 0, 1]
    assert list(counts.loc["three"]) == [1, 0, 2]
    assert list(counts.loc["common"]) == [10, 20, 20]
