"""Any rows give either predictions or a list of problems."""

import math
import subprocess
import sys
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from ml.bundle import BundleError, load_bundle
from service.predictor import MAX_PROBLEMS, InvalidRowsError, Predictor
from tests.bundles import EXAMPLE
from tests.service.conftest import KINDS

quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def test_a_warning_names_the_range_rounded_unless_that_hides_the_difference(bundles: dict[str, Path]) -> None:
    loaded = load_bundle(bundles["binary"])
    first, *others = loaded.schema.features
    first = first.model_copy(update={"low": 1 / 60, "high": 23.9833})
    schema = loaded.schema.model_copy(update={"features": (first, *others)})
    predictor = Predictor(replace(loaded, parts=replace(loaded.parts, schema=schema)))

    def message(amount: float) -> str:
        ((warned,),) = (answer.warnings for answer in predictor.predict([EXAMPLE | {"amount": amount}]).answers)
        return warned.message

    assert message(30) == "30 is outside the training range 0.0167 to 24"
    assert message(23.99) == "23.99 is outside the training range 0.0166667 to 23.9833"


def test_a_narrow_range_is_not_rounded_to_a_point(predictor):
    narrow = changed(predictor, amount={"low": 118.2263, "high": 118.4717})
    ((warning,),) = (answer.warnings for answer in narrow.predict([EXAMPLE | {"amount": 120.5}]).answers)
    assert warning.message == "120.5 is outside the training range 118.226 to 118.472"


def test_a_warning_shows_all_digits_of_a_large_number(predictor):
    stamps = changed(predictor, visits={"low": 2e9, "high": 2e9 + 59, "integer": True})
    ((warning,),) = (answer.warnings for answer in stamps.predict([EXAMPLE | {"visits": 2000000060}]).answers)
    assert warning.message == "2000000060 is outside the training range 2000000000 to 2000000059"


def refusal(predictor: Predictor, **values: object) -> tuple[str | None, str]:
    """Field and code of the single problem of the example row with these values."""
    with pytest.raises(InvalidRowsError) as refused:
        predictor.predict([EXAMPLE | values])
    (problem,) = refused.value.problems
    assert problem.row == 0
    return problem.field, problem.code


def warned(predictor: Predictor, **values: object) -> list[tuple[str | None, str]]:
    (answer,) = predictor.predict([EXAMPLE | values]).answers
    return [(warning.field, warning.code) for warning in answer.warnings]


def test_the_example_row_is_answered_without_warnings(predictor):
    (answer,) = predictor.predict([EXAMPLE]).answers
    assert answer.warnings == ()
    assert answer.probabilities is not None
    assert sum(answer.probabilities.values()) == pytest.approx(1)


def test_loading_returns_the_memory_that_it_needed_where_the_c_library_can(bundles, monkeypatch):
    trimmed: list[int] = []
    monkeypatch.setattr("ctypes.CDLL", lambda _: SimpleNamespace(malloc_trim=trimmed.append))
    Predictor.load(bundles["binary"])
    assert trimmed == [0]
    monkeypatch.setattr("ctypes.CDLL", lambda _: SimpleNamespace())
    assert len(Predictor.load(bundles["binary"]).predict([EXAMPLE])) == 1


def test_the_label_follows_the_bundles_threshold(predictor):
    rows = [EXAMPLE | {"amount": float(amount)} for amount in range(10, 500, 20)]
    answers = predictor.predict(rows).answers
    expected = ["yes" if answer.probabilities["yes"] >= 0.4 else "no" for answer in answers]
    assert [answer.prediction for answer in answers] == expected
    assert set(expected) == {"yes", "no"}
    assert any(0.4 <= answer.probabilities["yes"] < 0.5 for answer in answers)


