"""/invocations answers as `mlflow models serve` does with the model that the pipeline logs."""

import io
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flask
import pandas as pd
import pytest

from ml.bundle import write_bundle
from ml.schema import Label
from ml.tracking import _log_model
from service.predictor import Predictor
from service.routes.invocations import MLFLOW
from tests.bundles import EXAMPLE, Kind, make_parts
from tests.service import serving

# MLflow's imports cause deprecation warnings from its dependencies.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]

ROWS = [EXAMPLE, EXAMPLE | {"amount": 490.0, "visits": None, "colour": None}]
BODIES: list[Any] = [
    {"dataframe_records": ROWS},
    {"dataframe_split": {"columns": list(EXAMPLE), "data": [list(row.values()) for row in ROWS]}},
    {"instances": ROWS},
    {"inputs": {name: [row[name] for row in ROWS] for name in EXAMPLE}},
    {"inputs": ROWS},
    {"inputs": EXAMPLE},
    {"instances": {name: [row[name] for row in ROWS] for name in EXAMPLE}},
    {"dataframe_split": {"columns": list(EXAMPLE), "data": [list(row.values()) for row in ROWS], "index": [7, 9]}},
    {"dataframe_records": ROWS, "params": {"other": 1}},
    *(
        {"dataframe_records": [EXAMPLE | changed]}
        for changed in (
            {"member": 1}, {"member": "True"}, {"member": ""}, {"colour": " red"}, {"colour": ""}, {"note": "n/a"},
            {"seen": "2024-03-02T10:00:00+02:00"},
        )
    ),
]  # fmt: skip
REFUSED: list[Any] = [
    {},
    {"instances": ROWS, "inputs": ROWS},
    {"instances": 3},
    {"dataframe_records": EXAMPLE},
    {"dataframe_records": []},
    {"dataframe_split": {"columns": list(EXAMPLE), "data": [1, 2], "other": 3}},
    {"dataframe_records": [EXAMPLE | {"seen": "2024-03-02T08:00:00"}]},
]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize(
    ("kind", "labels", "classes"),
    [
        ("binary", "integer", ("0", "1")),
        ("binary", "boolean", ("false", "true")),
        ("multiclass", "number", ("1", "2", "3.5")),
        ("regression", "text", ()),
    ],
)
def test_invocations_answers_as_mlflow_does(
    make_app: Callable[..., flask.Flask], tmp_path: Path, kind: Kind, labels: Label, classes: tuple[str, ...]
) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import scoring_server

    parts = make_parts(kind)
    parts = replace(parts, schema=parts.schema.model_copy(update={"labels": labels, "classes": classes}))
    write_bundle(tmp_path / "bundle", parts)
    run = SimpleNamespace(pyfunc=mlflow.pyfunc, log_artifacts=lambda made, name: shutil.copytree(made, tmp_path / name))
    _log_model(run, tmp_path / "bundle", parts, logged_model=False)
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    client = make_app(Predictor.load(tmp_path / "bundle")).test_client()

    def served(body: Any) -> Any:
        """The answer of `mlflow models serve`."""
        return scoring_server.invocations(
            json.dumps(body), "application/json", model, model.metadata.get_input_schema()
        ).response

    for body in BODIES:
        assert client.post("/invocations", json=body).get_json() == json.loads(served(body)), body
    for body in REFUSED:
        response = client.post("/invocations", json=body)
        assert response.status_code == 422
        with pytest.raises(MlflowException) as failed:
            served(body)
        # The same keys, of which MLflow's clients make an exception; MLflow may add a stack trace.
        assert set(response.get_json()) <= set(json.loads(failed.value.serialize_as_json()))
    # MLflow can't read CSV for a signature as wide as this model's; as a table of pandas the model takes it.
    text = pd.DataFrame(ROWS).to_csv(index=False)
    wanted = model.predict(pd.read_csv(io.StringIO(text))).to_dict(orient="records")
    answered = client.post("/invocations", data=text, content_type="text/csv").get_json()["predictions"]
    assert answered == wanted


def test_mlflows_own_client_works_unchanged(make_app: Callable[..., flask.Flask], predictor: Predictor) -> None:
    import mlflow
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    with serving.served(make_app()) as address:
        host, _, port = address.partition(":")
        client = ScoringServerClient(host, int(port))
        client.ping()
        assert client.get_version() == mlflow.__version__ == MLFLOW
        found = client.invoke(pd.DataFrame(ROWS)).get_predictions()
        with pytest.raises(Exception, match="Invocation failed"):
            client.invoke(pd.DataFrame([EXAMPLE | {"amount": -1}]))
    answers = predictor.predict(ROWS).answers
    assert found["prediction"].tolist() == [answer.prediction for answer in answers]
    assert found["probability:yes"].tolist() == [(answer.probabilities or {})["yes"] for answer in answers]
