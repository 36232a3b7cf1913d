"""For allowed and for forbidden requests, the service answers as its OpenAPI document says, and never with a 500."""

from collections.abc import Callable
from typing import Any

import flask
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS

from service.predictor import Predictor

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

WANTED = ("not_a_server_error", "response_schema_conformance", "content_type_conformance")


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_nothing_that_a_caller_sends_breaks_the_contract(
    make_app: Callable[..., flask.Flask], predictors: dict[str, Predictor], kind: str
) -> None:
    app = make_app(predictors[kind])
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    checks = [check for check in CHECKS.get_all() if check.__name__ in WANTED]
    assert len(checks) == len(WANTED)
    operations = 0
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]  # an Err raises here, and that is wanted
        operations += 1

        @settings(
            max_examples=60,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
        )
        def fuzz(case: Any) -> None:
            case.call_and_validate(checks=checks)

        given(case=operation.as_strategy())(fuzz)()
    assert operations >= 9
    # Later requests still work.
    answer = app.test_client().post("/predict", json={"rows": [predictors[kind].example()]})
    assert answer.status_code == 200
