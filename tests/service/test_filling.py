"""A service with a feature store: in every protocol, what a request doesn't contain is looked up."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flask.testing import FlaskClient

from ml.bundle import read_parts, write_bundle
from ml.features.store import Batch, Progress, Row, SqliteStore
from ml.features.views import DAY, HOUR, SECOND, View, Views
from service.app import create_app
from service.filling import FillingPredictor
from service.predictor import Predictor
from service.settings import Settings

VIEWS = Views(
    time="bought",
    timezone="UTC",
    horizon=0,
    max_lag=365 * DAY,
    views=(
        View(name="shop", keys=("shop",), ttl=2 * HOUR, values=("visits", "colour"), features=("visits", "colour")),
        View(name="customer", keys=("customer",), ttl=None, values=("member",), features=("member",)),
        View(name="desk", keys=("desk",), ttl=None, values=("amount",), features=("amount",)),
    ),
)
BOUGHT = "2024-03-01T17:30:00"
AT = int(pd.Timestamp(BOUGHT, tz="UTC").timestamp()) * SECOND
SENT = {"amount": 120.5, "shop": "north", "bought": BOUGHT, "seen": "2024-03-02T08:00:00Z", "note": "late refund"}
ASKED = {**SENT, "customer": "Ann"}
WHOLE = {**SENT, "visits": 3.0, "colour": "green", "member": True}


@pytest.fixture(scope="module")
def bundle(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, parts = read_parts(bundles["binary"])
    path = tmp_path_factory.mktemp("filling") / "bundle"
    write_bundle(path, replace(parts, views=VIEWS))
    return path


@pytest.fixture
def client(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    store = SqliteStore(tmp_path / "features.db", VIEWS, write=True)
    rows: dict[str, list[tuple[tuple[Any, ...], Row]]] = {
        "shop": [(("north",), Row(AT - HOUR, [3.0, "green"]))],
        "customer": [(("Ann",), Row(0, [True]))],
        # What the schema refuses: at most 1000 may be paid.
        "desk": [(("broken",), Row(0, [5000.0])), (("right",), Row(0, [120.5]))],
    }
    store.write([Batch(view, -1, AT, made) for view, made in rows.items()], Progress(AT, 1, None), keep=DAY)
    app = create_app(
        Settings(feature_store=str(tmp_path / "features.db"), feature_store_timeout=10), Predictor.load(bundle)
    )
    yield app.test_client()
    predictor = app.extensions["atlas"].predictor
    assert isinstance(predictor, FillingPredictor)
    predictor.lookup.memory.close()


@pytest.fixture
def plain(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    """The same model without a store."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    return create_app(Settings(), Predictor.load(bundle)).test_client()


