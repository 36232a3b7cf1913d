"""Rules about the EKS cluster: access to its API, its logs, its versions."""

from collections.abc import Iterator, Sequence

from infra.names import control_plane_logs
from infra.policy.rule import Resource, items, rule, stack_rule, true
from infra.policy.rules.network import TEMPLATE, everyone

CLUSTER, LOG_GROUP = "aws:eks/cluster:Cluster", "aws:cloudwatch/logGroup:LogGroup"
NODES = "aws:eks/nodeGroup:NodeGroup"
LOGS = ("api", "audit", "authenticator", "controllerManager", "scheduler")


@rule(CLUSTER, ids=("CKV_AWS_38", "CIS EKS 5.4.1"))
def api_endpoint_restricted(resource: Resource) -> Iterator[str]:
    """The Kubernetes API is reachable from the VPC, and over the internet only from named networks or not at all.

    Hosted CI runners need `atlas:apiAccessCidrs: [0.0.0.0/0]`, which needs a named exception: IAM and RBAC still
    protect the API.
    """
    vpc = resource.inputs.get("vpcConfig") or {}
    if not true(vpc.get("endpointPrivateAccess")):
        yield "vpcConfig.endpointPrivateAccess must be true"
    if vpc.get("endpointPublicAccess") in (False, "false"):
        return
    cidrs = items(vpc.get("publicAccessCidrs"))
    for cidr in filter(everyone, cidrs or ["0.0.0.0/0"]):  # EKS's default
        yield f"the Kubernetes API is open to {cidr}: name the networks in atlas:apiAccessCidrs, or set [] for none"


@rule(CLUSTER, ids=("CKV_AWS_37", "CIS EKS 2.1.1"))
def control_plane_logged(resource: Resource) -> Iterator[str]:
    """A cluster's control plane writes all its logs."""
    missing = [log for log in LOGS if log not in items(resource.inputs.get("enabledClusterLogTypes"))]
    if missing:
        yield f"enabledClusterLogTypes lacks {', '.join(missing)}"


@rule(LOG_GROUP, ids=("CKV_AWS_66",))
def logs_expire(resource: Resource) -> Iterator[str]:
    """A log group has a retention period."""
    if not resource.inputs.get("retentionInDays"):
        yield "retentionInDays must be set; otherwise logs are kept, and paid for, for ever"


@stack_rule(ids=("CKV_AWS_66",))
def control_plane_logs_expire(resources: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    """A cluster's log group is declared by the stack: a log group that EKS creates keeps logs for ever."""
    groups = [one.inputs.get("name") for one in resources if one.kind == LOG_GROUP]
    for cluster in resources:
        if cluster.kind == CLUSTER and control_plane_logs(str(cluster.inputs.get("name"))) not in groups:
            yield cluster, "there is no log group for its control plane's logs: declare it, before the cluster"


@rule(CLUSTER, ids=("CKV_AWS_58", "CIS EKS 5.3.1"))
def cluster_secrets_encrypted(resource: Resource) -> Iterator[str]:
    """Kubernetes' secrets are encrypted with a customer managed key."""
    config = resource.inputs.get("encryptionConfig") or {}
    if "secrets" not in items(config.get("resources")):
        yield "encryptionConfig must name the resource type secrets and a key"


@stack_rule()
def nodes_from_template(resources: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    """Nodes use a launch template of the stack: EKS's own lets pods read the node's credentials, and encrypts no disk.

    A launch template that the stack doesn't declare may have the same defects: imdsv2 and disks-encrypted can't check
    it.
    """
    templates = {one.urn for one in resources if one.kind == TEMPLATE}
    for nodes in resources:
        if nodes.kind == NODES:
            named = {"id", "name"}.intersection(nodes.inputs.get("launchTemplate") or ())
            if not (named and templates.intersection(nodes.uses.get("launchTemplate", ()))):
                yield nodes, "launchTemplate must name, by id or name, a template that the stack declares"


@rule(CLUSTER, "aws:eks/addon:Addon", NODES)
def versions_pinned(resource: Resource) -> Iterator[str]:
    """The program sets the versions of cluster, add-ons and launch templates."""
    if resource.kind == CLUSTER and not resource.inputs.get("version"):
        yield "version must be set"
    if resource.kind == "aws:eks/addon:Addon" and not resource.inputs.get("addonVersion"):
        yield "addonVersion must be set"
    template = resource.inputs.get("launchTemplate")
    if (
        template and not str(template.get("version", "")).isdecimal()
    ):  # without it, the template's default version is used
        yield "launchTemplate.version must be a number"
