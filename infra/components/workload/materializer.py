"""The materialiser: the single pod that writes the feature store, from the service's own image."""

from pulumi_kubernetes.apps.v1 import Deployment, DeploymentSpecArgs, DeploymentStrategyArgs
from pulumi_kubernetes.core.v1 import (
    ContainerArgs,
    ContainerPortArgs,
    EmptyDirVolumeSourceArgs,
    EnvVarArgs,
    PodSpecArgs,
    PodTemplateSpecArgs,
    ResourceRequirementsArgs,
    ServiceAccount,
    VolumeArgs,
    VolumeMountArgs,
)
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs
from pulumi_kubernetes.networking.v1 import NetworkPolicy, NetworkPolicyIngressRuleArgs, NetworkPolicySpecArgs

from infra.components.workload.args import OURS, MaterializerArgs, Part
from infra.components.workload.pods import confined, probe, unprivileged
from infra.components.workload.traffic import egress, network, port
from infra.names import APP_LABEL, MATERIALIZER, MATERIALIZER_PORT, MATERIALIZER_READY, METRICS, materializer

GRACE_SECONDS = 60
"""It ends a step that it has begun, which gives up its claim of the store; a step takes seconds."""
MEMORY_REQUEST = 1 / 3
"""The request's share of the limit: 256 of the default 768 MiB. Measured with the flights and a DynamoDB table: 235 MiB
while it follows, and 460 MiB for a moment at the start, when it reads the whole year."""
ENVIRONMENT = {
    # Memory that was freed goes back to the system at once; otherwise the 460 MiB of the start would stay.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}


def declare_materializer(part: Part, args: MaterializerArgs) -> None:
    """Declare the Deployment and what it needs; its pod has another label, so that the Service never selects it."""
    name = materializer(part.name)
    label = materializer(part.args.app)
    labels = {**part.args.labels, APP_LABEL: label}

    def inside(annotations: dict[str, str] | None = None) -> ObjectMetaArgs:
        every = {**OURS, **(annotations or {})}
        return ObjectMetaArgs(name=label, namespace=part.namespace, labels=labels, annotations=every)

    account = ServiceAccount(
        f"{name}-account",
        metadata=inside(),
        automount_service_account_token=False,  # it doesn't use the Kubernetes API
        opts=part.here,
    )
    selector = LabelSelectorArgs(match_labels={APP_LABEL: label})
    NetworkPolicy(
        f"{name}-traffic",
        metadata=inside(),
        spec=NetworkPolicySpecArgs(
            pod_selector=selector,
            policy_types=["Ingress", "Egress"],
            # The probes come from the pod's own node, which no policy can forbid.
            ingress=[
                NetworkPolicyIngressRuleArgs(
                    from_=[network(part.args.prometheus_cidr)], ports=[port(MATERIALIZER_PORT)]
                )
            ],
            egress=egress([443]),  # DynamoDB, S3, and https:// files of views
        ),
        opts=part.here,
    )
    Deployment(
        f"{name}-deployment",
        # `up` doesn't wait for it, because predictions don't need it: an image without a materialiser, such as that of
        # a rollback, must not fail. `atlas up` and `atlas status` tell how it is.
        metadata=inside({"pulumi.com/skipAwait": "true"}),
        spec=DeploymentSpecArgs(
            replicas=1,
            revision_history_limit=3,
            # The store has a single writer: the old pod ends before the new pod begins.
            strategy=DeploymentStrategyArgs(type="Recreate"),
            selector=selector,
            template=PodTemplateSpecArgs(
                metadata=ObjectMetaArgs(labels=labels),
                spec=PodSpecArgs(
                    service_account_name=account.metadata.name,
                    automount_service_account_token=False,
                    enable_service_links=False,
                    termination_grace_period_seconds=GRACE_SECONDS,
                    security_context=unprivileged(),
                    containers=[_container(part, args)],
                    volumes=[VolumeArgs(name="tmp", empty_dir=EmptyDirVolumeSourceArgs(size_limit="512Mi"))],
                ),
            ),
        ),
        opts=part.here,
    )


def _container(part: Part, args: MaterializerArgs) -> ContainerArgs:
    listening = ["--address", "0.0.0.0", "--port", str(MATERIALIZER_PORT)]  # noqa: S104 - the NetworkPolicy limits it
    command = ["python3", "-m", "ml.materialize", "--follow", "--speed", f"{args.speed:g}", *listening]
    environment = {"AWS_DEFAULT_REGION": args.region, "XDG_CACHE_HOME": "/tmp/cache", **ENVIRONMENT}  # noqa: S108
    return ContainerArgs(
        name=MATERIALIZER,
        image=part.args.image,
        command=[*command, "--store", args.store, "--files", args.files],
        ports=[ContainerPortArgs(name=METRICS, container_port=MATERIALIZER_PORT, protocol="TCP")],
        env=[EnvVarArgs(name=key, value=value) for key, value in sorted(environment.items())],
        resources=ResourceRequirementsArgs(
            # A start takes 5 s of CPU, and a step each minute 0.4 s.
            requests={"cpu": "50m", "memory": f"{int(args.memory_mib * MEMORY_REQUEST)}Mi"},
            limits={"cpu": "1", "memory": f"{args.memory_mib}Mi"},
        ),
        security_context=confined(),
        # It answers as soon as Python has imported pandas. It is alive until no step has begun for 15 minutes, so that
        # a long first step isn't killed, and ready when it has written.
        startup_probe=probe(METRICS, "/health/live", every=5, failures=60),
        readiness_probe=probe(METRICS, MATERIALIZER_READY, every=10, failures=3),
        liveness_probe=probe(METRICS, "/health/live", every=30, failures=3),
        termination_message_policy="FallbackToLogsOnError",
        volume_mounts=[VolumeMountArgs(name="tmp", mount_path="/tmp")],  # noqa: S108 - the pod's own
    )
