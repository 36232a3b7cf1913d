"""Rules about Kubernetes objects: restricted pods, images by digest, RBAC without wildcards, load balancers."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from infra.policy.rule import Resource, items, rule, stack_rule, true
from infra.policy.rules.network import everyone

TEMPLATE = ("spec", "template", "spec")
PODS: Mapping[str, tuple[str, ...]] = {
    "kubernetes:core/v1:Pod": ("spec",),
    "kubernetes:apps/v1:DaemonSet": TEMPLATE,
    "kubernetes:apps/v1:Deployment": TEMPLATE,
    "kubernetes:apps/v1:ReplicaSet": TEMPLATE,
    "kubernetes:apps/v1:StatefulSet": TEMPLATE,
    "kubernetes:batch/v1:CronJob": ("spec", "jobTemplate", *TEMPLATE),
    "kubernetes:batch/v1:Job": TEMPLATE,
}
"""Kinds that create pods, and the path to the pod's spec."""
ENDLESS = tuple(kind for kind in PODS if ":batch/" not in kind)
VOLUMES = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "name", "persistentVolumeClaim", "projected", "secret"}
)
"""The volume types that Pod Security's restricted level allows."""
ROLES = ("kubernetes:rbac.authorization.k8s.io/v1:Role", "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole")
BINDINGS = tuple(f"{role}Binding" for role in ROLES)
NAMESPACE, SERVICE = "kubernetes:core/v1:Namespace", "kubernetes:core/v1:Service"
NETWORK_POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
LOAD_BALANCER = "service.beta.kubernetes.io/aws-load-balancer"


def pod(resource: Resource) -> Mapping[str, Any]:
    """The spec of the pod that the resource creates."""
    found: Mapping[str, Any] = resource.inputs
    for step in PODS[resource.kind]:
        found = found.get(step) or {}
    return found


def containers(resource: Resource, *, short: bool = True) -> Iterator[Mapping[str, Any]]:
    """The pod's containers; `short`: also its init and ephemeral containers."""
    for key in ("containers", "initContainers", "ephemeralContainers") if short else ("containers",):
        yield from items(pod(resource).get(key))


@rule(
    *PODS,
    ids=(
        "CKV_K8S_16",
        "CKV_K8S_17",
        "CKV_K8S_18",
        "CKV_K8S_19",
        "CKV_K8S_26",
        "CKV_K8S_27",
        "CIS EKS 4.2.1",
        "CIS EKS 4.2.2",
        "CIS EKS 4.2.3",
        "CIS EKS 4.2.4",
    ),
)
def pods_apart_from_node(resource: Resource) -> Iterator[str]:
    """No pod shares anything with its node: no privileged containers, no host network, processes, ports or folders."""
    spec = pod(resource)
    for share in ("hostNetwork", "hostPID", "hostIPC"):
        if true(spec.get(share)):
            yield f"{share} must not be set"
    for volume in items(spec.get("volumes")):
        for kind in set(volume) - VOLUMES:
            yield f"volume {volume.get('name')} is a {kind}: Pod Security's restricted level forbids it"
    for container in containers(resource):
        if true((container.get("securityContext") or {}).get("privileged")):
            yield f"{container['name']}: privileged must not be set"
        if any(port.get("hostPort") for port in items(container.get("ports"))):
            yield f"{container['name']}: hostPort must not be set"


@rule(*PODS, ids=("CKV_K8S_20", "CKV_K8S_23", "CKV_K8S_25", "CKV_K8S_31", "CKV_K8S_37", "CIS EKS 4.2.5"))
def pods_restricted(resource: Resource) -> Iterator[str]:
    """Every container satisfies Pod Security's restricted level: not root, no capabilities, seccomp."""
    outer = pod(resource).get("securityContext") or {}
    for container in containers(resource):
        name, own = container["name"], container.get("securityContext") or {}
        user = own.get("runAsUser", outer.get("runAsUser"))
        if not true(own.get("runAsNonRoot", outer.get("runAsNonRoot"))) or user == 0:
            yield f"{name}: runAsNonRoot must be true, and runAsUser not 0"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation must be false"
        capabilities = own.get("capabilities") or {}
        if "ALL" not in items(capabilities.get("drop")) or set(items(capabilities.get("add"))) - {"NET_BIND_SERVICE"}:
            yield f"{name}: capabilities must drop ALL"
        seccomp = own.get("seccompProfile") or outer.get("seccompProfile") or {}
        if seccomp.get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: seccompProfile.type must be RuntimeDefault"


