"""The recorded Kubernetes provider foresees what Pulumi's own does: which changes replace which objects."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pulumi
import pytest
from pulumi_kubernetes import Provider
from pulumi_kubernetes.apps.v1 import Deployment
from pulumi_kubernetes.core.v1 import ConfigMap, Namespace, Secret, Service

from tests.infra.plugins import found
from tests.infra.plugins.build import kubernetes_plugin
from tests.infra.recording.run import Life

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SPACE = f"atlas-rules-{uuid.uuid4().hex[:6]}"
STARTED: dict[str, Any] = {
    "value": "first",
    "fixed": "first",
    "mutable": "first",
    "label": "one",
    "selector": "one",
    "port": 80,
}


def declare(given: dict[str, Any], kubeconfig: str) -> None:
    """A secret and a config map with generated names, secrets with fixed names, and objects that depend on them."""
    cluster = Provider("cluster", kubeconfig=kubeconfig, enable_server_side_apply=True, enable_secret_mutable=True)
    here = pulumi.ResourceOptions(provider=cluster)
    space = Namespace("space", metadata={"name": SPACE, "labels": {"label": given["label"]}}, opts=here)
    inside = space.metadata.name
    token = Secret(
        "token", metadata={"namespace": inside}, string_data={"value": given["value"]}, immutable=True, opts=here
    )
    settings = ConfigMap(
        "settings", metadata={"namespace": inside}, data={"value": given["value"]}, immutable=True, opts=here
    )
    fixed = Secret(
        "fixed",
        metadata={"name": "fixed", "namespace": inside},
        string_data={"value": given["fixed"]},
        immutable=True,
        opts=here,
    )
    mutable = Secret(
        "mutable",
        metadata={"name": "mutable", "namespace": inside},
        string_data={"value": given["mutable"]},
        opts=here,
    )
    fixed_uid = fixed.metadata.uid.apply(lambda uid: uid or "")
    selector = {"app": given["selector"]}
    names = pulumi.Output.concat(token.metadata.name, " ", settings.metadata.name, " ", mutable.metadata.name)
    for name, annotations in (("generated", {"names": names}), ("by-name", {"uid": fixed_uid})):
        Deployment(
            name,
            metadata={"name": name, "namespace": inside},
            spec={
                "replicas": 0,
                "selector": {"match_labels": selector},
                "template": {
                    "metadata": {"labels": selector, "annotations": annotations},
                    "spec": {"containers": [{"name": "one", "image": found.BASE_IMAGE}]},
                },
            },
            opts=here,
        )
    Service(
        "service",
        metadata={"name": "service", "namespace": inside, "annotations": {"uid": fixed_uid}},
        # Without a selector, because nothing answers here.
        spec={"ports": [{"port": given["port"]}]},
        opts=here,
    )


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], list[Life]]]:
    """The settings, and two stacks: with Pulumi's own provider, and with the recorded provider."""
    kubeconfig = json.dumps(found.kubeconfig())
    given = dict(STARTED)

    def program() -> None:
        declare(given, kubeconfig)

    folder = tmp_path_factory.mktemp("kubernetes")
    real = Life(folder / "real", program, {}, packages=(), more_path=[kubernetes_plugin()])
    recorded = Life(folder / "recorded", program, {}, packages=("kubernetes",))
    try:
        for life in (real, recorded):
            assert life.up().errors == []
        yield given, [real, recorded]
    finally:
        assert real.destroy().errors == []


@pytest.mark.parametrize(
    ("setting", "value", "replaced"),
    [
        # Generated names: what depends on them is updated.
        ("value", "second", {"token", "settings"}),
        # A fixed name: what depends on it is replaced, too.
        ("fixed", "second", {"fixed", "by-name", "service"}),
        # A fixed name, but not immutable: it is updated, and nothing that depends on it changes.
        ("mutable", "second", set()),
        ("label", "two", set()),
        ("selector", "two", {"generated", "by-name"}),
        ("port", 81, set()),
    ],
)
def test_change_is_foreseen_alike(
    lives: tuple[dict[str, Any], list[Life]], setting: str, value: Any, replaced: set[str]
) -> None:
    given, both = lives
    given[setting] = value
    try:
        real, recorded = [life.preview() for life in both]
    finally:
        given.update(STARTED)
    assert real.errors == recorded.errors == []
    assert recorded.steps == real.steps
    assert {key.split("::")[1] for key, operation in real.steps.items() if operation == "replace"} == replaced
