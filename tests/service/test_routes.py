"""The HTTP routes: three protocols give the same predictions; every error is JSON that says what to do."""

import json
import logging
import re
from dataclasses import replace

import pytest

from service.predictor import Predictor
from tests.bundles import EXAMPLE
from tests.service.conftest import KINDS


def post(client, body: str | bytes, content_type: str = "application/json", path: str = "/predict"):
    return client.post(path, data=body, content_type=content_type)


def refused(response) -> tuple[int, str]:
    """Status and code of an error; also checks the structure of its body."""
    body = response.get_json()
    assert set(body) == {"error", "request_id"}
    assert set(body["error"]) == {"code", "message", "problems"}
    assert response.headers["X-Request-ID"] == body["request_id"]
    return response.status_code, body["error"]["code"]


def told(response) -> tuple[int, str]:
    """Status and text of an error, which the Open Inference Protocol, KServe and MLflow have in forms of their own."""
    body = response.get_json()
    assert set(body) in ({"error"}, {"error_code", "message"})
    return response.status_code, body.get("error") or body["message"]


def sample(client, name: str) -> float:
    """The value of a metric in /metrics; 0 if it isn't there."""
    for line in client.get("/metrics").text.splitlines():
        if line.startswith(name + " "):
            return float(line.rpartition(" ")[2])
    return 0.0


# --- predictions ---


@pytest.mark.parametrize("kind", KINDS)
def test_predict_answers_each_row_with_the_models_name_and_version(make_app, predictors, kind):
    response = make_app(predictors[kind]).test_client().post("/predict", json={"rows": [EXAMPLE, EXAMPLE]})
    assert response.status_code == 200
    body = response.get_json()
    assert body["model"] == {"name": f"small-{kind}", "version": predictors[kind].bundle.version}
    first, second = body["predictions"]
    assert first == second
    assert ("probabilities" in first) == (kind != "regression")


@pytest.mark.parametrize("kind", KINDS)
def test_all_protocols_give_the_same_answer_for_the_same_row(make_app, predictors, kind):
    client = make_app(predictors[kind]).test_client()
    row = EXAMPLE | {"visits": None, "amount": 333.0}
    own = client.post("/predict", json={"rows": [row]}).get_json()["predictions"][0]
    bodies = [
        {"dataframe_records": [row]},
        {"instances": [row]},
        {"inputs": {name: [value] for name, value in row.items()}},
        {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}},
    ]
    for body in bodies:
        (answer,) = client.post("/invocations", json=body).get_json()["predictions"]
        assert answer.pop("prediction") == own["prediction"]
        assert answer == {f"probability:{label}": p for label, p in own.get("probabilities", {}).items()}
    kinds = {"amount": "FP64", "visits": "FP32", "member": "BOOL"}
    tensors = [
        {"name": name, "shape": [1], "datatype": kinds.get(name, "BYTES"), "data": [value]}
        for name, value in row.items()
    ]
    answer = client.post(f"/v2/models/small-{kind}/infer", json={"id": "7", "inputs": tensors}).get_json()
    assert answer["id"] == "7"
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert outputs["prediction"] == [own["prediction"]]
    assert outputs.get("probabilities", []) == list(own.get("probabilities", {}).values())


@pytest.mark.parametrize(
    ("labels", "classes", "datatype", "kind"),
    [
        ("integer", ("0", "1"), "INT64", "integer"),
        ("number", ("0", "1"), "FP64", "number"),
        ("boolean", ("false", "true"), "BOOL", "boolean"),
        ("text", ("no", "yes"), "BYTES", "string"),
    ],
)
def test_labels_have_the_training_files_type_in_every_protocol(make_app, predictor, labels, classes, datatype, kind):
    bundle = predictor.bundle
    schema = bundle.schema.model_copy(update={"labels": labels, "classes": classes})
    client = make_app(Predictor(replace(bundle, parts=replace(bundle.parts, schema=schema)))).test_client()
    rows = [EXAMPLE | {"amount": amount} for amount in (10.0, 490.0)]
    own = client.post("/predict", json={"rows": rows}).get_json()["predictions"]
    wanted = list(schema.answers())
    assert [row["prediction"] for row in own] == wanted
    assert [type(row["prediction"]) for row in own] == [type(value) for value in wanted]
    assert all(tuple(row["probabilities"]) == classes for row in own)
    scored = client.post("/invocations", json={"dataframe_records": rows}).get_json()["predictions"]
    assert [(row["prediction"], type(row["prediction"])) for row in scored] == [(v, type(v)) for v in wanted]
    tensors = [
        {"name": "amount", "shape": [2], "datatype": "FP64", "data": [10.0, 490.0]},
        {"name": "shop", "shape": [2], "datatype": "BYTES", "data": ["north", "north"]},
        {"name": "member", "shape": [2], "datatype": "INT64", "data": [1, 1]},
    ]
    (output, _) = client.post("/v2/models/small-binary/infer", json={"inputs": tensors}).get_json()["outputs"]
    assert output["datatype"] == datatype
    assert all(type(value) is type(wanted[0]) for value in output["data"])
    assert client.get("/v2/models/small-binary").get_json()["outputs"][0]["datatype"] == datatype
    prediction = client.get("/openapi.json").get_json()["components"]["schemas"]["Predictions"]
    outcome = prediction["properties"]["predictions"]["items"]["properties"]["prediction"]
    assert outcome == {"type": kind, "enum": wanted}
    assert sample(client, f'atlas_predictions_total{{model_version="{bundle.version}",outcome="{classes[0]}"}}') > 0


