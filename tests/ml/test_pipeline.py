"""The real stages process other tables, with changes only in params.yaml."""

import functools
import http.server
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest
import yaml
from moto.server import ThreadedMotoServer

from ml.bundle import load_bundle, read_parts
from ml.files import CANDIDATE, DATA_WARNINGS, METRICS_FILE, PLOTS, PROCESSED, TRAINED
from ml.tables import to_columns
from tests.ml.conftest import STAGES, Workspace

pytestmark = pytest.mark.slow

People = Callable[[int], pd.DataFrame]


def metrics() -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads(METRICS_FILE.read_text())["test"]
    return found


def test_a_binary_table_with_every_type_and_nothing_declared(workspace: Workspace, people: People) -> None:
    people(1500).to_csv("table.csv", index=False)
    workspace.params(data={"id": "id"})
    assert workspace.run() == [0] * 5
    version, parts = read_parts(CANDIDATE)
    assert {feature.name: feature.type for feature in parts.schema.features} == {
        "age": "numeric",
        "city": "categorical",
        "joined": "datetime",
        "member": "boolean",
        "comment": "text",
    }
    assert parts.schema.classes == ("no", "yes")
    assert parts.runtime == "onnx"
    assert metrics()["roc_auc"]["value"] > 0.7
    assert {file.stem for file in PLOTS.iterdir()} == {
        "roc", "precision_recall", "calibration", "confusion", "importance",
    }  # fmt: skip
    # Rows with unseen categories, unknown columns and missing values get predictions.
    odd = pd.DataFrame({"age": [None, 40.0], "city": ["Atlantis", None], "colour": ["red", "blue"]})
    scores = load_bundle(CANDIDATE).scores(to_columns(odd, parts.schema))
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    assert len(version) == 64


def test_a_multiclass_table_from_parquet_with_a_linear_model(workspace: Workspace, people: People) -> None:
    table = people(1200)
    table["y"] = np.where(table["age"].fillna(50) > 60, "old", np.where(table["member"], "member", "other"))
    table.to_parquet("table.parquet", index=False)
    workspace.params(
        data={"uri": "table.parquet", "task": "multiclass", "exclude": ["id"]},
        split={"method": "stratified"},
        model={
            "name": "m",
            "estimators": {"line": {"kind": "linear", "C": 10.0}},
            "calibration": ["none", "temperature"],
            "class_weight": "balanced",
        },
        evaluation={"slices": ["city"], "slice_min_rows": 20},
    )
    assert workspace.run() == [0] * 5
    _, parts = read_parts(CANDIDATE)
    assert parts.schema.classes == ("member", "old", "other")
    assert metrics()["accuracy"]["value"] > 0.8
    assert {part.value for part in parts.card.slices} == {"Oslo", "Rome", "Lima", "Pune", "missing"}
    assert np.array(parts.card.confusion).shape == (3, 3)
    assert parts.decision.threshold is None


def test_a_regression_with_many_categories_and_averaged_estimators(workspace: Workspace) -> None:
    rng = np.random.default_rng(3)
    shop = rng.integers(0, 400, 3000)
    size = rng.normal(size=3000)
    table = pd.DataFrame({"shop": [f"shop {n}" for n in shop], "size": size, "open": rng.random(3000) < 0.5})
    table["price"] = shop / 40 + 2 * size + table["open"] + rng.normal(scale=0.1, size=3000)
    table.loc[::17, "size"] = np.nan
    table.to_csv("table.csv", index=False)
    workspace.params(
        data={"target": "price", "task": "regression"},
        gate={"metric": "rmse"},
        model={
            "name": "price",
            "estimators": {
                "trees": {"kind": "hist_gradient_boosting", "max_iter": 50},
                "line": {"kind": "linear", "weight": 0.5},
                "extra": {"kind": "extra_trees", "n_estimators": 10, "max_depth": 8},
            },
        },
    )
    assert workspace.run() == [0] * 5
    assert metrics()["r2"]["value"] > 0.8
    assert (PLOTS / "residuals.csv").read_text().startswith("predicted,residual\n")
    _, parts = read_parts(CANDIDATE)
    assert [encoder.kind for encoder in parts.encoding.encoders] == ["target", "numeric", "numeric"]
    assert parts.runtime == "onnx"


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "hist_gradient_boosting", "loss": "poisson", "max_iter": 30},
        {"kind": "hist_gradient_boosting", "loss": "gamma", "max_iter": 30},
        {"kind": "random_forest", "criterion": "poisson", "n_estimators": 10},
    ],
    ids=["poisson", "gamma", "poisson forest"],
)
def test_a_loss_for_positive_numbers_gets_them(workspace: Workspace, settings: dict[str, Any]) -> None:
    x = np.random.default_rng(3).normal(size=400)
    pd.DataFrame({"x": x, "y": 3 + np.exp(x)}).to_csv("table.csv", index=False)
    workspace.params(
        data={"target": "y", "task": "regression"},
        gate={"metric": "rmse"},
        model={"name": "counts", "estimators": {"one": settings}},
    )
    assert workspace.run() == [0] * 5
    assert metrics()["r2"]["value"] > 0.8