def test_a_regression_answers_with_a_number_alone(predictors):
    (answer,) = predictors["regression"].predict([EXAMPLE]).answers
    assert isinstance(answer.prediction, float)
    assert answer.probabilities is None


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"amount": None}, "missing"),
        ({"amount": "12"}, "wrong_type"),
        ({"amount": True}, "wrong_type"),
        ({"amount": [1]}, "wrong_type"),
        ({"amount": math.nan}, "not_finite"),
        ({"amount": math.inf}, "not_finite"),
        ({"amount": 10**400}, "not_finite"),
        ({"visits": 1e39}, "not_finite"),
        ({"amount": -0.1}, "out_of_bounds"),
        ({"amount": 1000.5}, "out_of_bounds"),
        ({"member": 2}, "wrong_type"),
        ({"member": "perhaps"}, "wrong_type"),
        ({"member": [True]}, "wrong_type"),
        ({"colour": 3}, "wrong_type"),
        ({"colour": "x" * 10_001}, "too_long"),
        ({"colour": "a" + "\u0300" * 31}, "too_long"),
        ({"note": "\u0316\u0300" * 5000}, "too_long"),
        ({"shop": "east"}, "unknown_category"),
        ({"note": {"text": "late"}}, "wrong_type"),
        ({"bought": 1704067200}, "wrong_type"),
        ({"bought": "yesterday"}, "wrong_type"),
        ({"bought": "2024-03-01T10:00:00Z"}, "wrong_type"),
        ({"seen": "0001-01-01T00:00:00+14:00"}, "out_of_bounds"),
        ({"seen": "2024-03-02T08:00:00"}, "wrong_type"),
        ({"seen": "2024-03-02"}, "wrong_type"),
        ({"amount": ""}, "missing"),
        ({"shop": " NaN "}, "missing"),
    ],
)
def test_what_the_schema_refuses_is_named_by_field_and_reason(predictor, values, code):
    assert refusal(predictor, **values) == (next(iter(values)), code)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"amount": 999}, "out_of_range"),
        ({"visits": -3}, "out_of_range"),
        ({"bought": "2030-01-01"}, "out_of_range"),
        ({"colour": "mauve"}, "unknown_category"),
        ({"colou": "red"}, "unknown_field"),
    ],
)
def test_what_training_never_saw_is_answered_with_a_warning(predictor, values, code):
    assert warned(predictor, **values) == [(next(iter(values)), code)]


def test_null_and_absent_mean_missing_where_no_value_is_required(predictor):
    bare = {"amount": 10, "shop": "south"}
    nulls = bare | {name: None for name in EXAMPLE if name not in bare}
    answers = predictor.predict([bare, nulls])
    assert answers.answers[0] == answers.answers[1]
    assert answers.missing == {name: 2 for name in nulls if name not in bare}


@pytest.mark.parametrize("spelling", ["", "  ", "NaN", "n/a", " null "])
@pytest.mark.parametrize("name", ["visits", "colour", "bought", "seen", "member", "note"])
def test_the_spellings_of_a_missing_value_in_training_mean_missing_in_a_request(predictor, name, spelling):
    answers = predictor.predict([EXAMPLE | {name: spelling}, EXAMPLE | {name: None}])
    assert answers.answers[0] == answers.answers[1]
    assert answers.missing == {name: 2}


def changed(predictor: Predictor, **features: dict[str, object]) -> Predictor:
    """The predictor with these fields of its schema's features changed."""
    bundle = predictor.bundle
    made = tuple(feature.model_copy(update=features.get(feature.name, {})) for feature in bundle.schema.features)
    schema = bundle.schema.model_copy(update={"features": made})
    return Predictor(replace(bundle, parts=replace(bundle.parts, schema=schema)))


def alike(predictor: Predictor, name: str, *values: object) -> bool:
    """Whether all these values are read alike, without a warning."""
    answers = predictor.predict([EXAMPLE | {name: value} for value in values]).answers
    columns, warnings, _ = predictor._parse([EXAMPLE | {name: value} for value in values], "error")
    return len(set(columns[name].tolist())) == 1 and not any(warnings) and len(set(map(str, answers))) == 1


