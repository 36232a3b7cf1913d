"""What the owner of the data declares: weights, groups, class weights, ordered categories, directions; one target."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from ml.data_preprocessing import preprocess
from ml.decision import TargetTransform
from ml.encoding_fitting import fit_encoding
from ml.estimators import fit, sample_weights
from ml.judging import encode_folds, judge
from ml.metrics import day_blocks
from ml.model_params import EstimatorParams
from ml.params import Params, ParamsError
from ml.portfolio import Candidate
from ml.rows import Rows, groups_of
from ml.schema import Feature, Schema, SchemaError

TREES = {"trees": {"kind": "hist_gradient_boosting", "max_iter": 20}}


def params(**sections: Any) -> Params:
    document: dict[str, Any] = {
        "seed": 1,
        "data": {"source": "table", "uri": "t.csv", "target": "y", "task": "binary"},
        "split": {"method": "random", "validation": 0.2, "test": 0.2},
        "model": {"name": "m", "estimators": TREES},
        "gate": {"metric": "log_loss"},
        "registry": {"experiment": "e", "model": "m"},
    }
    return Params.model_validate(
        document | {name: document.get(name, {}) | section for name, section in sections.items()}
    )


def table(rows: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    x = rng.normal(size=rows)
    return pd.DataFrame(
        {
            "x": x,
            "shop": rng.integers(0, 30, rows),
            "w": rng.uniform(0.5, 2, rows),
            "size": rng.choice(["small", "large", "medium"], rows),
            "y": np.where(x + rng.normal(size=rows) > 0, "yes", "no"),
        }
    )


FEATURES = (
    Feature(name="x", type="numeric"),
    Feature(name="size", type="categorical", categories=("small", "large", "medium")),
)
SCHEMA = Schema(target="y", task="binary", classes=("no", "yes"), features=FEATURES)


def rows_of(made: pd.DataFrame, weights: Any = None) -> Rows:
    columns = {"x": made["x"].to_numpy(), "size": made["size"].to_numpy(dtype=object)}
    return Rows(columns, np.asarray(made["y"] == "yes", dtype=np.float64), None, weights)


def test_weight_and_group_are_no_features_and_a_group_is_in_one_part_only() -> None:
    processed = preprocess(table(), params(data={"weight": "w"}, split={"group": "shop"}))
    assert [feature.name for feature in processed.schema.features] == ["x", "size"]
    assert "weight of the row" in processed.summary.dropped_columns["w"]
    parts = {name: set(part["shop"]) for name, part in processed.parts.items()}
    assert not parts["train"] & parts["test"]
    assert not parts["train"] & parts["validation"]
    assert not parts["validation"] & parts["test"]
    assert len(processed.parts["test"]) == pytest.approx(40, abs=10)
    blocks = day_blocks(None, 200, 1, groups_of(table(), "shop"))
    assert len(pd.DataFrame({"block": blocks, "shop": table()["shop"]}).drop_duplicates()) == 30  # whole groups


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("w", -1.0, "data.weight: 'w' needs a number above 0 in every row, but row 5 has -1.0"),
        ("w", np.nan, "but row 5 has nan"),
        ("shop", np.nan, "split.group: 'shop' has no value in row 5"),
    ],
)
def test_a_row_without_weight_or_group_is_named(column: str, value: float, message: str) -> None:
    made = table().astype({"shop": float})
    made.loc[5, column] = value
    with pytest.raises(SchemaError, match=re.escape(message)):
        preprocess(made, params(data={"weight": "w"}, split={"group": "shop"}))


def test_a_column_that_is_missing_is_named() -> None:
    with pytest.raises(SchemaError, match=r"split.group: 'street' is not a column"):
        preprocess(table(), params(split={"group": "street"}))


def test_weights_of_rows_and_classes_multiply_and_have_the_mean_1() -> None:
    made = table()
    settings = params(model={"class_weight": {"yes": 3.0}}).model
    weights = sample_weights(rows_of(made, made["w"].to_numpy()), SCHEMA, settings)
    expected = made["w"] * np.where(made["y"] == "yes", 3.0, 1.0)
    assert weights is not None
    np.testing.assert_allclose(weights, expected / expected.mean())
    assert sample_weights(rows_of(made), SCHEMA, params().model) is None
    with pytest.raises(ParamsError, match="'maybe' is not a class"):
        sample_weights(rows_of(made), SCHEMA, params(model={"class_weight": {"maybe": 2.0}}).model)


KINDS: dict[str, dict[str, Any]] = {
    "linear": {},
    "hist_gradient_boosting": {"max_iter": 20, "min_samples_leaf": 5},
    "random_forest": {"n_estimators": 10, "max_depth": 4},
    "extra_trees": {"n_estimators": 10, "max_depth": 4},
}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_reach_the_fit_of_every_kind_of_estimator(kind: str) -> None:
    made = table()
    weights = np.where(made["y"] == "yes", 10.0, 1.0)
    settings = params(model={"estimators": {"one": {"kind": kind} | KINDS[kind]}})

    def mean_of_yes(rows: Rows) -> float:
        model = fit(fit_encoding(rows, SCHEMA, settings), rows, SCHEMA, settings.model, 1)
        return float(model.scores(model.encoding.transform(rows.columns), SCHEMA)[:, 1].mean())

    assert mean_of_yes(rows_of(made, weights)) > mean_of_yes(rows_of(made)) + 0.15


def test_weights_reach_the_candidates_of_the_automatic_choice_and_their_figures() -> None:
    made = table()
    candidate = Candidate("line", EstimatorParams(kind="linear"), 0.1)
    weights = np.where(made["y"] == "yes", 10.0, 1.0)
    judged = []
    for rows in (rows_of(made), rows_of(made, weights)):
        folds = encode_folds(rows, SCHEMA, params())
        judged.append(judge(candidate, folds, TargetTransform(), SCHEMA, params().model, 1))
    plain, weighted = judged
    assert np.concatenate(weighted.scores)[:, 1].mean() > np.concatenate(plain.scores)[:, 1].mean() + 0.15
    assert weighted.loss != pytest.approx(plain.loss, rel=0.05)


def test_no_candidate_is_judged_on_a_group_that_it_has_learnt_from() -> None:
    made = table()
    rows = Rows(
        rows_of(made).columns, rows_of(made).target, None, None, made["shop"].astype(str).to_numpy(dtype=object)
    )
    folds = encode_folds(rows, SCHEMA, params(split={"group": "shop"}))
    assert len(folds) == 10
    for fold in folds:
        assert fold.learn_rows.groups is not None
        assert fold.rows.groups is not None
        assert not set(fold.learn_rows.groups) & set(fold.rows.groups)


def test_an_ordered_category_is_its_place_and_an_unnamed_one_is_refused() -> None:
    ordered = params(encoding={"ordinal": {"size": ["small", "medium", "large"]}})
    encoded = fit_encoding(rows_of(table()), SCHEMA, ordered)
    assert encoded.encoding.names() == ["x", "size"]
    later = {"x": np.zeros(4), "size": np.array(["large", "small", None, "huge"], dtype=object)}
    np.testing.assert_array_equal(encoded.encoding.transform(later)[:, 1], [2, 0, np.nan, np.nan])
    with pytest.raises(ParamsError, match=r"encoding.ordinal.size doesn't name 'large', which is in row"):
        fit_encoding(rows_of(table()), SCHEMA, params(encoding={"ordinal": {"size": ["small", "medium"]}}))


def test_a_prediction_never_goes_against_a_declared_direction() -> None:
    settings = params(
        model={"monotone": {"x": "decreasing"}}, encoding={"ordinal": {"size": ["small", "medium", "large"]}}
    )
    rows = rows_of(table())
    model = fit(fit_encoding(rows, SCHEMA, settings), rows, SCHEMA, settings.model, 1)
    x = np.linspace(-3, 3, 50)
    columns = {"x": x, "size": np.full(50, "small", dtype=object)}
    scores = model.scores(model.encoding.transform(columns), SCHEMA)[:, 1]
    assert (np.diff(scores) <= 1e-12).all()  # though the target increases with x
    unordered = params(model={"monotone": {"size": "increasing"}})
    encoded = fit_encoding(rows, SCHEMA, unordered)
    with pytest.raises(ParamsError, match=r"model.monotone: 'size' is not a numeric, boolean or ordinal feature"):
        fit(encoded, rows, SCHEMA, unordered.model, 1)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"target": ["y", "z"]}}, "several targets (multilabel) are out of scope"),
        ({"data": {"task": "multilabel"}}, "several targets (multilabel) are out of scope"),
        ({"split": {"method": "time", "group": "shop"}, "data": {"time": "t"}}, "group is for method: random or strat"),
        ({"model": {"monotone": {"x": "increasing"}, "estimators": {"a": {"kind": "linear"}}}}, "by the estimator a"),
        ({"model": {"monotone": {"x": "increasing"}}, "data": {"task": "multiclass"}}, "monotone is for binary and"),
        ({"model": {"class_weight": {"a": 1}}, "data": {"task": "regression"}}, "class_weight needs classes"),
        ({"model": {"estimators": {"a": {"kind": "hist_gradient_boosting", "without": ["x"]}}}}, "sees all columns"),
    ],
)
def test_what_does_not_go_together_is_said(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        params(**sections)
