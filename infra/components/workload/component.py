"""The workload as a component: the namespace with the pods, their traffic rules, and Prometheus's access."""

import pulumi
from pulumi_kubernetes.core.v1 import Namespace
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.components.workload.args import OURS, Part, WorkloadArgs
from infra.components.workload.materializer import declare_materializer
from infra.components.workload.pods import declare_pods
from infra.components.workload.prometheus import admit_prometheus
from infra.components.workload.traffic import close, expose, keep_available


class Workload(pulumi.ComponentResource):
    """The namespace with all its objects, and Prometheus's permissions.

    Outputs:
        hostname: the load balancer's name (or address).
    """

    hostname: pulumi.Output[str]

    def __init__(self, name: str, args: WorkloadArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("atlas:kubernetes:Workload", name, None, opts)

        namespace = Namespace(
            f"{name}-namespace",
            metadata=ObjectMetaArgs(
                name=args.namespace,
                annotations=OURS,
                labels={
                    **args.labels,
                    "pod-security.kubernetes.io/enforce": "restricted",
                    "pod-security.kubernetes.io/enforce-version": "latest",
                    "pod-security.kubernetes.io/warn": "restricted",
                },
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        part = Part(name, args, namespace.metadata.name, self)
        close(part)
        admit_prometheus(part)
        keep_available(part, declare_pods(part))
        if args.materializer is not None:
            declare_materializer(part, args.materializer)

        self.hostname = expose(part)
        self.register_outputs({"hostname": self.hostname})
