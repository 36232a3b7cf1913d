"""What the workload is made of: its arguments, and what all its parts share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs

from infra.names import APP_LABEL, PROJECT


@dataclass(frozen=True, slots=True)
class WorkloadArgs:
    """What the workload needs to know."""

    app: str
    namespace: str
    service_name: str
    service_account: str
    secret_name: str
    image: pulumi.Input[str]
    """By digest."""
    replicas: int
    max_replicas: int | None
    """More than `replicas`: a HorizontalPodAutoscaler decides."""
    workers: int
    """Processes in a pod."""
    memory_mib: int
    """The most memory that a pod may take, in MiB."""
    settings: Mapping[str, str]
    """Environment of the service (service/settings.py); no secrets."""
    mlflow_tracking_uri: str | None
    mlflow_token: pulumi.Input[str] | None
    callers: Sequence[str]
    """CIDRs that may reach the load balancer."""
    certificate_arn: str | None
    node_cidrs: Sequence[str]
    """Where packets from the load balancer, and kubelet's probes, come from."""
    prometheus_cidr: str
    prometheus_group: str
    """The Kubernetes group that Prometheus's role maps to."""
    tags: Mapping[str, str]
    """For the load balancer, which Kubernetes makes."""

    @property
    def most(self) -> int:
        """Pods that there may be."""
        return max(self.replicas, self.max_replicas or 0)

    @property
    def autoscaled(self) -> bool:
        return self.most > self.replicas

    @property
    def match(self) -> dict[str, str]:
        """The label by which the pods are found."""
        return {APP_LABEL: self.app}

    @property
    def labels(self) -> dict[str, str]:
        """Of everything in the workload."""
        return {**self.match, "app.kubernetes.io/part-of": PROJECT, "app.kubernetes.io/managed-by": "pulumi"}


@dataclass(frozen=True, slots=True)
class Part:
    """What each part of the workload is declared with."""

    name: str
    """What the names of its resources begin with."""
    args: WorkloadArgs
    namespace: pulumi.Output[str]
    """The namespace's name, as an output: what is inside goes before it, one by one, instead of with it."""
    parent: pulumi.Resource

    @property
    def here(self) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self.parent)

    @property
    def pods(self) -> LabelSelectorArgs:
        """Selects the service's pods."""
        return LabelSelectorArgs(match_labels=self.args.match)

    def inside(self, label: str | None = None, annotations: Mapping[str, str] | None = None) -> ObjectMetaArgs:
        """Of something in the namespace; without a label Pulumi names it."""
        return ObjectMetaArgs(name=label, namespace=self.namespace, labels=self.args.labels, annotations=annotations)
