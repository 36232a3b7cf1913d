"""The service answers as its OpenAPI document says: what it allows is answered, all else refused."""

from collections.abc import Callable
from typing import Any

import flask
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from service.access.guard import OPEN
from service.predictor import Predictor
from tests.service.keyring import KeyRing

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

EXAMPLES = 60
"""For each operation and mode; with 2,000, the same holds."""
ALWAYS = (
    schemathesis.checks.not_a_server_error,
    checks.response_schema_conformance,
    checks.content_type_conformance,
    checks.status_code_conformance,
)
UNSAYABLE = ("/invocations", "/infer")
"""JSON Schema can't say that columns have the same length, or that a shape is that of its data: here it allows more."""


@schemathesis.serializer("application/x-ndjson")
def ndjson(_: Any, value: Any) -> bytes:
    """A body of newline-delimited JSON, which is text for OpenAPI."""
    return str(value).encode()


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
        if mode is GenerationMode.NEGATIVE and (operation.method == "get" or operation.path == "/predict/lines"):
            continue  # nothing can be wrong; any text is allowed
        wanted = [*ALWAYS, checks.negative_data_rejection]
        if not operation.path.endswith(UNSAYABLE):
            wanted.append(checks.positive_data_acceptance)

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
        )
        def fuzz(case: Any) -> None:
            case.call_and_validate(checks=wanted)  # noqa: B023 - runs before the next operation

        given(case=operation.as_strategy(generation_mode=mode))(fuzz)()
    assert operations >= 15
    # Later requests still work.
    answer = app.test_client().post("/predict", json={"rows": [predictors[kind].example()]})
    assert answer.status_code == 200


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

        @settings(
            max_examples=5,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        )
        def fuzz(case: Any) -> None:
            # `ignored_auth` repeats a request that succeeded, without its key and with a wrong key.
            case.call_and_validate(checks=[*ALWAYS, checks.ignored_auth], headers=headers)

        given(case=operation.as_strategy())(fuzz)()
    assert asked >= 15
