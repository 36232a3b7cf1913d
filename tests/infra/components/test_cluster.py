"""The cluster, as the engine records it: pinned versions, private, access only for listed principals."""

import json
from typing import Any

import pytest

from infra.components.cluster import ADDONS
from tests.infra.recording.run import edges
from tests.infra.support.aws import up

pytestmark = pytest.mark.slow


def of(variant: str, token: str) -> dict[str, dict[str, Any]]:
    """Inputs by name."""
    return {call.name: call.inputs for call in up(variant).world.existing().values() if call.token.endswith(token)}


def test_addons_are_pinned_to_the_clusters_version() -> None:
    found = {inputs["addonName"]: inputs["addonVersion"] for inputs in of("base", ":Addon").values()}
    assert found == ADDONS["1.36"]
    (cni,) = (inputs for inputs in of("base", ":Addon").values() if inputs["addonName"] == "vpc-cni")
    assert json.loads(cni["configurationValues"])["enableNetworkPolicy"] == "true"


def test_nodes_are_private_and_keep_their_credentials() -> None:
    (group,) = of("full", ":NodeGroup").values()
    subnets = {call.id: call.name for call in up("full").world.existing().values() if call.token.endswith(":Subnet")}
    assert sorted(subnets[found] for found in group["subnetIds"]) == ["atlas-dev-private-a", "atlas-dev-private-b"]
    assert group["scalingConfig"] == {"minSize": 1, "desiredSize": 1, "maxSize": 2}
    template = of("full", ":LaunchTemplate")["atlas-dev-node"]
    assert template["metadataOptions"] == {
        "httpEndpoint": "enabled",
        "httpTokens": "required",
        "httpPutResponseHopLimit": 1,
    }
    assert template["blockDeviceMappings"][0]["ebs"]["encrypted"] == "true"
    assert {spec["resourceType"] for spec in template["tagSpecifications"]} == {
        "instance",
        "volume",
        "network-interface",
    }


def test_only_those_listed_may_enter() -> None:
    entries = of("base", ":AccessEntry")
    (admin,) = (inputs for name, inputs in entries.items() if name.startswith("atlas-dev-admin-deploy-"))
    assert admin["principalArn"] == "arn:aws:iam::123456789012:role/deploy"
    assert entries["atlas-dev-prometheus"]["kubernetesGroups"] == ["atlas-prometheus"]
    assert len(entries) == 2
    (association,) = of("base", ":AccessPolicyAssociation").values()
    assert association["policyArn"].endswith("/AmazonEKSClusterAdminPolicy")
    assert association["principalArn"] == admin["principalArn"]


def test_control_plane_is_logged_encrypted_and_open_to_named_networks_only() -> None:
    (cluster,) = of("base", "eks/cluster:Cluster").values()
    assert cluster["vpcConfig"]["endpointPrivateAccess"] is True
    assert cluster["vpcConfig"]["publicAccessCidrs"] == ["203.0.113.0/24"]
    assert cluster["encryptionConfig"]["resources"] == ["secrets"]
    assert cluster["upgradePolicy"] == {"supportType": "STANDARD"}
    assert set(cluster["enabledClusterLogTypes"]) == {"api", "audit", "authenticator", "controllerManager", "scheduler"}
    retained = {logs["name"]: logs["retentionInDays"] for logs in of("base", ":LogGroup").values()}
    assert retained["/aws/eks/flask-app-cluster/cluster"] == 30
    keys = of("base", "kms/key:Key").values()
    assert keys
    assert all(key["enableKeyRotation"] is True for key in keys)


@pytest.mark.parametrize("variant", ["base", "full"])
def test_log_group_is_there_before_eks_would_make_its_own(variant: str) -> None:
    calls = up(variant).world.calls("create")
    logs = [call.inputs.get("name") for call in calls].index("/aws/eks/flask-app-cluster/cluster")
    assert logs < [call.token for call in calls].index("aws:eks/cluster:Cluster")


def test_connection_to_kubernetes_waits_for_nodes_and_for_the_entry_of_whoever_deploys() -> None:
    """Without an entry the provider is refused, and takes the cluster for unreachable until the run's end."""
    state = up("full").state()
    direct = edges(state)
    # The eks component has further providers of this type, which it doesn't use.
    (provider,) = (urn for urn in direct if urn.endswith("::pulumi:providers:kubernetes::kubernetes"))
    # Outputs of the component are known before its access entries: only what needs a node is certainly later.
    named = {urn.rsplit("::", 1)[-1] for urn in direct[provider]}
    assert named >= {"atlas-dev-nodes", "atlas-dev-eks-pod-identity-agent"}
    before: set[str] = set()
    ahead = [provider]
    while ahead:
        urn = ahead.pop()
        if urn not in before:
            before.add(urn)
            ahead += direct[urn]
    entries = {resource["urn"] for resource in state if "aws:eks/access" in resource["type"]}
    assert len(entries) >= 3
    assert entries - before == set()