def test_the_openapi_document_names_what_the_training_file_contained(make_app, predictor):
    bundle = predictor.bundle
    changes: dict[str, dict[str, object]] = {
        "shop": {"categories": ("5", "x"), "forms": ("number", "text"), "example": "5"},
        "bought": {"format": "epoch_s"},
        "seen": {"timezone": "Europe/Berlin", "utc": False},
    }
    features = tuple(feature.model_copy(update=changes.get(feature.name, {})) for feature in bundle.schema.features)
    schema = bundle.schema.model_copy(update={"features": features})
    parts = replace(bundle.parts, schema=schema, reference=bundle.parts.reference.model_copy(update={"sample": ()}))
    client = make_app(Predictor(replace(bundle, parts=parts))).test_client()
    properties = client.get("/openapi.json").get_json()["components"]["schemas"]["Row"]["properties"]
    assert (properties["shop"]["type"], properties["shop"]["enum"]) == (["string", "number"], ["5", "x", 5.0])
    assert properties["bought"]["type"] == ["string", "number", "null"]
    assert properties["bought"]["description"] == "a time without offset: ISO 8601, or epoch_s"
    assert properties["seen"]["description"] == "a time of Europe/Berlin: ISO 8601"


def test_a_row_without_values_is_warned_of(make_app, predictor):
    bundle = predictor.bundle
    features = tuple(feature.model_copy(update={"required": False}) for feature in bundle.schema.features)
    schema = bundle.schema.model_copy(update={"features": features})
    client = make_app(Predictor(replace(bundle, parts=replace(bundle.parts, schema=schema)))).test_client()
    (answer,) = client.post("/predict", json={"rows": [{}]}).get_json()["predictions"]
    assert answer["warnings"] == [
        {"field": None, "code": "empty_row", "message": "the row has no value for any feature"}
    ]


def test_a_bare_nan_is_missing_for_mlflow_and_v2_and_an_error_for_predict(client):
    text = json.dumps(EXAMPLE | {"visits": float("nan")})
    assert refused(post(client, f'{{"rows": [{text}]}}')) == (400, "not_json")
    assert post(client, f'{{"dataframe_records": [{text}]}}', path="/invocations").status_code == 200
    tensors = '{"name": "amount", "shape": [1], "datatype": "FP64", "data": [1]}, ' + (
        '{"name": "shop", "shape": [1], "datatype": "BYTES", "data": ["north"]}, '
        '{"name": "visits", "shape": [1], "datatype": "FP64", "data": [NaN]}'
    )
    assert post(client, f'{{"inputs": [{tensors}]}}', path="/v2/models/small-binary/infer").status_code == 200


def test_v2_describes_the_model_as_its_clients_expect(client, predictor):
    described = client.get("/v2/models/small-binary").get_json()
    assert described["versions"] == [predictor.bundle.version]
    assert {tensor["name"]: tensor["datatype"] for tensor in described["inputs"]} == {
        "amount": "FP64",
        "visits": "FP64",
        "colour": "BYTES",
        "shop": "BYTES",
        "bought": "BYTES",
        "seen": "BYTES",
        "member": "BOOL",
        "note": "BYTES",
    }
    assert client.get(f"/v2/models/small-binary/versions/{predictor.bundle.version}/ready").status_code == 200
    assert told(client.get("/v2/models/other")) == (404, "this service has the model small-binary")
    assert told(client.get("/v2/models/small-binary/versions/1"))[0] == 404


def test_warnings_come_with_the_answer(client):
    body = client.post("/predict", json={"rows": [EXAMPLE | {"amount": 900, "extra": 1}]}).get_json()
    assert [(w["field"], w["code"]) for w in body["predictions"][0]["warnings"]] == [
        ("extra", "unknown_field"),
        ("amount", "out_of_range"),
    ]


