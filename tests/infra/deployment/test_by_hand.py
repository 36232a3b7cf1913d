"""What is said about changes by hand, and what to do about an `up` that met a deleted object."""

import pytest

from infra.deployment.by_hand import described, remedy
from infra.engine.events import Step

DEPLOYMENT = "kubernetes:apps/v1:Deployment"


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (
            Step("flask-app-deployment", DEPLOYMENT, "update", ["spec.replicas", "spec.template"]),
            "changed by hand, `up` sets it back: flask-app-deployment (spec.replicas, spec.template)",
        ),
        (
            Step("flask-app-deployment", DEPLOYMENT, "delete", []),
            "deleted by hand, `up` creates it again: flask-app-deployment",
        ),
    ],
)
def test_line_says_what_differs_and_what_up_does(step: Step, told: str) -> None:
    assert described(step) == told


@pytest.mark.parametrize(
    ("error", "known"),
    [
        ('the Kubernetes API server reported that it failed to initialize: namespaces "flask-app" not found', True),
        ('update of resource urn failed: services "flask-app-service" not found', True),
        ("ImagePullBackOff: 10.0.0.1/app@sha256:0: not found", False),
        ("AccessDenied", False),
    ],
)
def test_remedy_is_named_for_a_missing_object_alone(error: str, known: bool) -> None:
    told = remedy("dev", ["another error", error])
    assert bool(told) == known
    assert ("`atlas refresh --stack dev`, then `atlas up --stack dev`" in told) == known
