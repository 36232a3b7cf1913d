"""All of params.yaml is validated, and an error names key and value."""

import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml.params import ParamsError, load_params

REPOSITORY = Path(__file__).parents[2]


def written(tmp_path: Path, change: dict[str, Any]) -> Path:
    document = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    for path, value in change.items():
        *sections, key = path.split(".")
        place = document
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def test_the_repositorys_own_parameters_are_valid() -> None:
    params = load_params(REPOSITORY / "params.yaml")
    assert params.data.horizon == timedelta(hours=2)
    assert params.split.test == date(2013, 11, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.colour": "red"}, "data.colour: Extra inputs are not permitted (got 'red')"),
        ({"data.task": "ranking"}, "data.task: Input should be 'binary', 'multiclass' or 'regression' (got 'ranking')"),
        ({"data.horizon": "soon"}, "a duration is a number and a unit, such as 90m, 2h or 7d (got 'soon')"),
        ({"data.horizon": None}, "data.source: flights needs data.horizon"),
        ({"data.time": None}, "needs data.time"),
        ({"data.time": "distance"}, "features.distance.type: numeric can't be, because time names this column"),
        ({"split.validation": date(2013, 12, 1)}, "validation (2013-12-01) must begin before test (2013-11-01)"),
        ({"split.validation": 0.5, "split.test": 0.6}, "leave no rows to train on"),
        ({"split.validation": 0.5}, "both be days or both be shares"),
        ({"split.method": "random"}, "days are only for method: time, but the method is random"),
        ({"model.estimators": {}}, "model.estimators: Value should have at least 1 item"),
        ({"model.estimators": [{"kind": "linear"}]}, "model.estimators: Value error, it is a mapping by name"),
        ({"model.estimators.a__b": {"kind": "linear"}}, "model.estimators.a__b"),
        ({"gate.minimum": {"roc": 0.7}}, "gate.minimum.roc"),
        (
            {"contract.columns.carrier": {"pattern": "[A-"}},
            "columns.carrier.pattern: Value error, is no regular expression of Python: unterminated character set",
        ),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_is_allowed(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParamsError, match=re.escape(message)):
        load_params(written(tmp_path, change))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (
            {"max_iters": 3},
            "trees.max_iters: is not a parameter of HistGradientBoostingClassifier; its parameters: loss,",
        ),
        (
            {"max_iter": 0},
            "model.estimators.trees.max_iter: The 'max_iter' parameter of Hist",
        ),
        ({"max_iter": "many"}, "must be an int in the range [1, inf). Got 'many' instead."),
        ({"categorical_features": [0]}, "model.estimators.trees.categorical_features: is not allowed; categories are"),
        ({"kind": "linear", "penalties": "l1", "C": -1}, "trees.penalties: is not a parameter of LogisticRegression"),
        (
            {"kind": "extra_trees", "criterion": "gain"},
            "The 'criterion' parameter of ExtraTreesClassifier must be",
        ),
    ],
)
def test_an_estimators_parameter_is_checked_by_scikit_learns_own_rules(
    tmp_path: Path, estimator: dict[str, Any], message: str
) -> None:
    file = written(tmp_path, {"model.estimators": {"trees": {"kind": "hist_gradient_boosting"} | estimator}})
    with pytest.raises(ParamsError, match=re.escape(message)) as error:
        load_params(file)
    assert len(str(error.value).splitlines()) == len(estimator.keys() - {"kind"})
    unchecked = load_params(file, check_estimators=False).model.estimators
    assert unchecked is not None
    assert unchecked["trees"].settings.keys() == estimator.keys() - {"kind"}


def test_a_missing_file_and_broken_yaml_say_so(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="not found: run this from the repository's root"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("seed: [1")
    with pytest.raises(ParamsError, match="is not YAML"):
        load_params(tmp_path / "params.yaml")


def test_labels_and_missing_values_that_yaml_reads_as_numbers_are_the_texts_of_training(tmp_path: Path) -> None:
    change = {
        "data.positive": 1,
        "data.missing": [-999.0, -1, "?"],
        "encoding.ordinal": {"carrier": [1, 2.0, True]},
        "model.class_weight": {1: 5},
    }
    params = load_params(written(tmp_path, change))
    assert params.data.positive == "1"
    assert params.data.missing == ("-999", "-1", "?")
    assert params.encoding.ordinal["carrier"] == ("1", "2", "true")
    assert params.model.class_weight == {"1": 5}