# --- refusals ---


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "not_json")),
        (b"{rows", (400, "not_json")),
        (b'{"rows": [{"note": "\xff"}]}', (400, "not_json")),
        (b'{"rows": [], "rows": []}', (400, "not_json")),
        (b'{"rows": [{"amount": 1, "amount": 2}]}', (400, "not_json")),
        (b'{"rows": [{"amount": -Infinity}]}', (400, "not_json")),
        (b"[" * 200_000, (400, "not_json")),
        (b'{"rows": ' + b"9" * 10_000 + b"}", (400, "not_json")),
        (b"null", (422, "no_rows")),
        (b"[]", (422, "no_rows")),
        (b'{"rows": []}', (422, "no_rows")),
        (b'{"rows": {}}', (422, "no_rows")),
        (b'{"rows": [{}], "more": 1}', (422, "no_rows")),
        (b'{"rows": [[1]]}', (422, "not_an_object")),
        (b'{"rows": [{"amount": 1e400}]}', (422, "invalid_rows")),
        (b'{"rows": [{"shop": "\\ud800"}]}', (422, "invalid_rows")),
    ],
)
def test_a_body_that_is_no_request_is_refused(client, body, expected):
    assert refused(post(client, body)) == expected
    assert client.post("/predict", json={"rows": [EXAMPLE]}).status_code == 200


def test_problems_name_row_and_field(client):
    response = client.post("/predict", json={"rows": [EXAMPLE, EXAMPLE | {"shop": None, "amount": "3"}]})
    assert refused(response) == (422, "invalid_rows")
    assert response.get_json()["error"]["problems"] == [
        {"row": 1, "field": "amount", "code": "wrong_type", "message": "must be a number, not a string"},
        {"row": 1, "field": "shop", "code": "missing", "message": "a value is required"},
    ]


def test_lone_surrogates_come_back_as_json(client):
    response = post(client, json.dumps({"rows": [EXAMPLE | {"\ud800": 1, "note": "\udfff", "colour": "\ud800"}]}))
    assert response.status_code == 200
    assert len(response.get_json()["predictions"][0]["warnings"]) == 2


def test_too_many_rows_are_refused(make_app):
    client = make_app(max_rows=3).test_client()
    assert client.post("/predict", json={"rows": [EXAMPLE] * 3}).status_code == 200
    assert refused(client.post("/predict", json={"rows": [EXAMPLE] * 4})) == (422, "too_many_rows")
    too_many = (422, "the request has 4 rows, but the limit is 3")
    assert told(client.post("/invocations", json={"inputs": {"amount": [1] * 4}})) == too_many
    tensor = {"name": "amount", "shape": [4], "datatype": "FP64", "data": [1] * 4}
    assert told(client.post("/v2/models/small-binary/infer", json={"inputs": [tensor]})) == too_many


def test_too_large_a_body_is_refused(make_app):
    client = make_app(max_body_bytes=1000).test_client()
    assert refused(post(client, b" " * 1001)) == (413, "body_too_large")


@pytest.mark.parametrize("content_type", ["text/plain", "", "multipart/form-data", "application/x-www-form-urlencoded"])
def test_anything_but_json_is_refused(client, content_type):
    assert refused(post(client, "{}", content_type)) == (415, "unsupported_media_type")


def test_a_wrong_method_names_the_right_ones(client):
    response = client.get("/predict")
    assert refused(response) == (405, "method_not_allowed")
    assert "POST" in response.headers["Allow"]


def test_an_unknown_route_is_json_too(client):
    assert refused(client.get("/nothing/here")) == (404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"instances": [], "inputs": {}},
        {"instances": 3},
        {"inputs": {"amount": [1], "shop": []}},
        {"inputs": {}},
        {"dataframe_split": {"columns": ["amount"], "data": [[1, 2]]}},
        {"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}},
        {"dataframe_split": {"columns": [1], "data": [[1]]}},
        {"dataframe_split": []},
    ],
)
def test_invocations_refuses_what_is_no_table(client, body):
    assert client.post("/invocations", json=body).status_code == 422


@pytest.mark.parametrize(
    "tensor",
    [
        {},
        {"name": "amount", "shape": [2], "datatype": "FP64", "data": [1]},
        {"name": "amount", "shape": [1], "datatype": "BYTES", "data": [1]},
        {"name": "amount", "shape": [1], "datatype": ["FP64"], "data": [1]},
        {"name": "amount", "shape": [1], "datatype": "FP64", "data": [[1]]},
        {"name": "amount", "shape": [1, 1], "datatype": "FP64", "data": [[1, 2]]},
        {"name": "amount", "shape": [1], "datatype": "FP64"},
        {"name": "other", "shape": [1], "datatype": "FP64", "data": [1]},
    ],
)
def test_v2_refuses_tensors_that_do_not_fit(client, tensor):
    response = client.post("/v2/models/small-binary/infer", json={"inputs": [tensor]})
    status, text = told(response)
    assert status == 422
    assert "inputs.0" in text or "inputs[0]" in text


