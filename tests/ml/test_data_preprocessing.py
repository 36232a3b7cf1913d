"""Which columns become features, and which rows each part gets."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml.data_preprocessing import Processed, preprocess
from ml.params import Params, SplitParams
from ml.rows import seconds_of
from ml.schema import SchemaError
from ml.splitting import split
from ml.tables import to_columns


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


@pytest.mark.parametrize(
    ("written", "layout"),
    [
        ([f"{n % 28 + 1}.02.2024" for n in range(40)], "%d.%m.%Y"),
        ([f"02/{n % 28 + 1:02}/2024 08:00" for n in range(40)], "%m/%d/%Y %H:%M"),
    ],
)
def test_dates_with_a_clear_order_of_day_and_month_are_inferred(written: list[str], layout: str) -> None:
    for processed in (process(table(z=written)), process(table(z=written), time="z")):
        feature = processed.schema.feature("z")
        assert (feature.type, feature.format, feature.utc) == ("datetime", layout, False)
        assert feature.example == str(feature.example)[:10] + ("T08:00:00" if "H" in layout else "T00:00:00")


@pytest.mark.parametrize(
    ("written", "layout"),
    [
        (list(range(1704067200, 1704067240)), "epoch_s"),
        ([202300 + n % 12 + 1 for n in range(40)], "%Y%m"),
        ([2023 + n for n in range(40)], "%Y"),
        ([2023 + n / 12 for n in range(40)], "decimal_year"),
        ([f"33{n % 12 + 1:02}{n % 28 + 1:02}" for n in range(40)], "%y%m%d"),
    ],
)
def test_numbers_are_times_where_params_say_so(written: list[Any], layout: str) -> None:
    if not isinstance(written[0], str):
        assert process(table(z=written)).schema.feature("z").type == "numeric"
    for params in ({"time": "z"}, {"features": {"z": {"type": "datetime"}}}, {"features": {"z": {"format": layout}}}):
        feature = process(table(z=written), **params).schema.feature("z")
        assert (feature.type, feature.format, feature.utc) == ("datetime", layout, layout == "epoch_s")
    processed = process(table(z=written), time="z")
    # The next stage reads the parts by this schema.
    assert to_columns(processed.parts["test"], processed.schema)["z"].min() >= 1672531200
    seconds = seconds_of(processed.parts["test"], "z")
    assert seconds is not None
    assert seconds.min() >= 1672531200


def test_an_ambiguous_order_of_day_and_month_asks_in_one_line_for_the_param() -> None:
    written = ["01/02/2024", "03/04/2024"] * 20
    message = (
        r"^column 'z': '01/02/2024' can be read in several ways: declare data\.features\.z\.format in params\.yaml as"
    )
    for params in ({}, {"time": "z"}, {"features": {"z": {"type": "datetime"}}}):
        with pytest.raises(SchemaError, match=message):
            process(table(z=written), **params)
    processed = process(table(z=written), time="z", time_format="%m/%d/%Y", exclude=["z"])
    assert processed.summary.borders["train"] == ("2024-01-02T00:00:00", "2024-03-04T00:00:00")
    with pytest.raises(
        SchemaError, match=r"no valid time in row 0: '01/02/2024' \(declare the format with data.time_format"
    ):
        process(table(z=written), time="z", time_format="%Y%m")


def test_dates_of_any_century_are_learnt() -> None:
    processed = process(table(z=["9999-12-31", "1650-01-01", None, "2024-05-05"] * 10), time=None)
    feature = processed.schema.feature("z")
    assert (feature.type, feature.low, feature.high) == ("datetime", -10098172800.0, 253402214400.0)
    assert process(table(z=["9999-12-31", "1650-01-01"] * 20), time="z").summary.borders["train"][1][:4] == "9999"


def test_a_declared_zone_gives_the_features_their_clock() -> None:
    written = ["2024-03-30T12:00:00+01:00", "2024-03-31T12:00:00+02:00"] * 20
    for params in ({"timezone": "Europe/Berlin"}, {"features": {"z": {"timezone": "Europe/Berlin"}}}):
        feature = process(table(z=written), **params).schema.feature("z")
        assert (feature.utc, feature.timezone, feature.example) == (False, "Europe/Berlin", "2024-03-31T12:00:00")
    processed = process(table(z=written), time="z", timezone="Europe/Berlin")
    assert processed.summary.borders["train"] == ("2024-03-30T12:00:00", "2024-03-31T12:00:00")


def test_what_training_saw_is_learnt_for_the_service() -> None:
    columns: dict[str, Any] = {
        "full": [1, 2] * 20,
        "gaps": ["a", None] * 20,
        "code": [5, 7] * 20,
        "weather": [1.5, 2.5] * 20,
    }
    params: dict[str, Any] = {"features": {"code": {"type": "categorical"}, "weather": {"live": True}}}
    schema = process(table(**columns), **params).schema
    assert {feature.name: feature.complete for feature in schema.features} == {
        "x": True, "full": True, "gaps": False, "code": True, "weather": True,
    }  # fmt: skip
    assert (schema.feature("code").categories, schema.feature("code").forms) == (("5", "7"), ("number",))


def test_spellings_of_a_missing_value_are_missing_whatever_the_files_format() -> None:
    processed = process(table(z=["a", "b", "NaN", " "] * 10, n=[1, -999] * 20), features={"n": {"missing": [-999]}})
    assert processed.schema.feature("z").categories == ("a", "b")
    assert not processed.schema.feature("z").complete
    assert (processed.schema.feature("n").low, processed.schema.feature("n").high) == (1, 1)


def test_texts_that_look_alike_are_one_category_and_named() -> None:
    processed = process(table(z=["Zürich", "Zu\u0308rich", "Zürich ", "Bern"] * 10))
    assert processed.schema.feature("z").categories == ("Zürich", "Bern")
    (said,) = processed.summary.remarks.assumed
    assert "1 category written in several ways" in said
    assert said.endswith(r"'Zürich' from 'Zu\u0308rich', 'Z\xfcrich', 'Z\xfcrich '")


@pytest.mark.parametrize("features", [{}, {"y": {"missing": ["?"]}}])
def test_labels_that_look_alike_are_one_class_and_named(features: dict[str, Any]) -> None:
    processed = process(table(y=["yes", "yes ", "no", "no"] * 10), features=features)
    assert processed.schema.classes == ("no", "yes")
    assert processed.summary.remarks.assumed == (
        "the target 'y' has 1 class written in several ways that differ in blanks or Unicode form and count as the "
        "same: 'yes' from 'yes', 'yes '",
    )
    two_forms = process(table(y=["Zürich", "Zu\u0308rich", "Bern", "Bern\u00a0"] * 10))
    assert two_forms.schema.classes == ("Bern", "Zürich")
    assert "the target 'y' has 2 classes written in several ways" in remarks(two_forms)
    assert not remarks(process(table(y=["yes", "no"] * 20)))


def test_whole_numbers_that_float64_merges_are_said() -> None:
    said = process(table(z=2**60 + 3 * np.arange(40))).summary.remarks.assumed
    assert "'z' has whole numbers above 2^53" in said[0]
    assert not process(table(z=2**52 + 3 * np.arange(40))).summary.remarks.assumed


def test_how_times_are_read_is_said() -> None:
    inferred = process(table(z=[f"{n % 28 + 1}.02.2024" for n in range(40)])).summary.remarks.assumed
    assert inferred == ("column 'z' has times of the form %d.%m.%Y (data.features.z.format)",)
    mixed = process(table(z=["2024-01-01T00:00", "2024-01-01T05:00+02:00"] * 20)).summary.remarks.assumed
    assert "those without it count as UTC (data.features.z.timezone)" in mixed[0]


@pytest.mark.parametrize(
    ("labels", "kind", "answers"),
    [
        ([0, 1] * 20, "integer", (0, 1)),
        ([0.0, 1.0] * 20, "number", (0.0, 1.0)),
        ([0.0, 1.0, None, 1.0] * 10, "integer", (0, 1)),
        ([0.5, 1.0] * 20, "number", (0.5, 1.0)),
        ([1e20, 2e20, None, 2e20] * 10, "number", (1e20, 2e20)),
        ([True, False] * 20, "boolean", (False, True)),
        ([True, None, False, True] * 10, "boolean", (False, True)),
        (["0", "1"] * 20, "text", ("0", "1")),
        (["no", "yes "] * 20, "text", ("no", "yes")),
    ],
)
def test_labels_keep_the_type_of_the_file(labels: list[Any], kind: str, answers: tuple[object, ...]) -> None:
    schema = process(table(y=labels)).schema
    assert (schema.labels, schema.answers()) == (kind, answers)
    assert [type(answer) for answer in schema.answers()] == [type(answer) for answer in answers]


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


def remarks(processed: Processed) -> str:
    found = processed.summary.remarks
    return "\n".join([*found.assumed, *found.warnings])


def test_a_few_words_among_numbers_are_missing_and_said() -> None:
    processed = process(table(hp=["?", "n/k", *map(str, range(100, 138))]))
    feature = processed.schema.feature("hp")
    assert (feature.type, feature.missing) == ("numeric", ("?", "n/k"))
    assert "column 'hp' is numeric, and '?' (1), 'n/k' (1) counts as missing (data.features.NAME" in remarks(processed)
    assert sum(int(part["hp"].isna().sum()) for part in processed.parts.values()) == 2


def test_a_class_that_may_mean_unknown_is_said_and_can_be_made_missing() -> None:
    sexes = table(60, y=["male", "female", "NA"] * 20)
    said = "the target 'y' has 20 times 'NA', which is a class of its own; if it means that the target is unknown"
    assert said in remarks(process(sexes, task="multiclass"))
    processed = process(table(60, y=["male", "female", None] * 20), features={"y": {"missing": ["NA"]}})
    assert processed.schema.classes == ("female", "male")
    assert "which is a class" not in remarks(processed)


def test_marks_among_times_are_missing_times() -> None:
    days = [f"2024-01-{1 + n % 28:02}" for n in range(39)]
    processed = process(table(z=[*days, "NA"]))
    feature = processed.schema.feature("z")
    assert (feature.type, feature.missing) == ("datetime", ("NA",))
    assert "column 'z' has times, and 'NA' (1) counts as missing" in remarks(processed)
    assert sum(int(part["z"].isna().sum()) for part in processed.parts.values()) == 1


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        (["0", "1", "2", "4+"] * 10, "categorical", "75% of its values are numbers, because of '4+' (10)"),
        (["1", "2", "none", "3"] * 10, "numeric", "'z' is numeric, and 'none' counts as missing"),
        (["1", "2", "free", "3"] * 10, "categorical", "because of 'free' (10)"),
        ([f"{n}A" if n % 3 == 0 else str(n) for n in [*range(20)] * 2], "categorical", "65% of its values are numbers"),
        (["02116", "10001"] * 20, "categorical", ""),
        (["NA", "NO"] * 20, "categorical", "'z' has 20 times 'NA', which is a category; if it means that"),
    ],
)
def test_what_words_among_numbers_mean_depends_on_the_column(values: Any, kind: str, said: str) -> None:
    processed = process(table(z=values))
    assert processed.schema.feature("z").type == kind
    assert said in remarks(processed)
    assert bool(said) == bool(remarks(processed))


def test_a_regressions_target_may_be_missing_by_a_mark_but_not_by_another_word() -> None:
    by_chance = {"method": "random", "validation": 0.2, "test": 0.2}
    price = [*map(str, range(100, 139)), "NA"]
    processed = process(table().assign(y=price), by_chance, task="regression")
    assert processed.summary.without_target == 1
    assert "column 'y' is numeric, and 'NA' counts as missing" in remarks(processed)


@pytest.mark.parametrize("name", ["Unnamed: 0", "PassengerId", "customer_id", "index"])
def test_a_column_that_names_the_rows_is_left_out_and_said(name: str) -> None:
    processed = process(table(40, **{name: range(100, 140)}))
    assert name in processed.summary.dropped_columns
    assert f"column {name!r} is left out: it names the rows" in remarks(processed)
    assert process(table(40, **{name: range(100, 140)}), features={name: {}}).schema.feature(name).type == "numeric"
    assert not remarks(process(table(40, **{name: range(100, 140)}), id=name))


def test_a_column_that_is_mostly_a_mark_is_numeric_in_every_part_and_said_once() -> None:
    mostly = ["NA"] * 30 + [*map(str, range(10))]
    processed = process(table(a=mostly, b=mostly[::-1]))
    assert [feature.type for feature in processed.schema.features] == ["numeric"] * 3
    assert remarks(processed).splitlines() == [
        "columns 'a', 'b' are numeric, and 'NA' counts as missing (data.features.NAME: type, missing)"
    ]


def test_a_column_that_counts_the_rows_stays_with_a_warning() -> None:
    assert "feature 'place' numbers the rows of the table in their order" in remarks(process(table(place=range(40))))
    assert not remarks(process(table(visits=[7, 9] * 20)))


SHUFFLED = np.random.default_rng(4)
ACCOUNTS = {
    "dense": 10_000 + SHUFFLED.permutation(600)[:200],
    "sparse": SHUFFLED.choice(900_000_000, 200, replace=False) + 100_000_000,
    "with_gaps": np.where(np.arange(200) % 50 == 0, np.nan, 10_000.0 + SHUFFLED.permutation(600)[:200]),
}
QUANTITIES = {
    "inhabitants": (np.exp(np.linspace(6, 16, 200)) + np.arange(200)).astype(int)[SHUFFLED.permutation(200)],
    "grams": SHUFFLED.choice(np.unique(SHUFFLED.normal(70_000, 9_000, 260).round().astype(int)), 200, replace=False),
    "year": 1800 + SHUFFLED.permutation(200),
    "fraction": SHUFFLED.permutation(200) + 0.5,
    "repeats": SHUFFLED.integers(0, 5000, 200),
}


@pytest.mark.parametrize("name", ACCOUNTS)
def test_a_number_of_an_account_stays_with_a_warning(name: str) -> None:
    said = "feature 'account' has another whole number in each row, as numbers of accounts are: if it is no property"
    assert said in remarks(process(table(200, account=ACCOUNTS[name])))
    assert said not in remarks(process(table(200, account=ACCOUNTS[name]), features={"account": {}}))


@pytest.mark.parametrize("name", QUANTITIES)
def test_a_quantity_is_taken_for_no_number_of_an_account(name: str) -> None:
    processed = process(table(200, **{name: QUANTITIES[name]}))
    assert processed.schema.feature(name).type == "numeric"
    assert "numbers of accounts" not in remarks(processed)


def test_a_copy_of_the_target_is_a_warning_of_log_card_and_report() -> None:
    processed = process(table(100, paid=["n", "j"] * 50, x=np.random.default_rng(1).normal(size=100)))
    assert "feature 'paid' alone predicts the target 'y' almost perfectly (1.000)" in remarks(processed)
    assert "feature 'x'" not in remarks(processed)
