"""Who has no valid key gets no answer but an error, in the form of the protocol; who has one gets the usual answer."""

import json
import logging
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import flask
import pytest
from flask.testing import FlaskClient

from service.access.guard import OPEN
from service.access.keys import new_token
from service.logs import JsonFormatter
from tests.bundles import EXAMPLE
from tests.service.keyring import KeyRing, bearer

ROWS = {"rows": [EXAMPLE]}
NAME = "binary"


def requests(name: str) -> dict[str, tuple[str, str, Any]]:
    """A valid request to every route that predicts, explains, or tells of the model."""
    instances = {"instances": [EXAMPLE]}
    return {
        "predict": ("POST", "/predict", ROWS),
        "explain": ("POST", "/explain", ROWS),
        "invocations": ("POST", "/invocations", instances),
        "version": ("GET", "/version", None),
        "v1": ("POST", f"/v1/models/{name}:predict", instances),
        "v1 model": ("GET", f"/v1/models/{name}", None),
        "v1 models": ("GET", "/v1/models", None),
        "v2 server": ("GET", "/v2", None),
        "v2 model": ("GET", f"/v2/models/{name}", None),
        "v2 stats": ("GET", "/v2/models/stats", None),
        "openapi": ("GET", "/openapi.json", None),
        "metrics": ("GET", "/metrics", None),
    }


@pytest.fixture
def name(guarded: FlaskClient) -> str:
    return str(guarded.get("/health/ready").json["model"]["name"])  # type: ignore[index]


@pytest.mark.parametrize("kind", requests("NAME"))
def test_a_route_needs_a_key(guarded: FlaskClient, ring: KeyRing, name: str, kind: str) -> None:
    token = ring.add("shop")
    method, path, document = requests(name)[kind]
    for headers in ({}, bearer(new_token()), {"X-API-Key": "x"}):
        refused = guarded.open(path, method=method, json=document, headers=headers)
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"].startswith('Bearer realm="atlas"')
        assert name not in refused.text
        assert "prediction" not in refused.text
    for headers in (bearer(token), {"X-API-Key": token}, {"Authorization": f"bearer  {token}"}):
        assert guarded.open(path, method=method, json=document, headers=headers).status_code == 200


@pytest.mark.parametrize("path", sorted(OPEN))
def test_probes_need_none(guarded: FlaskClient, path: str) -> None:
    assert guarded.get(path).status_code == 200


def test_errors_have_the_form_of_the_protocol(guarded: FlaskClient, name: str) -> None:
    own = guarded.post("/predict", json=ROWS).json
    assert own["error"]["code"] == "unauthorized"  # type: ignore[index]
    assert own["request_id"]  # type: ignore[index]
    mlflow = guarded.post("/invocations", json={}).json
    assert mlflow["error_code"] == "UNAUTHENTICATED"  # type: ignore[index]
    for path in (f"/v1/models/{name}:predict", f"/v2/models/{name}/infer"):
        answer = guarded.post(path, json={}).json
        assert answer.keys() == {"error"}  # type: ignore[union-attr]
        assert isinstance(answer["error"], str)  # type: ignore[index]


GOOD = "GOOD"
ATTEMPTS: dict[str, dict[str, str]] = {
    "nothing": {},
    "an empty header": {"Authorization": ""},
    "a scheme alone": {"Authorization": "Bearer"},
    "an empty key": {"Authorization": "Bearer "},
    "an empty key of the other header": {"X-API-Key": ""},
    "Basic": {"Authorization": f"Basic {GOOD}"},
    "another scheme": {"Authorization": f"Token {GOOD}"},
    "no scheme": {"Authorization": GOOD},
    "no space": {"Authorization": f"Bearer{GOOD}"},
    "two keys": {"Authorization": f"Bearer {GOOD} {GOOD}"},
    "the header twice": {"Authorization": f"Bearer {GOOD},Bearer {GOOD}"},
    "the other header twice": {"X-API-Key": f"{GOOD},{GOOD}"},
    "different keys": {"Authorization": f"Bearer {GOOD}", "X-API-Key": "atlas_" + "a" * 43},
    "a key and an empty one": {"Authorization": f"Bearer {GOOD}", "X-API-Key": ""},
    "a megabyte": {"Authorization": "Bearer " + "a" * 1_000_000},
    "a megabyte in the right form": {"X-API-Key": "atlas_" + "a" * 1_000_000},
    "another alphabet": {"Authorization": "Bearer \xfcmlaut"},
    "a longer key": {"Authorization": f"Bearer {GOOD}x"},
    "a line": {"Authorization": f"Bearer {GOOD}\x0b"},
    "a zero": {"Authorization": f"Bearer {GOOD}\x00"},
    "upper case": {"Authorization": f"Bearer {GOOD.upper()}", "X-Upper": "1"},
    "a cookie": {"Cookie": f"Authorization=Bearer {GOOD}; X-API-Key={GOOD}"},
    "a proxy's header": {"Proxy-Authorization": f"Bearer {GOOD}"},
}