@rule(*PODS, ids=("CKV_K8S_22",))
def root_read_only(resource: Resource) -> Iterator[str]:
    """No container can write to its root file system."""
    for container in containers(resource):
        if not true((container.get("securityContext") or {}).get("readOnlyRootFilesystem")):
            yield f"{container['name']}: readOnlyRootFilesystem must be true"


@rule(*PODS, ids=("CKV_K8S_10", "CKV_K8S_11", "CKV_K8S_12", "CKV_K8S_13"))
def resources_said(resource: Resource) -> Iterator[str]:
    """Every container sets requests and limits for CPU and memory."""
    for container in containers(resource):
        given = container.get("resources") or {}
        missing = [
            f"{part}.{what}"
            for part in ("requests", "limits")
            for what in ("cpu", "memory")
            if not (given.get(part) or {}).get(what)
        ]
        if missing:
            yield f"{container['name']}: resources lacks {', '.join(missing)}"


@rule(*ENDLESS, ids=("CKV_K8S_8", "CKV_K8S_9"))
def probed(resource: Resource) -> Iterator[str]:
    """Every long-running container has a liveness and a readiness probe."""
    for container in containers(resource, short=False):
        for probe in ("livenessProbe", "readinessProbe"):
            if not container.get(probe):
                yield f"{container['name']}: has no {probe}"


@rule(*PODS, ids=("CKV_K8S_14", "CKV_K8S_43"))
def images_by_digest(resource: Resource) -> Iterator[str]:
    """Every container's image is named by digest, because a tag can be moved to another image."""
    for container in containers(resource):
        if not re.search(r"@sha256:[0-9a-f]{64}$", container["image"]):
            yield f"{container['name']}: image {container['image']} must end in @sha256:…"


@rule(*PODS, "kubernetes:core/v1:ServiceAccount", ids=("CKV_K8S_38", "CIS EKS 4.1.6"))
def no_idle_tokens(resource: Resource) -> Iterator[str]:
    """No pod gets a token for the Kubernetes API that it doesn't use."""
    holder = pod(resource) if resource.kind in PODS else resource.inputs
    if holder.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken must be false"


@rule(*PODS, SERVICE, ids=("CKV_K8S_21", "CIS EKS 4.5.2"))
def own_namespace(resource: Resource) -> Iterator[str]:
    """Nothing runs in the namespace `default`."""
    if ((resource.inputs.get("metadata") or {}).get("namespace") or "default") == "default":
        yield "metadata.namespace must be one of its own"


@rule(NAMESPACE, ids=("CIS EKS 4.2.1", "CIS EKS 4.2.2", "CIS EKS 4.2.3", "CIS EKS 4.2.4", "CIS EKS 4.2.5"))
def namespaces_restricted(resource: Resource) -> Iterator[str]:
    """A namespace enforces Pod Security's restricted level."""
    labels = (resource.inputs.get("metadata") or {}).get("labels") or {}
    if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
        yield "needs the label pod-security.kubernetes.io/enforce: restricted"


