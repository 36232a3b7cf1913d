"""A table with views of its own, declared in params.yaml: training, feature store and service agree bit by bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml import materialize
from ml.bundle import load_bundle
from ml.files import CANDIDATE
from ml.reference import as_request
from ml.tables import to_columns
from service.app import create_app
from service.predictor import Predictor
from service.settings import load_settings
from tests.ml.conftest import STAGES, Workspace, workspace

__all__ = ["workspace"]

ROWS, ZONE = 900, "Europe/Berlin"
DATA: dict[str, Any] = {
    "id": "ride",
    "time": "start",
    "timezone": ZONE,
    "horizon": "1h",
    "exclude": ["customer"],
    "views": {
        "weather": {
            "uri": "weather.csv",
            "keys": ["city"],
            "timestamp": "observed",
            "ttl": "6h",
            "features": ["temperature", "rain", "sky"],
        },
        "customers": {
            "uri": "customers.parquet",
            "keys": ["customer", "member", "day"],
            "timestamp": "since",
            "features": ["orders", "birthday"],
        },
    },
}


def make_files() -> None:
    """A table of rides, the weather in their cities, and what is known of customers by number, flag and day."""
    rng = np.random.default_rng(5)
    start = pd.Timestamp("2024-03-20") + pd.to_timedelta(rng.integers(0, 60 * 24 * 20, ROWS), unit="min")
    table = pd.DataFrame(
        {
            "ride": np.arange(ROWS),
            "start": start,
            "city": rng.choice(["Zürich", " Bern", "Genève"], ROWS),
            "customer": rng.integers(1, 20, ROWS).astype(float),
            "member": rng.random(ROWS) < 0.5,
            "day": start.strftime("%Y-%m-%d"),
        }
    )
    table.loc[rng.random(ROWS) < 0.05, "customer"] = np.nan
    observed = pd.date_range("2024-03-19 20:10", "2024-04-10", freq="3h")
    weather = pd.concat(
        [
            pd.DataFrame(
                {
                    "city": city,
                    # Times with an offset, which is another one than the table's.
                    "observed": [f"{each:%Y-%m-%dT%H:%M}+00:00" for each in observed],
                    "temperature": rng.normal(10, 8, len(observed)),
                    "rain": rng.choice(["True", "False", ""], len(observed)),
                    "sky": rng.choice(["clear", "clouds"], len(observed)),
                }
            )
            for city in ("Zu\u0308rich", "Bern")
        ]
    )
    weather.to_csv("weather.csv", index=False)
    days = pd.date_range("2024-03-20", "2024-04-09")
    customers = pd.MultiIndex.from_product([range(1, 15), [True, False], days], names=["customer", "member", "day"])
    made = customers.to_frame(index=False)
    made["since"] = made["day"] - pd.to_timedelta(rng.integers(0, 40, len(made)), unit="h")
    made["orders"] = rng.integers(0, 9, len(made)).astype(np.int32)
    made["birthday"] = pd.Timestamp("1980-01-01") + pd.to_timedelta(rng.integers(0, 9000, len(made)), unit="D")
    made.to_parquet("customers.parquet")
    lookup = dict(zip(zip(made["customer"], made["member"], made["day"].dt.strftime("%Y-%m-%d"), strict=True), made["orders"], strict=True))  # fmt: skip  # noqa: E501
    orders = [lookup.get(key, 4) for key in zip(table["customer"], table["member"], table["day"], strict=True)]
    table["y"] = np.where(np.array(orders) + rng.normal(0, 2, ROWS) > 4, "yes", "no")
    table.to_csv("table.csv", index=False)


@pytest.fixture
def trained(workspace: Workspace) -> Workspace:
    make_files()
    workspace.params(data=DATA)
    assert workspace.run("view_ingestion", *STAGES) == [0] * 6
    return workspace


def test_requests_with_keys_alone_get_the_pipelines_answers(trained: Workspace) -> None:
    bundle = load_bundle(CANDIDATE)
    views = bundle.parts.views
    assert views is not None
    test = pd.read_parquet(Path("data/processed/test.parquet"))
    columns = to_columns(test, bundle.schema)
    assert {feature.name: feature.type for feature in bundle.schema.features} == {
        "start": "datetime", "city": "categorical", "member": "boolean", "day": "datetime", "temperature": "numeric",
        "rain": "boolean", "sky": "categorical", "orders": "numeric", "birthday": "datetime",
    }  # fmt: skip
    for name in ("temperature", "orders"):
        assert 0.1 < np.isnan(columns[name]).mean() < 0.9, name
    # The rows of 2024 have expired by the wall clock; they are kept for these requests.
    assert materialize.main(["--store", "features.db", "--keep", "100000"]) == 0
    looked_up = {name for view in views.views for name in view.features}
    customers = pd.read_csv("table.csv")["customer"].loc[test["ride"]].to_numpy()
    rows = [
        {
            feature.name: as_request(columns[feature.name][row], feature)
            for feature in bundle.schema.features
            if feature.name not in looked_up
        }
        | {"customer": None if np.isnan(customers[row]) else customers[row]}
        for row in range(len(test))
    ]
    app = create_app(
        load_settings({"FEATURE_STORE": "features.db", "FEATURE_STORE_TIMEOUT": "10"}), Predictor.load(CANDIDATE)
    )
    response = app.test_client().post("/predict", data=json.dumps({"rows": rows}), content_type="application/json")
    assert response.status_code == 200, response.text
    answers = response.get_json()["predictions"]
    scores = bundle.scores(columns)
    assert [answer["probabilities"]["yes"] for answer in answers] == pytest.approx(list(scores[:, 1]), abs=0)
    assert {answer["features"]["trouble"] for answer in answers} == {None}