def predict(client: FlaskClient, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    response = client.post("/predict", json={"rows": rows})
    assert response.status_code == 200, response.text
    return list(response.get_json()["predictions"])


def test_the_answer_is_that_of_the_whole_row(client: FlaskClient, plain: FlaskClient) -> None:
    [found] = predict(client, ASKED)
    [expected] = predict(plain, WHOLE)
    assert "features" not in expected
    assert found.pop("features") == {
        "sent": ["amount", "shop", "bought", "seen", "note"],
        "looked_up": {
            "visits": {"value": 3.0, "age": 3600.0},
            "colour": {"value": "green", "age": 3600.0},
            "member": {"value": True, "age": None},
        },
        "missing": [],
        "trouble": None,
    }
    assert found == expected


def test_what_the_caller_sends_wins(client: FlaskClient, plain: FlaskClient) -> None:
    [found] = predict(client, {**ASKED, "visits": 0.0, "colour": None})
    assert list(found.pop("features")["looked_up"]) == ["colour", "member"]
    assert [found] == predict(plain, {**WHOLE, "visits": 0.0})


def test_many_rows_are_looked_up_each_for_itself(client: FlaskClient, plain: FlaskClient) -> None:
    other = {**SENT, "shop": "south", "customer": "Bob"}
    found = predict(client, ASKED, other, {**ASKED, "visits": 9.0})
    assert found[1].pop("features")["missing"] == ["visits", "colour", "member"]
    for answer in (found[0], found[2]):
        answer.pop("features")
    assert found == predict(plain, WHOLE, {**SENT, "shop": "south"}, {**WHOLE, "visits": 9.0})


def test_unusual_requests_are_filled_too(client: FlaskClient, plain: FlaskClient) -> None:
    """What the typed decoder doesn't take: another field, a number as text."""
    [found] = predict(client, {**ASKED, "hobby": "chess", "amount": 120.50000001})
    assert [warning["field"] for warning in found["warnings"]] == ["hobby"]  # the key `customer` is no unknown field
    assert found["features"]["looked_up"].keys() == {"visits", "colour", "member"}
    [expected] = predict(plain, {**WHOLE, "hobby": "chess", "amount": 120.50000001})
    assert found["probabilities"] == expected["probabilities"]


def test_a_looked_up_value_that_the_schema_refuses_is_missing(client: FlaskClient) -> None:
    without = {name: value for name, value in ASKED.items() if name != "amount"}
    [found] = predict(client, {**without, "desk": "right"})
    assert found["features"]["looked_up"]["amount"] == {"value": 120.5, "age": None}
    response = client.post("/predict", json={"rows": [ASKED, {**without, "desk": "broken"}]})
    assert response.status_code == 422  # `amount` is required, and nobody has it
    [problem] = response.get_json()["error"]["problems"]
    assert (problem["row"], problem["field"], problem["code"]) == (1, "amount", "missing")


def test_a_wrong_value_of_the_callers_is_still_refused(client: FlaskClient) -> None:
    response = client.post("/predict", json={"rows": [{**ASKED, "amount": 5000}]})
    assert response.get_json()["error"]["problems"][0]["code"] == "out_of_bounds"


def test_lines_are_filled(client: FlaskClient) -> None:
    body = b"\n".join(json.dumps(row).encode() for row in (ASKED, {**ASKED, "amount": -1}, ASKED))
    response = client.post("/predict/lines", data=body, content_type="application/x-ndjson")
    answers = [json.loads(line) for line in response.data.splitlines()]
    assert [answer.get("features", {}).get("missing") for answer in answers] == [[], None, []]
    assert answers[1]["error"]["problems"][0]["field"] == "amount"


def test_mlflows_and_kserves_tables_are_filled(client: FlaskClient, plain: FlaskClient) -> None:
    expected = plain.post("/invocations", json={"dataframe_records": [WHOLE]}).get_json()
    split = {"columns": list(ASKED), "data": [list(ASKED.values())]}
    for table in (
        {"dataframe_records": [ASKED]},
        {"dataframe_split": split},
        {"inputs": {k: [v] for k, v in ASKED.items()}},
    ):
        response = client.post("/invocations", json=table)
        assert response.get_json() == expected, response.text
    name = plain.get("/v2/models/stats").get_json()["model_stats"][0]["name"]
    assert client.post(f"/v1/models/{name}:predict", json={"instances": [ASKED]}).get_json() == expected
    text = pd.DataFrame([ASKED]).to_csv(index=False)
    assert client.post("/invocations", data=text, content_type="text/csv").get_json() == expected
    # A list without names has a value for each feature, and no keys.
    names = [tensor["name"] for tensor in plain.get(f"/v2/models/{name}").get_json()["inputs"]]
    listed = [[WHOLE.get(feature) for feature in names]]
    assert client.post("/invocations", json={"instances": listed}).get_json() == expected


def test_tensors_are_filled(client: FlaskClient, plain: FlaskClient) -> None:
    name = plain.get("/v2/models/stats").get_json()["model_stats"][0]["name"]
    described = client.get(f"/v2/models/{name}").get_json()["inputs"]
    assert {"customer", "desk"} == {t["name"] for t in described} - {
        t["name"] for t in plain.get(f"/v2/models/{name}").get_json()["inputs"]
    }

    def tensors(row: dict[str, Any], count: int) -> dict[str, Any]:
        kinds = {float: "FP64", bool: "BOOL", str: "BYTES"}
        return {
            "inputs": [
                {"name": name, "shape": [count], "datatype": kinds[type(value)], "data": [value] * count}
                for name, value in row.items()
            ]
        }

    for count in (1, 3):
        found = client.post(f"/v2/models/{name}/infer", json=tensors(ASKED, count)).get_json()
        expected = plain.post(f"/v2/models/{name}/infer", json=tensors(WHOLE, count)).get_json()
        assert found["outputs"] == expected["outputs"]


def test_explanations_are_of_the_whole_row(client: FlaskClient, plain: FlaskClient) -> None:
    found = client.post("/explain", json={"rows": [ASKED]}).get_json()["explanations"][0]
    expected = plain.post("/explain", json={"rows": [WHOLE]}).get_json()["explanations"][0]
    for number in ("base", "value"):
        assert np.isclose(found[number], expected[number])
    assert found["contributions"].keys() == expected["contributions"].keys()


def test_the_example_is_what_a_caller_sends_now(client: FlaskClient, plain: FlaskClient) -> None:
    document = client.get("/openapi.json").get_json()
    [row] = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]["rows"]
    assert row.keys() == {"amount", "shop", "bought"}  # what is required, and the time
    assert row["bought"] == "2024-03-01T17:35"  # the materialiser has written nothing since half past five
    features = predict(client, row)[0]["features"]
    assert features["trouble"] is None
    assert features["looked_up"].keys() == {"visits", "colour"}
    assert "note" in plain.get("/openapi.json").text


