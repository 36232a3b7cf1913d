"""Tables in the forms of MLflow and of KServe's first protocol: each form of the same rows gets the same answer."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from service.predictor import Predictor
from tests.bundles import EXAMPLE

ROWS = [EXAMPLE, EXAMPLE | {"amount": 490.0, "visits": None, "colour": None, "member": False}]
LISTS = [list(row.values()) for row in ROWS]
COLUMNS = {name: [row[name] for row in ROWS] for name in EXAMPLE}
HEADER = ",".join(EXAMPLE)
CSV = f"{HEADER}\r\n" + "".join(
    ",".join("" if value is None else str(value) for value in row.values()) + "\r\n" for row in ROWS
)


def expected(predictor: Predictor, rows: list[dict[str, Any]] = ROWS) -> list[dict[str, Any]]:
    return [
        {"prediction": answer.prediction}
        | {f"probability:{label}": p for label, p in (answer.probabilities or {}).items()}
        for answer in predictor.predict(rows).answers
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": ROWS},
        {"dataframe_split": {"columns": list(EXAMPLE), "data": LISTS}},
        {"dataframe_split": {"columns": list(EXAMPLE), "data": LISTS, "index": [7, 9]}},
        {"dataframe_split": {"data": LISTS}},
        {"instances": ROWS},
        {"instances": LISTS},
        {"instances": COLUMNS},
        {"inputs": ROWS},
        {"inputs": LISTS},
        {"inputs": COLUMNS},
        {"dataframe_records": ROWS, "params": {"unknown": 1}},
    ],
)
def test_every_form_of_a_table_gets_the_same_answer(client, predictor, body):
    assert client.post("/invocations", json=body).get_json() == {"predictions": expected(predictor)}


def test_a_single_row_may_be_an_object(client, predictor):
    assert client.post("/invocations", json={"inputs": EXAMPLE}).get_json()["predictions"] == expected(predictor)[:1]


def csv(client: FlaskClient, text: str | bytes) -> Any:
    return client.post("/invocations", data=text, content_type="text/csv")


@pytest.mark.parametrize(
    "text",
    [
        CSV,
        CSV.replace("\r\n", "\n").strip(),
        "\ufeff" + CSV,
        CSV.replace("red", '"red"') + "\r\n",
        "\n".join(f"{'' if n == 0 else n - 1},{line}" for n, line in enumerate(CSV.splitlines())),  # pandas's index
    ],
)
def test_csv_gets_the_same_answer_as_json(client, predictor, text):
    assert csv(client, text).get_json() == {"predictions": expected(predictor)}


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("", 400, "the first line must be a header"),
        ("amount,amount\n1,2\n", 400, "the first line must be a header of distinct names"),
        ("amount,shop\n1,north\n2\n", 400, "line 3 has 1 values, but the header has 2"),
        ("amount,shop\n1,north,3\n", 400, "line 2 has 3 values"),
        ('amount,shop\n1,"north\n', 400, "the body is not CSV"),
        (b"amount,shop\n1,\xff\n", 400, "the body is not CSV in UTF-8"),
        ("amount,shop\n", 422, "send at least one row"),
        ("amount,shop\nabc,north\n", 422, "row 0, amount: must be a number"),
        ("amount,shop\n1,\n", 422, "row 0, shop: a value is required"),
    ],
)
def test_csv_that_is_no_table_is_refused_in_mlflows_form(client, text, status, said):
    response = csv(client, text)
    assert response.status_code == status
    body = response.get_json()
    assert set(body) == {"error_code", "message"}
    assert body["error_code"] == ("BAD_REQUEST" if status == 400 else "INVALID_PARAMETER_VALUE")
    assert said in body["message"]


@pytest.mark.parametrize("path", ["/ping", "/health"])
def test_mlflows_health_checks_answer(make_app, path):
    assert make_app().test_client().get(path).status_code == 200
    assert make_app(None).test_client().get(path).status_code == 503


# --- KServe's first protocol ---


@pytest.mark.parametrize("rows", [ROWS, LISTS])
def test_kserves_first_protocol_predicts(client, predictor, rows):
    response = client.post("/v1/models/small-binary:predict", json={"instances": rows})
    assert response.get_json() == {"predictions": expected(predictor)}
    assert client.get("/v1/models").get_json() == {"models": ["small-binary"]}
    assert client.get("/v1/models/small-binary").get_json() == {"name": "small-binary", "ready": True}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/models/other:predict", {"instances": ROWS}, 404),
        ("/v1/models/small-binary:predict", {"instances": []}, 422),
        ("/v1/models/small-binary:predict", {"instances": [3]}, 422),
        ("/v1/models/small-binary:predict", {"instances": [[3]]}, 422),
        ("/v1/models/small-binary:predict", {}, 422),
        ("/v1/models/small-binary:explain", {"instances": ROWS}, 405),
    ],
)
def test_kserves_first_protocol_says_what_is_wrong(client, path, body, status):
    response = client.post(path, json=body)
    assert response.status_code == status
    assert list(response.get_json()) == ["error"]
    assert isinstance(response.get_json()["error"], str)


def test_a_bare_nan_is_missing_in_kserves_first_protocol(client):
    body = json.dumps({"instances": [EXAMPLE | {"visits": float("nan")}]})
    response = client.post("/v1/models/small-binary:predict", data=body, content_type="application/json")
    assert response.status_code == 200
