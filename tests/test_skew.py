"""No training/serving skew: for test rows, the service gives the same predictions as the pipeline."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ml.bundle import load_bundle
from ml.files import CANDIDATE, TRAINED
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


TOWNS = ["Zürich", "Zu\u0308rich", " Zürich", "Bern", "Genève ", "n/a", ""]
LINEAR = {"name": "small", "estimators": {"linear": {"kind": "linear"}}}


def visits(rows: int) -> pd.DataFrame:
    """A table with what tables of the world have: codes, spellings, offsets, formats of times, large numbers."""
    rng = np.random.default_rng(4)
    noon = pd.Timestamp("2024-03-20T00:00") + pd.to_timedelta(rng.integers(0, 24 * 30, rows), unit="h")
    local = noon.tz_localize("Europe/Berlin", nonexistent="shift_forward", ambiguous=True)
    code, member = rng.integers(5, 9, rows), rng.random(rows) < 0.5
    odds = (code == 7) + member + (noon.hour > 12) + rng.normal(size=rows)
    return pd.DataFrame(
        {
            "code": code,
            "member": pd.Series(member, dtype=object).mask(rng.random(rows) < 0.1),
            "town": rng.choice(TOWNS, rows),
            "seen": [moment.isoformat() for moment in local],
            "booked": noon.strftime("%d.%m.%Y"),
            "stamp": 1_700_000_000 + rng.integers(0, 60, rows),
            "until": rng.choice(["9999-12-31", "2024-12-31", "1650-01-01"], rows),
            "amount": rng.choice([1.5, -999, 2.5], rows),
            "y": (odds > 1.5).astype(int),
        }
    )


def test_a_request_with_the_files_own_values_gets_the_pipelines_answers(workspace: Workspace) -> None:
    table = visits(400)
    table.to_csv("table.csv", index=False)
    features = {"code": {"type": "categorical"}, "stamp": {"format": "epoch_s"}, "amount": {"missing": [-999]}}
    data = {"timezone": "Europe/Berlin", "missing": ["n/a"], "features": features}
    workspace.params(data=data, split={"method": "random"}, model=LINEAR)
    assert workspace.run("data_ingestion", "data_preprocessing", "feature_engineering", "model_building") == [0] * 4
    bundle = load_bundle(TRAINED)
    assert {feature.name: (feature.type, feature.format) for feature in bundle.schema.features} == {
        "code": ("categorical", None), "member": ("boolean", None), "town": ("categorical", None),
        "seen": ("datetime", None), "booked": ("datetime", "%d.%m.%Y"), "stamp": ("datetime", "epoch_s"),
        "until": ("datetime", None), "amount": ("numeric", None),
    }  # fmt: skip
    assert bundle.schema.feature("town").categories == ("Zürich", "Bern", "Genève")
    scores = bundle.scores(to_columns(table, bundle.schema))
    client = create_app(load_settings({}), Predictor.load(TRAINED)).test_client()
    rows = json.loads(table.to_json(orient="records"))
    answers = client.post("/predict", json={"rows": [{k: v for k, v in row.items() if k != "y"} for row in rows]})
    assert answers.status_code == 200
    predictions = answers.get_json()["predictions"]
    assert [answer["probabilities"]["1"] for answer in predictions] == pytest.approx(list(scores[:, 1]), abs=0)
    assert {type(answer["prediction"]) for answer in predictions} == {int}
    assert {answer["prediction"] for answer in predictions} == {0, 1}
    assert {warning["code"] for answer in predictions for warning in answer["warnings"]} <= {"out_of_range"}
    # The same row as other clients write it, and as ISO 8601.
    first = next(row for row in rows if row["member"] and row["town"] == "Zürich")
    wall = pd.Timestamp(first["stamp"], unit="s", tz="Europe/Berlin").tz_localize(None).isoformat()
    other = first | {"code": str(first["code"]), "member": "True", "town": "Zu\u0308rich ", "stamp": wall}
    other["booked"] = "-".join(first["booked"].split(".")[::-1])
    both = client.post(
        "/predict", json={"rows": [{k: v for k, v in row.items() if k != "y"} for row in (first, other)]}
    )
    assert both.get_json()["predictions"][0] == both.get_json()["predictions"][1]
