"""No training/serving skew: for test rows, the service gives the same predictions as the pipeline."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ml.bundle import load_bundle
from ml.files import CANDIDATE
from ml.reference import as_request
from ml.tables import to_columns
from service.app import create_app
from service.predictor import Predictor
from service.settings import load_settings
from tests.ml.conftest import Workspace, people, workspace

__all__ = ["people", "workspace"]


def test_rows_through_http_get_the_pipelines_answers(
    workspace: Workspace, people: Callable[[int], pd.DataFrame]
) -> None:
    people(1000).to_csv("table.csv", index=False)
    workspace.params(data={"id": "id"}, encoding={"crosses": [["city", "city"]]})
    assert workspace.run() == [0] * 5
    bundle = load_bundle(CANDIDATE)
    test = pd.read_parquet(Path("data/processed/test.parquet"))
    columns = to_columns(test, bundle.schema)
    scores = bundle.scores(columns)
    rows = [
        {feature.name: as_request(columns[feature.name][row], feature) for feature in bundle.schema.features}
        for row in range(len(test))
    ]
    client = create_app(load_settings({}), Predictor.load(CANDIDATE)).test_client()
    response = client.post("/predict", data=json.dumps({"rows": rows}), content_type="application/json")
    assert response.status_code == 200
    answers = response.get_json()["predictions"]
    assert [answer["prediction"] for answer in answers] == list(bundle.decide(scores))
    assert [answer["probabilities"]["yes"] for answer in answers] == pytest.approx(list(scores[:, 1]), abs=0)