def test_the_example_is_the_first_training_row_that_a_request_may_contain(predictor):
    parts = predictor.bundle.parts
    sample = (EXAMPLE | {"amount": None}, EXAMPLE | {"shop": "east"}, EXAMPLE | {"visits": 7})
    reference = parts.reference.model_copy(update={"sample": sample})
    assert Predictor(replace(predictor.bundle, parts=replace(parts, reference=reference))).example() == sample[2]


def test_a_spelling_of_one_feature_is_missing_in_that_feature_alone(predictor):
    declared = changed(predictor, visits={"missing": ("-999", "unknown")})
    for value in (-999, -999.0, "-999", "unknown"):
        assert declared.predict([EXAMPLE | {"visits": value}]).missing == {"visits": 1}
    assert warned(declared, colour="unknown") == [("colour", "unknown_category")]


def test_a_truth_value_is_accepted_in_every_form_that_a_training_file_has(predictor):
    assert alike(predictor, "member", True, 1, 1.0, "True", "true", " TRUE ", "yes", "1", "t")
    assert alike(predictor, "member", False, 0, 0.0, "False", "no", "0", "N")


def test_an_integer_code_that_is_a_category_is_accepted_as_number_and_as_text(predictor):
    codes = changed(predictor, colour={"categories": ("5", "6", "7.5"), "forms": ("number",), "example": "5"})
    assert alike(codes, "colour", 5, 5.0, "5", " 5")
    assert alike(codes, "colour", 7.5, "7.5")
    assert warned(codes, colour=8) == [("colour", "unknown_category")]
    assert warned(changed(predictor, colour={"categories": ("5.0",)}), colour=5) == []
    flags = changed(predictor, colour={"categories": ("false", "true"), "forms": ("boolean",)})
    assert alike(flags, "colour", True, "true", "True")
    capitals = changed(predictor, colour={"categories": ("False", "True"), "forms": ("text",)})
    assert alike(capitals, "colour", True, "true", "True")
    assert warned(changed(predictor, colour={"categories": ("True",)}), colour=False) == [
        ("colour", "unknown_category")
    ]
    assert refusal(predictor, colour=True) == ("colour", "wrong_type")


def test_numbers_as_text_and_truth_values_are_numbers_where_the_training_file_had_them(predictor):
    assert alike(changed(predictor, visits={"forms": ("number", "text")}), "visits", 3, "3", " 3.0 ")
    assert alike(changed(predictor, visits={"forms": ("boolean",)}), "visits", 1, True)
    assert refusal(changed(predictor, visits={"forms": ("text",)}), visits="three") == ("visits", "wrong_type")


def test_texts_that_look_alike_are_the_same_category(predictor):
    towns = changed(predictor, colour={"categories": ("Zürich", "Bern")})
    assert alike(towns, "colour", "Zürich", "Zu\u0308rich", " Zürich\u00a0")
    assert alike(predictor, "note", "late café", "late cafe\u0301 ")


def test_a_time_is_accepted_in_the_training_files_format_and_as_iso_8601(predictor):
    day_first = changed(predictor, bought={"format": "%d.%m.%Y"})
    assert alike(day_first, "bought", "01.03.2024", "2024-03-01", "2024-03-01T00:00:00")
    assert refusal(day_first, bought=20240301) == ("bought", "wrong_type")
    months = changed(predictor, bought={"format": "%Y%m"})
    assert alike(months, "bought", 202403, "202403", "2024-03-01")
    epoch = changed(predictor, seen={"format": "epoch_s"})
    assert alike(epoch, "seen", 1709366400, "1709366400", "2024-03-02T08:00:00Z")


def test_a_time_of_a_declared_zone_has_its_clock_with_and_without_an_offset(predictor):
    local = changed(predictor, seen={"timezone": "Europe/Berlin", "utc": False})
    assert alike(local, "seen", "2024-03-02T09:00:00+01:00", "2024-03-02T08:00:00Z", "2024-03-02T09:00:00")
    assert alike(local, "seen", "2024-06-02T10:00:00+02:00", "2024-06-02T08:00:00Z", "2024-06-02T10:00")