def test_an_unexpected_error_shows_no_inside(make_app, predictor, monkeypatch, caplog):
    client = make_app().test_client()
    monkeypatch.setattr(type(predictor), "_answers", lambda *_: 1 / 0)
    response = client.post("/predict", json={"rows": [EXAMPLE]})
    assert refused(response) == (500, "internal_error")
    assert "ZeroDivision" not in response.text
    assert any(record.exc_info for record in caplog.records)


# --- health, metrics, logs, headers ---


def test_without_a_model_it_is_alive_but_not_ready(make_app):
    client = make_app(None).test_client()
    assert client.get("/health/live").status_code == 200
    for response in (
        client.get("/health/ready"),
        client.get("/openapi.json"),
        client.post("/predict", json={"rows": [EXAMPLE]}),
    ):
        assert refused(response) == (503, "not_ready")
    assert told(client.get("/v2/health/ready"))[0] == 503


def test_with_a_model_it_is_ready(client, predictor):
    assert client.get("/health/ready").get_json()["model"]["version"] == predictor.bundle.version


def test_metrics_count_answers_refusals_and_odd_values(client, predictor):
    rows = [EXAMPLE | {"amount": 900}, EXAMPLE | {"colour": "mauve"}, EXAMPLE | {"visits": None, "made-up": 1}]
    answers = client.post("/predict", json={"rows": rows}).get_json()["predictions"]
    client.post("/predict", json={"rows": [{"amount": 5}] * 150})
    for outcome in ("yes", "no"):
        expected = sum(answer["prediction"] == outcome for answer in answers)
        name = f'atlas_predictions_total{{model_version="{predictor.bundle.version}",outcome="{outcome}"}}'
        assert sample(client, name) == expected
    assert sample(client, 'atlas_input_out_of_range_total{feature="amount"}') == 1
    assert sample(client, 'atlas_input_unknown_category_total{feature="colour"}') == 1
    assert sample(client, 'atlas_input_missing_total{feature="visits"}') == 1
    assert sample(client, 'atlas_rows_rejected_total{reason="missing"}') == 150
    assert sample(client, f'atlas_model_info{{name="small-binary",version="{predictor.bundle.version}"}}') == 1
    assert sample(client, "atlas_model_trained_timestamp_seconds") == 1719788400
    assert "made-up" not in client.get("/metrics").text


def test_request_metrics_are_grouped_by_route_so_that_callers_cannot_make_new_series(client):
    client.get("/v2/models/small-binary")
    for number in range(5):
        client.get(f"/v2/models/{number}")
        client.get(f"/nothing/{number}")
        client.open("/predict", method=f"MADE{number}")
    metrics = client.get("/metrics").text
    assert 'url_rule="/v2/models/<name>"' in metrics
    assert "nothing" not in metrics
    assert "MADE" not in metrics


def test_metrics_ignore_filters(client):
    assert client.get("/metrics?name[]=x").status_code == 200


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-123.x:y_z", True), ("a b", False), ("x" * 129, False), ("<b>", False)]
)
def test_a_sane_request_id_is_kept_and_any_other_replaced(client, given, kept):
    answered = client.get("/health/live", headers={"X-Request-ID": given}).headers["X-Request-ID"]
    assert (answered == given) == kept
    assert answered


def test_the_log_has_a_line_per_request_and_no_input(client, caplog):
    caplog.set_level(logging.INFO, "service")
    client.post("/predict", json={"rows": [EXAMPLE | {"note": "private words"}]}, headers={"X-Request-ID": "mine"})
    (record,) = [record for record in caplog.records if record.message == "request"]
    assert {"method": "POST", "route": "/predict", "status": 200}.items() <= record.fields.items()
    assert "private" not in caplog.text


@pytest.mark.parametrize("path", ["/", "/docs", "/predict", "/health/live", "/nothing"])
def test_every_answer_carries_the_security_headers(client, path):
    headers = client.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"


# --- pages ---


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_has_an_input_per_feature_and_the_card(make_app, predictors, kind):
    page = make_app(predictors[kind]).test_client().get("/").text
    for name in EXAMPLE:
        assert f'name="{name}"' in page
    assert 'min="0.0" max="1000.0"' in page
    assert "2 set aside by the data contract" in page
    assert ("Confusion" in page) == (kind != "regression")
    assert ("Residuals" in page) == (kind == "regression")
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_docs_come_from_this_server_alone(client):
    page = client.get("/docs").text
    assert "//" not in page.replace("<!doctype html>", "")
    for asset in ("/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/static/docs.js"):
        assert asset in page
        response = client.get(asset)
        assert response.status_code == 200
        response.close()
    assert re.search(r'"/static/docs\.js\?v=[0-9a-f]{12}"', page)
    assert client.get("/docs/package.json").status_code == 404