@stack_rule(ids=("CKV2_K8S_6", "CIS EKS 4.3.2"))
def traffic_denied_by_default(resources: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    """A namespace has a NetworkPolicy that denies all traffic by default."""
    closed = {
        (policy.inputs.get("metadata") or {}).get("namespace")
        for policy in resources
        if policy.kind == NETWORK_POLICY and _denies_all(policy.inputs.get("spec") or {})
    }
    for namespace in resources:
        if namespace.kind == NAMESPACE and (namespace.inputs.get("metadata") or {}).get("name") not in closed:
            yield namespace, "has no NetworkPolicy for all pods that denies ingress and egress"


def _denies_all(spec: Mapping[str, Any]) -> bool:
    both = {"Ingress", "Egress"} <= set(items(spec.get("policyTypes")))
    return both and not any(spec.get(key) for key in ("podSelector", "ingress", "egress"))


@rule(*ROLES, ids=("CKV_K8S_49", "CIS EKS 4.1.3"))
def rbac_named(resource: Resource) -> Iterator[str]:
    """RBAC roles name every API group, resource and verb."""
    for granted in items(resource.inputs.get("rules")):
        for key in ("apiGroups", "resources", "verbs", "nonResourceURLs"):
            if any("*" in str(one) for one in items(granted.get(key))):
                yield f"a wildcard in {key}: name them"


@rule(
    *ROLES,
    *BINDINGS,
    ids=(
        "CKV2_K8S_2",
        "CKV2_K8S_3",
        "CKV2_K8S_5",
        "CKV_K8S_157",
        "CKV_K8S_158",
        "CIS EKS 4.1.1",
        "CIS EKS 4.1.2",
        "CIS EKS 4.1.8",
        "CIS EKS 4.1.10",
        "CIS EKS 4.1.12",
    ),
)
def rbac_no_way_up(resource: Resource) -> Iterator[str]:
    """RBAC allows no privilege escalation: no nodes/proxy, exec, impersonation, all secrets or cluster-admin."""
    if resource.kind in BINDINGS:
        if (resource.inputs.get("roleRef") or {}).get("name") in ("cluster-admin", "admin", "edit"):
            yield "binds a built-in role with wide permissions: write a role with the permissions that are needed"
        return
    for granted in items(resource.inputs.get("rules")):
        for ladder in ("nodes/proxy", "pods/exec", "pods/attach", "serviceaccounts/token"):
            if ladder in items(granted.get("resources")):
                yield f"grants {ladder}, which lets its holder run commands or act as another account"
        for verb in ("bind", "escalate", "impersonate"):
            if verb in items(granted.get("verbs")):
                yield f"grants the verb {verb}"
        if resource.kind == ROLES[1] and "secrets" in items(granted.get("resources")):
            yield "grants secrets in every namespace: use a Role"


@rule(SERVICE)
def load_balancer_sources(resource: Resource) -> Iterator[str]:
    """A load balancer names the networks that may call it, and no Service of type NodePort opens a port of the nodes.

    `loadBalancerSourceRanges` are the stack's `atlas:serviceCidrs`. They may be 0.0.0.0/0, because the stack file then
    states explicitly that the service is public. They may not be missing, because Kubernetes' default is 0.0.0.0/0.
    """
    spec = resource.inputs.get("spec") or {}
    if spec.get("type") == "LoadBalancer" and not items(spec.get("loadBalancerSourceRanges")):
        yield "loadBalancerSourceRanges must be set; without it, everyone may call"
    if spec.get("type") == "NodePort":
        yield "type NodePort opens a port on every node: use ClusterIP or LoadBalancer"


@rule(SERVICE, ids=("CKV_AWS_378", "CIS EKS 5.4.5"), level="advisory")
def load_balancer_tls(resource: Resource) -> Iterator[str]:
    """A load balancer uses TLS: with plain HTTP on port 5000, others can read requests and predictions."""
    spec = resource.inputs.get("spec") or {}
    annotations = (resource.inputs.get("metadata") or {}).get("annotations") or {}
    if spec.get("type") == "LoadBalancer" and not annotations.get(f"{LOAD_BALANCER}-ssl-cert"):
        whom = "everyone" if any(map(everyone, items(spec.get("loadBalancerSourceRanges")))) else "its callers"
        yield f"plain HTTP for {whom}: set atlas:certificateArn"