def test_what_is_no_key_lets_nobody_in(guarded: FlaskClient, ring: KeyRing) -> None:
    token = ring.add("shop")
    for attempt, headers in ATTEMPTS.items():
        sent = token.upper() if "X-Upper" in headers else token
        environ = {
            "HTTP_" + header.upper().replace("-", "_"): value.replace(GOOD, sent) for header, value in headers.items()
        }
        refused = guarded.post("/predict", json=ROWS, environ_overrides=environ)
        assert refused.status_code == 401, attempt
        assert token not in refused.text


@pytest.mark.parametrize("query", ["api_key=KEY", "a=1&token=KEY", "KEY"])
def test_a_key_in_the_address_is_refused_even_beside_a_good_one(
    guarded: FlaskClient, ring: KeyRing, query: str
) -> None:
    token = ring.add("shop")
    address = f"/predict?{query.replace('KEY', token)}"
    assert guarded.post(address, json=ROWS).status_code == 400
    refused = guarded.post(address, json=ROWS, headers=bearer(token))
    assert (refused.status_code, refused.json["error"]["code"]) == (400, "key_in_address")  # type: ignore[index]
    assert token not in refused.text


PATHS = [
    "//predict", "/predict/", "/PREDICT", "/Predict", "/predict%2F", "/%70redict", "/predict;x", "/./predict",
    "/health/ready/../../predict", "/health/ready%00", "/health/ready/", "//health/ready", "/HEALTH/READY",
    "/health/../predict", "/static/../predict", "/static/..%2fpredict", "/ping/predict", "/v2/health/ready/x",
    "/nothing", "/v2/health%2Fready%2F..%2F..",
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "BREW"])
def test_no_spelling_of_a_path_and_no_method_leads_around_it(guarded: FlaskClient, method: str) -> None:
    for path in PATHS:
        # Not as an address: the test's client would take //predict for a host.
        environ = {"PATH_INFO": unquote(path)}
        assert guarded.open("/", method=method, environ_overrides=environ).status_code == 401, path


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "GET", "POST", "PUT", "BREW"])
def test_methods_of_a_known_path_need_a_key_too(guarded: FlaskClient, method: str) -> None:
    refused = guarded.open("/predict", method=method)
    assert refused.status_code == 401
    assert "Allow" not in refused.headers


def test_an_encoded_slash_of_a_probe_asks_the_probe(guarded: FlaskClient) -> None:
    """The guard and Flask read the same decoded path, so they can't mean different routes."""
    assert guarded.get("/health%2Fready").json["status"] == "ready"  # type: ignore[index]


def test_a_new_key_counts_at_once_and_a_removed_one_no_more(guarded: FlaskClient, ring: KeyRing) -> None:
    old, new = ring.add("shop"), ring.add("shop")
    for token in (old, new):
        assert guarded.post("/predict", json=ROWS, headers=bearer(token)).status_code == 200
    ring.entries = ring.entries[1:]
    ring.write()
    assert guarded.post("/predict", json=ROWS, headers=bearer(old)).status_code == 401
    assert guarded.post("/predict", json=ROWS, headers=bearer(new)).status_code == 200


def test_an_expired_key_is_refused_by_name(guarded: FlaskClient, ring: KeyRing) -> None:
    late = ring.add("late", expires="2020-01-01T00:00:00Z")
    good = ring.add("good", expires="2999-01-01T00:00:00+01:00")
    refused = guarded.post("/predict", json=ROWS, headers=bearer(late))
    assert refused.status_code == 401
    assert "expired" in refused.headers["WWW-Authenticate"]
    assert guarded.post("/predict", json=ROWS, headers=bearer(good)).status_code == 200
    page = guarded.get("/metrics", headers=bearer(good)).text
    assert 'atlas_api_key_requests_total{key="late",outcome="expired"} 1.0' in page
    assert 'atlas_requests_refused_total{reason="expired_key"} 1.0' in page


def test_more_than_the_limit_is_a_429_for_that_key_alone(guarded: FlaskClient, ring: KeyRing) -> None:
    slow, other = ring.add("slow", per_second=0.01, burst=2), ring.add("other")
    answers = [guarded.post("/predict", json=ROWS, headers=bearer(slow)) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert 90 <= int(answers[2].headers["Retry-After"]) <= 100
    assert "WWW-Authenticate" not in answers[2].headers
    assert answers[2].json["error"]["code"] == "too_many_requests"  # type: ignore[index]
    assert guarded.post("/predict", json=ROWS, headers=bearer(other)).status_code == 200
    page = guarded.get("/metrics", headers=bearer(other)).text
    assert 'atlas_api_key_requests_total{key="slow",outcome="limited"} 2.0' in page
    assert 'atlas_api_key_requests_total{key="slow",outcome="admitted"} 2.0' in page
    assert 'atlas_requests_refused_total{reason="rate_limit"} 2.0' in page
    mlflow = guarded.post("/invocations", json={}, headers=bearer(slow))
    assert (mlflow.status_code, mlflow.json["error_code"]) == (429, "REQUEST_LIMIT_EXCEEDED")  # type: ignore[index]


def test_the_usual_limit_is_for_keys_without_their_own(
    make_app: Callable[..., flask.Flask], ring: KeyRing, every_look: None
) -> None:
    client = make_app(api_keys_file=ring.path, api_key_per_second=0.001).test_client()
    usual, own = ring.add("usual"), ring.add("own", per_second=0.001, burst=3)
    statuses = [[client.get("/version", headers=bearer(token)).status_code for _ in range(4)] for token in (usual, own)]
    assert statuses == [[200, 429, 429, 429], [200, 200, 200, 429]]


def test_two_keys_of_a_name_share_its_limit(guarded: FlaskClient, ring: KeyRing) -> None:
    """Otherwise a rotation would double it."""
    old, new = (ring.add("shop", per_second=0.001, burst=2) for _ in range(2))
    statuses = [guarded.get("/version", headers=bearer(token)).status_code for token in (old, new, old)]
    assert statuses == [200, 200, 429]


def test_logs_have_the_name_and_the_address_but_never_the_key(
    guarded: FlaskClient, ring: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token, late = ring.add("shop"), ring.add("late", expires="2020-01-01T00:00:00Z")
    unknown = new_token()
    asked = [bearer(token), {"X-API-Key": token}, bearer(late), bearer(unknown), {"Authorization": f"Basic {token}"}]
    for headers in asked:
        guarded.post("/predict", json=ROWS, headers=headers)
    guarded.post(f"/predict?key={token}", json=ROWS)
    guarded.get(f"/{token}")
    guarded.post("/predict", data=b"{", content_type="application/json", headers=bearer(token))
    lines = [JsonFormatter().format(record) for record in caplog.records]
    found = [json.loads(line) for line in lines if json.loads(line)["message"] == "request"]
    assert [line.get("key") for line in found] == ["shop", "shop", "late", None, None, None, None, "shop"]
    assert [line["status"] for line in found] == [200, 200, 401, 401, 401, 400, 401, 400]
    assert {line["client"] for line in found} == {"127.0.0.1"}
    assert [line["route"] for line in found] == ["/predict"] * 6 + [None, "/predict"]
    everything = "\n".join(lines) + guarded.get("/metrics", headers=bearer(token)).text
    for secret in (token, late, unknown):
        assert secret not in everything
        assert secret[6:] not in everything


def test_invented_methods_and_paths_make_no_series(guarded: FlaskClient, ring: KeyRing) -> None:
    token = ring.add("shop")
    for number in range(20):
        guarded.open(f"/{number}", method="GET")
        guarded.open("/predict", method=f"BREW{number}")
    page = guarded.get("/metrics", headers=bearer(token)).text
    assert "BREW" not in page
    assert set(re.findall(r'http_request_duration_seconds_count\{.*url_rule="([^"]*)"', page)) == {"None"}


def test_without_keys_nothing_stands_in_front(make_app: Callable[..., flask.Flask]) -> None:
    assert type(make_app().wsgi_app).__name__ == "Direct"