def test_a_zone_that_this_machine_does_not_know_is_reported_at_start(predictor):
    with pytest.raises(BundleError, match="feature seen: 'Mars/Olympus' is no time zone"):
        changed(predictor, seen={"timezone": "Mars/Olympus", "utc": False})


@pytest.mark.parametrize("moment", ["9999-12-31T00:00:00", "0001-01-01", "1650-01-01"])
def test_a_time_of_any_century_is_answered(predictor, moment):
    assert warned(predictor, bought=moment) == [("bought", "out_of_range")]


def test_a_value_that_training_never_missed_is_missed_with_a_warning(predictor):
    complete = changed(predictor, visits={"complete": True}, member={"complete": True})
    (answer,) = complete.predict([EXAMPLE | {"visits": None, "member": "", "note": None}]).answers
    assert [(w.field, w.code) for w in answer.warnings] == [("visits", "missing_value"), ("member", "missing_value")]


def test_an_empty_row_is_answered_with_a_warning(predictor):
    lenient = changed(predictor, amount={"required": False}, shop={"required": False})
    for row in ({}, dict.fromkeys(EXAMPLE), {"note": "", "other": 1}):
        (answer,) = lenient.predict([row]).answers
        assert answer.warnings[0].code == "empty_row"
        assert answer.warnings[0].field is None
    assert "empty_row" not in [code for _, code in warned(predictor)]


@pytest.mark.parametrize(
    ("labels", "classes", "values"),
    [
        ("integer", ("0", "1"), (0, 1)),
        ("number", ("0", "1"), (0.0, 1.0)),
        ("boolean", ("false", "true"), (False, True)),
        ("text", ("0", "1"), ("0", "1")),
    ],
)
def test_labels_have_the_type_of_the_training_file(predictor, labels, classes, values):
    bundle = predictor.bundle
    schema = bundle.schema.model_copy(update={"labels": labels, "classes": classes})
    typed = Predictor(replace(bundle, parts=replace(bundle.parts, schema=schema)))
    for answer in typed.predict([EXAMPLE | {"amount": amount} for amount in (10.0, 490.0)]).answers:
        assert answer.prediction == values[classes.index(answer.label)]
        assert type(answer.prediction) is type(values[0])
        assert list(answer.probabilities or {}) == list(classes)


def test_nan_means_missing_where_the_protocol_says_so(predictor):
    assert predictor.predict([EXAMPLE | {"visits": math.nan, "colour": math.nan}], "missing").missing == {
        "visits": 1,
        "colour": 1,
    }
    with pytest.raises(InvalidRowsError):
        predictor.predict([EXAMPLE | {"amount": math.nan}], "missing")


def test_times_with_an_offset_count_as_utc(predictor):
    same = [EXAMPLE | {"seen": text} for text in ("2024-03-02T08:00:00Z", "2024-03-02T10:30:00+02:30")]
    first, second = predictor.predict(same).answers
    assert first == second


def test_problems_are_listed_up_to_a_limit_and_counted_by_row(predictor):
    with pytest.raises(InvalidRowsError) as refused:
        predictor.predict([{"shop": 1}] * 150)
    assert len(refused.value.problems) == MAX_PROBLEMS
    assert refused.value.total == 300
    assert refused.value.reasons == {"missing": 150, "wrong_type": 150}


