"""The Kubernetes cluster in AWS: who reaches its API, what it logs, what it runs."""

from collections.abc import Iterator, Sequence

from infra.names import control_plane_logs
from infra.policy.rule import Resource, items, rule, stack_rule, true
from infra.policy.rules.network import TEMPLATE, everyone

CLUSTER, LOG_GROUP = "aws:eks/cluster:Cluster", "aws:cloudwatch/logGroup:LogGroup"
NODES = "aws:eks/nodeGroup:NodeGroup"
LOGS = ("api", "audit", "authenticator", "controllerManager", "scheduler")


@rule(CLUSTER, ids=("CKV_AWS_38", "CIS EKS 5.4.1"))
def api_endpoint_restricted(resource: Resource) -> Iterator[str]:
    """The Kubernetes API is reached from within the VPC, and over the internet from named networks or not at all.

    Hosted CI runners need `atlas:apiAccessCidrs: [0.0.0.0/0]`, and that a named exception: IAM and RBAC still guard it.
    """
    vpc = resource.inputs.get("vpcConfig") or {}
    if not true(vpc.get("endpointPrivateAccess")):
        yield "vpcConfig.endpointPrivateAccess must be true"
    if vpc.get("endpointPublicAccess") in (False, "false"):
        return
    cidrs = items(vpc.get("publicAccessCidrs"))
    for cidr in filter(everyone, cidrs or ["0.0.0.0/0"]):  # what EKS takes when nothing is said
        yield f"the Kubernetes API is open to {cidr}: name the networks in atlas:apiAccessCidrs, or say [] for none"


@rule(CLUSTER, ids=("CKV_AWS_37", "CIS EKS 2.1.1"))
def control_plane_logged(resource: Resource) -> Iterator[str]:
    """A cluster's control plane writes all its logs."""
    missing = [log for log in LOGS if log not in items(resource.inputs.get("enabledClusterLogTypes"))]
    if missing:
        yield f"enabledClusterLogTypes lacks {', '.join(missing)}"


@rule(LOG_GROUP, ids=("CKV_AWS_66",))
def logs_expire(resource: Resource) -> Iterator[str]:
    """A log group says how long it keeps logs."""
    if not resource.inputs.get("retentionInDays"):
        yield "retentionInDays must be said; without, logs stay and cost for ever"


@stack_rule(ids=("CKV_AWS_66",))
def control_plane_logs_expire(resources: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    """A cluster's log group is the stack's own: the one that EKS makes keeps logs for ever."""
    groups = [one.inputs.get("name") for one in resources if one.kind == LOG_GROUP]
    for cluster in resources:
        if cluster.kind == CLUSTER and control_plane_logs(str(cluster.inputs.get("name"))) not in groups:
            yield cluster, "no log group for its control plane's logs: declare one, before the cluster"


@rule(CLUSTER, ids=("CKV_AWS_58", "CIS EKS 5.3.1"))
def cluster_secrets_encrypted(resource: Resource) -> Iterator[str]:
    """Kubernetes' secrets are encrypted with a key of our own."""
    config = resource.inputs.get("encryptionConfig") or {}
    if "secrets" not in items(config.get("resources")):
        yield "encryptionConfig must name secrets and a key"


@stack_rule()
def nodes_from_template(resources: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    """Nodes start from a launch template of the stack: EKS's own lets pods ask for credentials, and encrypts no disk.

    One from elsewhere may be just so: imdsv2 and disks-encrypted see those only that the stack declares.
    """
    templates = {one.urn for one in resources if one.kind == TEMPLATE}
    for nodes in resources:
        if nodes.kind == NODES:
            named = {"id", "name"}.intersection(nodes.inputs.get("launchTemplate") or ())
            if not (named and templates.intersection(nodes.uses.get("launchTemplate", ()))):
                yield nodes, "launchTemplate must name, by id or name, a template that the stack declares"


@rule(CLUSTER, "aws:eks/addon:Addon", NODES)
def versions_pinned(resource: Resource) -> Iterator[str]:
    """Cluster, add-ons and launch templates are of a version that the program names."""
    if resource.kind == CLUSTER and not resource.inputs.get("version"):
        yield "version must be said"
    if resource.kind == "aws:eks/addon:Addon" and not resource.inputs.get("addonVersion"):
        yield "addonVersion must be said"
    template = resource.inputs.get("launchTemplate")
    if template and not str(template.get("version", "")).isdecimal():  # left out, it is the template's default
        yield "launchTemplate.version must be a number"
