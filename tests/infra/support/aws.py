"""The AWS program brought up once per variant on recording providers: what it declares, for tests that look at it."""

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from infra.program import program
from tests.infra.recording.run import Life

DIGEST = "registry.example.com/flask-app@sha256:" + "a" * 64
"""Of a registry that isn't the stack's: nobody asks whether it is there."""
BASE: Mapping[str, str] = {
    "environment": "aws",
    "disposable": "true",
    "apiAccessCidrs": '["203.0.113.0/24"]',
    "adminPrincipals": '["arn:aws:iam::123456789012:role/deploy"]',
    "serviceCidrs": '["0.0.0.0/0"]',
    "image": DIGEST,
}
"""The least that a stack must say, and an image so that none is built."""
API_KEYS = Path(__file__).with_name("keys.json")
"""A file with the hash of a key."""
FULL: Mapping[str, str] = {
    **BASE,
    "operatorCidrs": '["198.51.100.0/24"]',
    "alertEmail": "oncall@example.com",
    "certificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/0f4c",
    "hostname": "flights.example.com",
    "nodeType": "t3.medium",
    "nodeMax": "2",
    "replicas": "2",
    "maxReplicas": "4",
    "modelUri": "models:/flights-late@champion",
    "mlflowTrackingUri": "https://mlflow.example.com:5000",
    "mlflowToken": "secret:the-token",
    "nat": "per-az",
    "apiKeysFile": str(API_KEYS),
    "permissionsBoundary": "arn:aws:iam::123456789012:policy/atlas-boundary-dev",
}
"""Every part that settings can add."""


@cache
def up(variant: str) -> Life:
    """The stack, up: `base` or `full`."""
    made = Life(Path(tempfile.mkdtemp(prefix="atlas-aws-")), program, {"base": BASE, "full": FULL}[variant])
    done = made.up()
    assert done.errors == [], done.errors
    return made