def test_a_number_that_overflows_inside_the_model_has_no_answer(predictors):
    bundle = predictors["regression"].bundle
    overflowing = Predictor(replace(bundle, run=lambda matrix: np.where(matrix[:, 1] > 1e38, np.inf, 1.0)))
    with pytest.raises(InvalidRowsError) as refused:
        overflowing.predict([EXAMPLE, EXAMPLE | {"visits": 3e38}])
    assert [(problem.row, problem.code) for problem in refused.value.problems] == [(1, "no_answer")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_gets_the_same_answer_alone_and_in_a_batch(predictors, kind):
    rows = [
        EXAMPLE | {"amount": 7.3 * place, "colour": ("red", "mauve", None)[place % 3], "visits": place % 10}
        for place in range(60)
    ]
    batch = predictors[kind].predict(rows).answers
    for row, together in zip(rows, batch, strict=True):
        (alone,) = predictors[kind].predict([row]).answers
        assert together == alone


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
likely = st.fixed_dictionaries(
    {},
    optional={
        "amount": st.floats(0, 1000) | anything,
        "visits": st.integers() | st.floats() | anything,
        "colour": st.sampled_from(["red", "green", "mauve"]) | anything,
        "shop": st.sampled_from(["north", "south"]) | anything,
        "bought": st.datetimes().map(datetime.isoformat) | anything,
        "seen": st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat) | anything,
        "member": st.booleans() | anything,
        "note": st.text() | anything,
        "else": anything,
    },
)


@pytest.mark.parametrize("non_finite", ["error", "missing"])
@pytest.mark.parametrize("kind", KINDS)
@quick
@given(rows=st.lists(likely, min_size=1, max_size=4))
def test_any_rows_give_finite_answers_or_declared_problems(predictors, kind, non_finite, rows):
    try:
        answers = predictors[kind].predict(rows, non_finite).answers
    except InvalidRowsError as error:
        places = [problem.row for problem in error.problems]
        assert places
        assert set(places) <= set(range(len(rows)))
        return
    assert len(answers) == len(rows)
    for answer in answers:
        if answer.probabilities is None:
            assert math.isfinite(answer.prediction)
        else:
            assert answer.prediction in answer.probabilities
            assert all(0 <= p <= 1 for p in answer.probabilities.values())


def test_a_damaged_bundle_is_named(bundles, tmp_path):
    copy = tmp_path / "bundle"
    copy.mkdir()
    for file in bundles["binary"].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "encoding.json").write_text("{}")
    with pytest.raises(BundleError, match=r"encoding\.json doesn't match bundle\.json"):
        Predictor.load(copy)


@pytest.mark.slow
def test_serving_unpickles_nothing_and_a_bundle_has_no_pickle(bundles):
    """A pickle executes whatever it says. What is served is data: JSON, and an ONNX graph."""
    program = f"""
import _pickle, marshal, pickle, sys
from pathlib import Path
def refuse(*_, **__):
    raise SystemExit("something was unpickled")
class Refused:
    __init__ = refuse
import ml.bundle, service.app, service.worker, service.__main__  # pickle's own importers take these names below
for module in (pickle, _pickle):
    module.load = module.loads = module._load = module._loads = refuse
    module.Unpickler = module._Unpickler = Refused
from service.app import create_app
from service.predictor import Predictor
from service.settings import Settings
predictor = Predictor.load(Path({str(bundles["binary"])!r}))
client = create_app(Settings(), predictor).test_client()
rows = {{"rows": [predictor.example()]}}
assert client.post("/predict", json=rows).status_code == client.post("/explain", json=rows).status_code == 200
print(sorted({{"joblib", "cloudpickle", "dill", "sklearn", "skops", "torch"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path.cwd(), check=False, timeout=120
    )
    assert done.stdout.strip() == "[]", done.stderr
    for folder in bundles.values():
        for file in filter(Path.is_file, folder.rglob("*")):
            assert file.suffix in {".json", ".onnx"}, file
            assert file.read_bytes()[:1] != b"\x80", f"{file} begins as a pickle does"
            assert not zipfile.is_zipfile(file), file


@pytest.mark.slow
def test_serving_needs_neither_pandas_nor_scikit_learn_nor_mlflow(bundles):
    program = f"""
import sys
from pathlib import Path
from service.app import create_app
from service.predictor import Predictor
from service.settings import Settings
predictor = Predictor.load(Path({str(bundles["binary"])!r}))
client = create_app(Settings(), predictor).test_client()
assert client.post("/predict", json={{"rows": [predictor.example()]}}).status_code == 200
print(sorted({{"pandas", "sklearn", "mlflow", "scipy", "pyarrow"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path.cwd(), check=False, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr
