"""The service answers as its OpenAPI document says: what it allows is answered, all else refused."""

import functools
import json
import struct
from collections.abc import Callable
from typing import Any

import flask
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from service.access.guard import OPEN
from service.predictor import Predictor
from tests.service.keyring import KeyRing

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

EXAMPLES = 60
"""For each operation and mode; with 2,000, the same holds."""
EXAMPLES_WITH_KEYS = 5
ALWAYS = (
    schemathesis.checks.not_a_server_error,
    checks.response_schema_conformance,
    checks.content_type_conformance,
    checks.status_code_conformance,
)
UNSAYABLE = ("/invocations", "/infer")
"""JSON Schema can't say that columns have the same length, or that a shape is that of its data: here it allows more."""


UNDOCUMENTED = {
    "pages.index": "a page for people",
    "pages.docs": "a page for people",
    "pages.docs_asset": "a file of a page",
    "static": "a file of a page",
    "pages.openapi": "the document itself",
    "health.metrics": "Prometheus's own format, for its scraper",
    "open_inference.load": "always refused, so no program needs it",
}
"""The endpoints that aren't in the document, and why."""


@schemathesis.serializer("application/x-ndjson", "text/csv")
def as_text(_: Any, value: Any) -> bytes:
    """A body that is text for OpenAPI."""
    return str(value).encode()


def fuzz(strategy: SearchStrategy[Any], examples: int, **how: Any) -> None:
    """Ask with so many examples, and validate the answers; `how`: schemathesis' arguments for that."""

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )
    def ask(case: Any) -> None:
        case.call_and_validate(**how)

    given(case=strategy)(ask)()


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_the_contract_holds(
    make_app: Callable[..., flask.Flask], predictors: dict[str, Predictor], kind: str, mode: GenerationMode
) -> None:
    app = make_app(predictors[kind], max_rows=3)
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    operations = 0
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]  # an Err raises here, and that is wanted
        operations += 1
        if mode is GenerationMode.NEGATIVE and (not operation.body or operation.path == "/predict/lines"):
            continue  # nothing can be wrong; any text is allowed
        wanted = [*ALWAYS, checks.negative_data_rejection]
        if not operation.path.endswith(UNSAYABLE):
            wanted.append(checks.positive_data_acceptance)
        fuzz(operation.as_strategy(generation_mode=mode), EXAMPLES, checks=wanted)
    assert operations >= 15
    # Later requests still work.
    answer = app.test_client().post("/predict", json={"rows": [predictors[kind].example()]})
    assert answer.status_code == 200


def test_the_document_has_every_route_that_a_program_calls(
    make_app: Callable[..., flask.Flask], predictor: Predictor
) -> None:
    app = make_app()
    rules = [*app.url_map.iter_rules()]
    given = {"<name>": predictor.bundle.name, "<version>": predictor.bundle.version}
    routes = {
        (method, functools.reduce(lambda path, each: path.replace(*each), given.items(), rule.rule))
        for rule in rules
        if rule.endpoint not in UNDOCUMENTED
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    paths = app.test_client().get("/openapi.json").get_json()["paths"]
    assert {(method.upper(), path) for path, operations in paths.items() for method in operations} == routes
    assert UNDOCUMENTED.keys() <= {rule.endpoint for rule in rules}


def test_the_documents_examples_of_json_and_csv_get_the_same_answer(
    make_app: Callable[..., flask.Flask],
) -> None:
    client = make_app().test_client()
    content = client.get("/openapi.json").get_json()["paths"]["/invocations"]["post"]["requestBody"]["content"]
    assert content.keys() == {"application/json", "text/csv"}
    as_json = client.post("/invocations", json=content["application/json"]["example"])
    as_csv = client.post("/invocations", data=content["text/csv"]["example"], content_type="text/csv")
    assert as_json.status_code == 200
    assert as_csv.get_json() == as_json.get_json()


def test_a_tensor_in_json_needs_its_data(make_app: Callable[..., flask.Flask], predictor: Predictor) -> None:
    client = make_app().test_client()
    described = client.get("/openapi.json").get_json()
    assert "data" in described["components"]["schemas"]["InputTensor"]["required"]
    path = f"/v2/models/{predictor.bundle.name}/infer"
    operation = described["paths"][path]["post"]
    assert operation["requestBody"]["content"].keys() == {"application/json", "application/octet-stream"}
    assert [parameter["name"] for parameter in operation["parameters"]] == ["Inference-Header-Content-Length"]
    tensors = [
        {"name": "amount", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}},
        {"name": "shop", "shape": [1], "datatype": "BYTES", "data": ["north"]},
    ]
    head = json.dumps({"inputs": tensors}).encode()
    assert client.post(path, data=head, content_type="application/json").status_code == 422
    binary = client.post(
        path,
        data=head + struct.pack("<d", 120.5),
        headers={"Inference-Header-Content-Length": str(len(head))},
        content_type="application/octet-stream",
    )
    assert binary.status_code == 200


def test_the_document_tells_which_operations_need_a_key_and_they_do(
    make_app: Callable[..., flask.Flask], ring: KeyRing
) -> None:
    headers = {"X-API-Key": ring.add("schemathesis")}
    app = make_app(api_keys_file=ring.path, max_rows=3)
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app, headers=headers)
    paths = schema.raw_schema["paths"]
    need_none = {
        path for path, operations in paths.items() if any(one.get("security") == [] for one in operations.values())
    }
    assert need_none == OPEN & paths.keys()
    asked = 0
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]  # an Err raises here, and that is wanted
        asked += 1
        # `ignored_auth` repeats a request that succeeded, without its key and with a wrong key.
        fuzz(operation.as_strategy(), EXAMPLES_WITH_KEYS, checks=[*ALWAYS, checks.ignored_auth], headers=headers)
    assert asked >= 15
