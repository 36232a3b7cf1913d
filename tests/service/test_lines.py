"""A row a line gives an answer a line, the same as from /predict; a bad line gives an error, and the others answers."""

import json
from collections.abc import Callable
from typing import Any

import flask
import pytest
from flask.testing import FlaskClient

from service.predictor import Answers, Predictor
from tests.bundles import EXAMPLE

TYPE = "application/x-ndjson"


def ask(client: FlaskClient, *lines: str) -> list[dict[str, Any]]:
    answer = client.post("/predict/lines", data="\n".join(lines).encode(), content_type=TYPE)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == TYPE
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("limit", [2, 1000])
def test_each_line_gets_the_answer_of_predict_or_its_error(make_app: Callable[..., flask.Flask], limit: int) -> None:
    client = make_app(max_rows=limit).test_client()
    rows = [EXAMPLE | {"amount": amount} for amount in (5.0, 900.0, 250.0, 7.5)]
    bad = json.dumps(EXAMPLE | {"amount": "much", "shop": None})
    lines = [json.dumps(rows[0]), "", bad, "{", json.dumps(rows[1]), "3", '{"amount": NaN}', '{"a": 1, "a": 2}']
    found = ask(client, *lines, json.dumps(rows[2], ensure_ascii=False), json.dumps(rows[3]) + "\r", "")
    assert [line.pop("line") for line in found] == [1, 3, 4, 5, 6, 7, 8, 9, 10]
    whole = make_app().test_client().post("/predict", json={"rows": rows}).get_json()["predictions"]
    assert [line for line in found if "prediction" in line] == whole
    errors = [line["error"] for line in found if "error" in line]
    assert [error["code"] for error in errors] == [
        "invalid_rows", "not_json", "not_an_object", "not_json", "not_json",
    ]  # fmt: skip
    assert [(p["field"], p["code"]) for p in errors[0]["problems"]] == [("amount", "wrong_type"), ("shop", "missing")]
    metrics = client.get("/metrics").text
    assert 'atlas_rows_rejected_total{reason="wrong_type"} 1.0' in metrics
    assert (
        sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("atlas_predictions_total")) == 4
    )


def test_hundreds_of_bad_lines_are_all_told_and_cost_no_more_than_good_ones(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    predict = Predictor.predict

    def counted(self: Predictor, rows: list[Any]) -> Answers:
        asked.append(len(rows))
        return predict(self, rows)

    monkeypatch.setattr(Predictor, "predict", counted)
    found = ask(client, *[json.dumps({"amount": "x"})] * 900, json.dumps(EXAMPLE))
    assert ["error" in line for line in found] == [True] * 900 + [False]
    assert asked == [901, 1]
    metrics = client.get("/metrics").text
    assert 'atlas_rows_rejected_total{reason="wrong_type"} 900.0' in metrics
    assert 'atlas_rows_rejected_total{reason="missing"} 900.0' in metrics


def test_answers_are_made_as_they_are_taken(make_app: Callable[..., flask.Flask]) -> None:
    client = make_app(max_rows=10).test_client()
    data = "\n".join([json.dumps(EXAMPLE)] * 35)
    answer = client.post("/predict/lines", data=data, content_type=TYPE, buffered=False)
    parts = [part for part in answer.response if part]
    assert [len(part.splitlines()) for part in parts] == [10, 10, 10, 5]


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"{}", "application/json", 415, "unsupported_media_type"),
        (b"\n \n", TYPE, 422, "no_rows"),
        (b" " * 3000, TYPE, 413, "body_too_large"),
    ],
)
def test_what_is_no_such_document_is_refused_as_a_whole(
    make_app: Callable[..., flask.Flask], body: bytes, kind: str, status: int, code: str
) -> None:
    answer = make_app(max_body_bytes=2000).test_client().post("/predict/lines", data=body, content_type=kind)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (status, code)


def test_without_a_model_it_is_not_ready(make_app: Callable[..., flask.Flask]) -> None:
    assert make_app(None).test_client().post("/predict/lines", data=b"{}", content_type=TYPE).status_code == 503
