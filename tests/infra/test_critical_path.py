"""How long a first `up` must take: the longest chain of recorded dependencies, with typical creation times.

`python -m tests.infra.test_critical_path` prints it.
"""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.infra.recording.run import edges
from tests.infra.support.aws import up

pytestmark = pytest.mark.slow

TYPICAL: Mapping[str, float] = {
    # Minutes, from AWS's own guidance and what users report; everything else takes seconds.
    "aws:eks/cluster:Cluster": 9.0,
    "aws:eks/nodeGroup:NodeGroup": 2.5,
    "aws:eks/addon:Addon": 0.7,
    "aws:ec2/natGateway:NatGateway": 2.0,
    "aws:ec2/instance:Instance": 0.5,
    "aws:ebs/volume:Volume": 0.2,
    "kubernetes:apps/v1:Deployment": 0.7,
    "kubernetes:core/v1:Service": 2.5,
    "docker-build:index:Image": 1.5,
}
SECONDS = 0.05


def chain(resources: list[dict[str, Any]], end: str | None = None) -> list[tuple[str, float]]:
    """Names and minutes of the resources that `end`, or a whole first `up`, waits for, one after the other."""
    by_urn = {resource["urn"]: resource for resource in resources}
    before = edges(resources)
    best: dict[str, tuple[float, list[str]]] = {}

    def minutes(urn: str) -> float:
        return TYPICAL.get(by_urn[urn]["type"], SECONDS) if by_urn[urn]["custom"] else 0.0

    def finish(urn: str) -> tuple[float, list[str]]:
        if urn not in best:
            start, path = max((finish(other) for other in before[urn]), default=(0.0, []))
            best[urn] = (start + minutes(urn), [*path, urn])
        return best[urn]

    _, path = max(finish(urn) for urn in (by_urn if end is None else [end]))
    return [(urn.split("$")[-1], minutes(urn)) for urn in path if by_urn[urn]["custom"]]


@pytest.mark.parametrize("variant", ["base", "full"])
def test_first_up_waits_for_the_cluster_its_nodes_and_the_service_and_nothing_else(variant: str) -> None:
    slow = [name.split("::")[0] for name, minutes in chain(up(variant).state()) if minutes > 0.2]
    assert slow[:2] == ["aws:eks/cluster:Cluster", "aws:eks/nodeGroup:NodeGroup"]
    assert slow[2:] in (
        # The agent of pods' identities: a pod that is older than it stays without credentials.
        ["aws:eks/addon:Addon", "kubernetes:core/v1:Service"],
        ["aws:eks/addon:Addon", "kubernetes:apps/v1:Deployment"],
    )


def test_hosts_do_not_wait_for_the_cluster() -> None:
    resources = up("base").state()
    hosts = [resource["urn"] for resource in resources if resource["type"] == "aws:ec2/instance:Instance"]
    assert len(hosts) == 2
    for host in hosts:
        waits_for = {name.split("::")[0] for name, _ in chain(resources, host)}
        assert "aws:ec2/natGateway:NatGateway" in waits_for
        assert "aws:eks/cluster:Cluster" not in waits_for


if __name__ == "__main__":
    path = chain(up("base").state())
    for name, minutes in path:
        print(f"{minutes:5.2f} min  {name}")
    print(f"{sum(minutes for _, minutes in path):5.2f} min in all")
