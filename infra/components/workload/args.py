"""The workload's arguments, and the context that all its parts share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs

from infra.names import APP_LABEL, PROJECT

OURS = {"pulumi.com/patchForce": "true"}
"""The annotation of every object: in the fields that the program sets, its values win over those set by hand.

Without it, `up` fails with a conflict after somebody has changed such a field, by `kubectl scale` for example. Fields
that the program doesn't set keep the values that others give them."""


@dataclass(frozen=True, slots=True)
class MaterializerArgs:
    """The arguments of the pod that writes the feature store."""

    store: pulumi.Input[str]
    """The store's address."""
    files: pulumi.Input[str]
    """Where relative paths of views are looked for."""
    region: str
    speed: float
    """Seconds of a replay that pass in a second."""
    memory_mib: int
    """The memory limit of its pod, in MiB."""


@dataclass(frozen=True, slots=True)
class WorkloadArgs:
    """The workload's arguments."""

    app: str
    namespace: str
    service_name: str
    service_account: str
    secret_name: str
    """The beginning of the Secret's name; Pulumi adds random characters."""
    image: pulumi.Input[str]
    """Its reference by digest."""
    replicas: int
    max_replicas: int | None
    """If greater than `replicas`: a HorizontalPodAutoscaler sets the number of pods."""
    workers: int
    """Worker processes per pod."""
    memory_mib: int
    """The memory limit of a pod, in MiB."""
    rollout_seconds: int
    """Time after which a rollout has failed."""
    settings: Mapping[str, pulumi.Input[str]]
    """The service's environment (service/settings.py), without secrets."""
    mlflow_tracking_uri: str | None
    mlflow_token: pulumi.Input[str] | None
    api_keys: str | None
    """The file of the service's API keys; None: no key is needed."""
    materializer: MaterializerArgs | None
    """None: nothing writes a feature store."""
    callers: Sequence[str]
    """CIDRs that may reach the load balancer."""
    certificate_arn: str | None
    node_cidrs: Sequence[str]
    """The source addresses of packets from the load balancer, and of kubelet's probes."""
    prometheus_cidr: str
    prometheus_group: str
    """The Kubernetes group that Prometheus's role maps to."""
    tags: Mapping[str, str]
    """Tags for the load balancer, which Kubernetes creates."""

    @property
    def most(self) -> int:
        """The maximum number of pods."""
        return max(self.replicas, self.max_replicas or 0)

    @property
    def autoscaled(self) -> bool:
        return self.most > self.replicas

    @property
    def match(self) -> dict[str, str]:
        """The label by which the pods are selected."""
        return {APP_LABEL: self.app}

    @property
    def labels(self) -> dict[str, str]:
        """The labels of everything in the workload."""
        return {**self.match, "app.kubernetes.io/part-of": PROJECT, "app.kubernetes.io/managed-by": "pulumi"}


@dataclass(frozen=True, slots=True)
class Part:
    """The context in which each part of the workload is declared."""

    name: str
    """The prefix of the resources' names."""
    args: WorkloadArgs
    namespace: pulumi.Output[str]
    """The namespace's name, as an output: so the objects inside depend on the namespace, and are deleted before it."""
    parent: pulumi.Resource

    @property
    def here(self) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self.parent)

    @property
    def pods(self) -> LabelSelectorArgs:
        """Selects the service's pods."""
        return LabelSelectorArgs(match_labels=self.args.match)

    def inside(self, label: str | None = None, annotations: Mapping[str, str] | None = None) -> ObjectMetaArgs:
        """Metadata of an object in the namespace; without `label`, Pulumi generates the name."""
        return ObjectMetaArgs(
            name=label, namespace=self.namespace, labels=self.args.labels, annotations={**OURS, **(annotations or {})}
        )
