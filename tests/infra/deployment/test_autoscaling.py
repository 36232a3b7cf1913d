"""When `up` hands the number of pods over to an autoscaler; how it does is proved on a real cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from infra.deployment import autoscaling, pods, up
from infra.engine.stack import AtlasStack
from infra.errors import ClusterError
from infra.settings import AwsSettings, load_settings
from tests.infra.support.aws import BASE


def deployed(replicas: int | None) -> dict[str, Any]:
    inputs = {"metadata": {"name": "flask-app", "namespace": "apps"}, "spec": {"replicas": replicas}}
    return {"type": "kubernetes:apps/v1:Deployment", "inputs": inputs}


@pytest.mark.parametrize(
    ("most", "there", "handed"),
    [
        ("3", [deployed(2)], [("apps", "flask-app")]),
        ("2", [deployed(2)], []),  # no autoscaler
        ("3", [deployed(None)], []),  # it has one
        ("3", [], []),  # it isn't up
    ],
)
def test_pods_are_handed_over_when_an_autoscaler_comes(
    monkeypatch: pytest.MonkeyPatch, most: str, there: list[dict[str, Any]], handed: list[tuple[str, str]]
) -> None:
    calls: list[tuple[str, str]] = []

    @contextmanager
    def cluster(_: AwsSettings) -> Iterator[None]:
        yield None

    monkeypatch.setattr(pods, "cluster_of", cluster)
    monkeypatch.setattr(autoscaling, "hand_over", lambda _, namespace, name: calls.append((namespace, name)))
    keep(monkeypatch, most, there, [])
    assert calls == handed


def test_cluster_that_cannot_be_asked_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def cluster(_: AwsSettings) -> Iterator[None]:
        raise ClusterError("it is out of reach")

    monkeypatch.setattr(pods, "cluster_of", cluster)
    said: list[str] = []
    keep(monkeypatch, "3", [deployed(2)], said)
    assert said == ["  the autoscaler begins with a single pod, because the cluster can't be asked: it is out of reach"]


def keep(monkeypatch: pytest.MonkeyPatch, most: str, there: list[dict[str, Any]], said: list[str]) -> None:
    values = {**BASE, "replicas": "2", "maxReplicas": most, "nodeMax": "3"}
    settings = load_settings({f"atlas:{key}": value for key, value in values.items()})
    assert isinstance(settings, AwsSettings)
    stack = AtlasStack("dev", settings, said.append)
    monkeypatch.setattr(stack, "resources", lambda: there)
    up.keep_pods(stack, settings)