def test_a_random_forest_and_a_time_split_with_shares(workspace: Workspace, people: People) -> None:
    people(800).to_csv("table.csv", index=False)
    workspace.params(
        data={"id": "id", "time": "joined", "positive": "no"},
        split={"method": "time"},
        model={
            "name": "forest",
            "estimators": {"forest": {"kind": "random_forest", "n_estimators": 20, "max_depth": 6}},
            "recency_half_life": "90d",
            "refit": False,
        },
    )
    assert workspace.run() == [0] * 5
    parts = {part: pd.read_parquet(f"data/processed/{part}.parquet") for part in ("train", "validation", "test")}
    assert parts["train"]["joined"].max() <= parts["validation"]["joined"].min()
    assert parts["validation"]["joined"].max() <= parts["test"]["joined"].min()
    _, candidate = read_parts(CANDIDATE)
    assert candidate.schema.classes == ("yes", "no")
    assert candidate.evaluated is None


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_without_estimators_the_choice_becomes_one_compiled_model(
    workspace: Workspace, people: People, task: str
) -> None:
    table = people(240).drop(columns="comment").sort_values("y")  # sorted by class, as many published tables are
    if task == "multiclass":
        table["y"] = np.where(table["age"] > 70, "old", table["y"])
    elif task == "regression":
        table["y"] = np.exp(table["age"].fillna(40) / 20)
    table.to_csv("table.csv", index=False)
    workspace.params(data={"id": "id", "task": task}, gate={"metric": "rmse" if task == "regression" else "log_loss"})
    document = yaml.safe_load(Path("params.yaml").read_text())
    document["model"] = {"name": "chosen", "budget": "1s"}
    Path("params.yaml").write_text(yaml.safe_dump(document))
    assert workspace.run() == [0] * 5
    _, parts = read_parts(CANDIDATE)
    facts = parts.card.model
    assert parts.runtime == "onnx"
    assert parts.card.parity is not None
    assert facts.automatic is not None
    assert facts.estimators.keys() == {one.name for one in facts.automatic.tried if one.weight}
    # What was chosen can be copied to params.yaml: then the same estimators are fitted.
    document["model"] = {"name": "named", "estimators": facts.estimators, "target": facts.target}
    Path("params.yaml").write_text(yaml.safe_dump(document))
    assert workspace.run("model_building") == [0]
    assert read_parts(TRAINED)[1].card.model.estimators == facts.estimators


def test_two_cold_runs_give_the_same_version(workspace: Workspace, people: People) -> None:
    people(600).to_csv("table.csv", index=False)
    workspace.params(data={"id": "id"})
    versions = []
    for _ in range(2):
        assert workspace.run() == [0] * 5
        versions.append(read_parts(CANDIDATE)[0])
    assert versions[0] == versions[1]


def test_the_compiled_models_answers_are_scikit_learns(workspace: Workspace, people: People) -> None:
    people(600).to_csv("table.csv", index=False)
    workspace.params(data={"id": "id"})
    assert workspace.run() == [0] * 5
    _, parts = read_parts(TRAINED)
    assert parts.card.parity is not None
    assert parts.card.parity.largest_difference < 1e-5


def test_a_model_beyond_the_tolerance_is_served_by_scikit_learn(
    workspace: Workspace, people: People, caplog: pytest.LogCaptureFixture
) -> None:
    people(600).to_csv("table.csv", index=False)
    model = {"name": "m", "estimators": {"trees": {"kind": "hist_gradient_boosting"}}, "parity_tolerance": 0.0}
    workspace.params(data={"id": "id"}, model=model)
    assert workspace.run() == [0] * 5
    _, parts = read_parts(CANDIDATE)
    assert parts.runtime == "sklearn"
    assert "runtime sklearn" in caplog.text
    answers = load_bundle(CANDIDATE).scores(to_columns(people(5), parts.schema))
    onnx = replace(parts, runtime="onnx")
    assert onnx.runtime != parts.runtime
    np.testing.assert_allclose(answers.sum(axis=1), 1)