def test_a_time_that_is_no_feature_is_a_key(bundle: Path, tmp_path: Path) -> None:
    """Training can leave the column with the time out; the views need it all the same, and a worker must start."""
    _, parts = read_parts(bundle)
    assert parts.views is not None
    views = parts.views.model_copy(update={"time": "ordered"})
    write_bundle(tmp_path / "bundle", replace(parts, views=views))
    store = SqliteStore(tmp_path / "features.db", views, write=True)
    store.write(
        [Batch("shop", -1, AT, [(("north",), Row(AT - HOUR, [3.0, "green"]))])], Progress(AT, 1, None), keep=DAY
    )
    settings = Settings(feature_store=str(tmp_path / "features.db"), feature_store_timeout=10)
    app = create_app(settings, Predictor.load(tmp_path / "bundle"))
    [found] = predict(app.test_client(), {**SENT, "ordered": BOUGHT})
    assert found["features"]["looked_up"]["visits"] == {"value": 3.0, "age": 3600.0}
    assert [warning["field"] for warning in found["warnings"]] == []
    app.extensions["atlas"].predictor.lookup.memory.close()


def test_metrics_count_where_values_come_from(client: FlaskClient) -> None:
    predict(client, ASKED, {**SENT, "shop": "south"})
    text = client.get("/metrics").text
    assert 'atlas_features_total{origin="sent"} 10.0' in text
    assert 'atlas_features_total{origin="looked_up"} 3.0' in text
    assert 'atlas_features_total{origin="missing"} 3.0' in text


def test_the_document_describes_keys_and_origins(client: FlaskClient, plain: FlaskClient) -> None:
    schemas = client.get("/openapi.json").get_json()["components"]["schemas"]
    assert (
        schemas["Row"]["properties"]["customer"]["description"]
        == "names what features are looked up for; no feature itself"
    )
    assert len(schemas["RowValues"]["prefixItems"]) == 8
    assert "customer" not in plain.get("/openapi.json").get_json()["components"]["schemas"]["Row"]["properties"]


def test_without_a_store_the_model_serves_as_before(plain: FlaskClient) -> None:
    [found] = predict(plain, ASKED)
    assert found["warnings"][0]["field"] == "customer"
    assert "features" not in found


def test_a_store_that_cant_be_read_costs_no_prediction(bundle: Path, tmp_path: Path, plain: FlaskClient) -> None:
    app = create_app(Settings(feature_store=str(tmp_path / "nothing.db")), Predictor.load(bundle))
    [found] = predict(app.test_client(), ASKED)
    assert found["features"]["trouble"] == "down"
    assert found["probabilities"] == predict(plain, SENT)[0]["probabilities"]
    assert 'atlas_feature_lookups_failed_total{reason="down"} 1.0' in app.test_client().get("/metrics").text
    app.extensions["atlas"].predictor.lookup.memory.close()