def test_a_table_over_http_and_one_on_s3(workspace: Workspace, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace.path / "web").mkdir()
    people(300).to_csv("web/table.csv", index=False)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory="web")
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        workspace.params(data={"uri": f"http://127.0.0.1:{web.server_port}/table.csv"})
        assert workspace.run("data_ingestion") == [0]
    finally:
        web.shutdown()
        web.server_close()
    assert len(pd.read_parquet("data/raw/table.parquet")) == 300

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        store = boto3.client("s3")
        store.create_bucket(Bucket="tables")
        people(200).to_parquet("web/table.parquet", index=False)
        store.upload_file("web/table.parquet", "tables", "people.parquet")
        workspace.params(data={"uri": "s3://tables/people.parquet"})
        assert workspace.run("data_ingestion") == [0]
    finally:
        server.stop()
    assert len(pd.read_parquet("data/raw/table.parquet")) == 200


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"uri": "nowhere.csv"}, "nowhere.csv not found: check data.uri in params.yaml"),
        ({"uri": "table.xlsx"}, "table.xlsx is an Excel file, which isn't read directly: save the sheet as CSV"),
        ({"uri": "http://127.0.0.1:9/table.csv"}, "can't be read as csv"),
        ({"target": "z"}, "the target 'z' is not a column"),
        ({"task": "multiclass"}, "multiclass needs three values or more"),
        ({"target": "city"}, "binary needs two values in 'city', there are 4"),
        ({"positive": "maybe"}, "'maybe' is not a value of 'y'"),
        ({"features": {"height": {}}}, "data.features: 'height' is not a column; the table has id, age"),
        (
            {"exclude": ["Age"]},
            "data.exclude: 'Age' is not a column; the table has id, age, city, joined, member, comment, "
            "y; did you mean 'age'?",
        ),
        ({"features": {"city": {"type": "numeric"}}}, "column 'city' is numeric, but"),
        ({"declared_only": True}, "no column is left as a feature"),
    ],
)
def test_a_mistake_ends_the_stage_with_one_clear_line(
    workspace: Workspace, people: People, capsys: pytest.CaptureFixture[str], data: dict[str, object], message: str
) -> None:
    people(100).to_csv("table.csv", index=False)
    workspace.params(data=data)
    assert 1 in workspace.run("data_ingestion", "data_preprocessing")
    assert message in capsys.readouterr().err


def test_a_processed_table_that_does_not_fit_its_schema_ends_each_later_stage_with_one_line(
    workspace: Workspace, people: People, capsys: pytest.CaptureFixture[str]
) -> None:
    people(300).to_csv("table.csv", index=False)
    workspace.params(data={"id": "id"})
    assert workspace.run() == [0] * 5
    for part in ("train", "validation", "test"):
        rows = pd.read_parquet(PROCESSED / f"{part}.parquet")
        rows.assign(age="many").to_parquet(PROCESSED / f"{part}.parquet", index=False)
    for stage in (*STAGES[2:], "register_model"):
        capsys.readouterr()
        assert workspace.run(stage) == [1]
        said = capsys.readouterr().err
        assert f"{stage}: column 'age' is numeric, but" in said
        assert "Traceback" not in said


def test_a_leak_is_said_in_log_report_and_card(
    workspace: Workspace, people: People, caplog: pytest.LogCaptureFixture
) -> None:
    table = people(300)
    table.assign(paid=np.where(table["y"] == "yes", "j", "n")).to_csv("table.csv", index=False)
    workspace.params(data={"id": "id", "exclude": ["comment"]})
    assert workspace.run() == [0] * 5
    said = "feature 'paid' alone predicts the target 'y' almost perfectly (1.000)"
    assert f"warning: {said}" in caplog.text
    (reported,) = json.loads(DATA_WARNINGS.read_text())["warnings"]
    assert reported.startswith(said)
    assert read_parts(CANDIDATE)[1].card.data.warnings == (reported,)


def test_four_positives_in_1200_rows_are_a_doubt_of_log_figures_and_card(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    x = np.random.default_rng(5).normal(size=(1200, 2))
    table = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": np.where(np.arange(1200) % 300 == 7, "yes", "no")})
    table.to_csv("table.csv", index=False)
    workspace.params(split={"method": "stratified"})
    assert workspace.run() == [0] * 5
    said = "the test part has 1 row of the class 'yes', fewer than evaluation.min_class_rows (10): its figures can't be"
    card = read_parts(CANDIDATE)[1].card
    assert card.doubts[0].startswith(said)
    assert json.loads(METRICS_FILE.read_text())["doubts"] == list(card.doubts)
    assert said in caplog.text
    assert card.support["test"].rarest_rows == 1


def test_a_large_target_with_small_differences_is_learnt_and_compiled(workspace: Workspace) -> None:
    x = np.random.default_rng(6).uniform(-50, 50, size=800)
    pd.DataFrame({"x": x, "y": (1e9 + x).round(3)}).to_csv("table.csv", index=False)
    workspace.params(data={"target": "y", "task": "regression"}, gate={"metric": "rmse"})
    assert workspace.run() == [0] * 5
    assert read_parts(CANDIDATE)[1].runtime == "onnx"
    assert metrics()["r2"]["value"] > 0.9


def test_small_differences_of_large_numbers_decide_the_class(workspace: Workspace) -> None:
    places = np.random.default_rng(7).integers(0, 60, 1000)
    table = pd.DataFrame({"counter": 2_000_000_000 + places, "y": np.where(places // 15 % 2 == 1, "yes", "no")})
    table.to_csv("table.csv", index=False)
    workspace.params()
    assert workspace.run() == [0] * 5
    assert metrics()["roc_auc"]["value"] > 0.9


def test_an_estimators_wrong_parameter_is_named_by_the_first_stage(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.params(model={"estimators": {"trees": {"kind": "hist_gradient_boosting", "trees": 3}}})
    assert workspace.run("data_ingestion") == [1]
    error = capsys.readouterr().err
    assert "params.yaml: model.estimators.trees.trees: is not a parameter of HistGradientBoostingClassifier" in error
    assert "max_iter" in error
