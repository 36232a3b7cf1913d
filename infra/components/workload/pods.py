"""The pods: a Deployment with its service account, its settings, and the secrets that are set."""

import pulumi
from pulumi_kubernetes.apps.v1 import (
    Deployment,
    DeploymentSpecArgs,
    DeploymentStrategyArgs,
    RollingUpdateDeploymentArgs,
)
from pulumi_kubernetes.core.v1 import (
    CapabilitiesArgs,
    ConfigMap,
    ConfigMapEnvSourceArgs,
    ContainerArgs,
    ContainerPortArgs,
    EmptyDirVolumeSourceArgs,
    EnvFromSourceArgs,
    EnvVarArgs,
    EnvVarSourceArgs,
    HTTPGetActionArgs,
    LifecycleArgs,
    LifecycleHandlerArgs,
    PodSecurityContextArgs,
    PodSpecArgs,
    PodTemplateSpecArgs,
    ProbeArgs,
    ResourceRequirementsArgs,
    SeccompProfileArgs,
    Secret,
    SecretKeySelectorArgs,
    SecretVolumeSourceArgs,
    SecurityContextArgs,
    ServiceAccount,
    SleepActionArgs,
    TopologySpreadConstraintArgs,
    VolumeArgs,
    VolumeMountArgs,
)
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.api_keys import FILE_NAME
from infra.components.workload.args import Part
from infra.names import HTTP, SERVICE_PORT, SERVICE_READY

USER = 10001
"""The image's user; any id except root's works."""
GRACE_SECONDS = 60
"""preStop's pause, plus 30 s for the workers to finish their requests (service/__main__.py), plus a reserve."""
DRAIN_SECONDS = 10
"""A terminating pod keeps answering for this time, because endpoints and the load balancer change only later."""
CPU_REQUEST = "250m"
"""Enough for some five hundred requests a second: one with a single row takes half a millisecond (docs/serving.md)."""
MEMORY_REQUEST = 3 / 8
"""The request's share of the limit: 192 of the default 512 MiB. Measured with kubelet in a restricted pod: 85 MiB with
1 worker, 131 with 2, with and without load. scikit-learn, for bundles that don't compile, adds 150 MiB per worker."""
KEYS_FOLDER = "/etc/atlas/api-keys"
"""Where pods have the API keys' file."""
TOKEN = "CAPSTONE_TEST"  # noqa: S105 - its name
"""The environment variable with the MLflow server's token (service/settings.py), and its key in the secret."""


def declare_pods(part: Part) -> Deployment:
    """Declare the Deployment and the objects that its pods need."""
    name, args = part.name, part.args
    account = ServiceAccount(
        f"{name}-account",
        metadata=part.inside(args.service_account),
        automount_service_account_token=False,  # the service doesn't use the Kubernetes API
        opts=part.here,
    )
    # Immutable, with a name from Pulumi, as the secret below: so a changed setting creates a new object, then starts a
    # rollout, then deletes the old object. With a fixed name the old object would be deleted first, and the Deployment
    # with it, because Pulumi deletes everything that depends on an object before the object itself.
    settings = ConfigMap(
        f"{name}-settings", metadata=part.inside(), data=dict(args.settings), immutable=True, opts=part.here
    )
    environment: list[EnvVarArgs] = []
    if args.mlflow_token is not None:
        secret = Secret(
            args.secret_name,  # Pulumi adds random characters to this name
            metadata=part.inside(),
            string_data={TOKEN: args.mlflow_token},
            immutable=True,
            opts=part.here,
        )
        key = SecretKeySelectorArgs(name=secret.metadata.name, key=TOKEN)
        environment.append(EnvVarArgs(name=TOKEN, value_from=EnvVarSourceArgs(secret_key_ref=key)))
    keys = [] if args.api_keys is None else [_api_keys(part, args.api_keys)]
    # Later than Kubernetes's own deadline, because its error message is better.
    patience = f"{args.rollout_seconds + 30}s"
    return Deployment(
        f"{name}-deployment",
        metadata=part.inside(args.app),
        spec=DeploymentSpecArgs(
            # Otherwise each `up` would reset the number that the autoscaler has set.
            replicas=None if args.autoscaled else args.replicas,
            revision_history_limit=3,
            progress_deadline_seconds=args.rollout_seconds,
            min_ready_seconds=5,
            strategy=DeploymentStrategyArgs(
                type="RollingUpdate", rolling_update=RollingUpdateDeploymentArgs(max_unavailable=0, max_surge=1)
            ),
            selector=part.pods,
            template=PodTemplateSpecArgs(
                metadata=ObjectMetaArgs(labels=args.labels),
                spec=_pod(part, account.metadata.name, settings.metadata.name, environment),
            ),
        ),
        opts=pulumi.ResourceOptions(
            parent=part.parent,
            depends_on=keys,
            custom_timeouts=pulumi.CustomTimeouts(create=patience, update=patience, delete="5m"),
        ),
    )


def _api_keys(part: Part, content: str) -> Secret:
    """The Secret with the API keys' file, which pods mount and read again.

    It keeps its name and is changed in place (the provider's enable_secret_mutable), and the Deployment names it
    without depending on its outputs: so a new key changes neither the Deployment nor its pods.
    """
    return Secret(
        f"{part.name}-api-keys",
        metadata=part.inside(keys_secret(part.args.app)),
        string_data={FILE_NAME: pulumi.Output.secret(content)},
        opts=part.here,
    )


def keys_secret(app: str) -> str:
    """The name of the Secret with the API keys' file."""
    return f"{app}-api-keys"


def _pod(
    part: Part, account: pulumi.Input[str], settings: pulumi.Input[str], environment: list[EnvVarArgs]
) -> PodSpecArgs:
    return PodSpecArgs(
        service_account_name=account,
        automount_service_account_token=False,
        enable_service_links=False,
        termination_grace_period_seconds=GRACE_SECONDS,
        security_context=unprivileged(),
        topology_spread_constraints=[
            TopologySpreadConstraintArgs(
                max_skew=1,
                topology_key=key,
                # Two pods on the same node are better than a pod that can't be scheduled.
                when_unsatisfiable="ScheduleAnyway",
                label_selector=part.pods,
            )
            for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ],
        containers=[_container(part, settings, environment)],
        # For the metrics that the workers share, and for a bundle from the registry.
        volumes=[VolumeArgs(name="tmp", empty_dir=EmptyDirVolumeSourceArgs(size_limit="512Mi")), *_keys_volume(part)],
    )


def _keys_volume(part: Part) -> list[VolumeArgs]:
    if part.args.api_keys is None:
        return []
    source = SecretVolumeSourceArgs(secret_name=keys_secret(part.args.app))
    return [VolumeArgs(name="api-keys", secret=source)]


def _container(part: Part, settings: pulumi.Input[str], environment: list[EnvVarArgs]) -> ContainerArgs:
    args = part.args
    return ContainerArgs(
        name="service",
        image=args.image,
        ports=[ContainerPortArgs(name=HTTP, container_port=SERVICE_PORT, protocol="TCP")],
        env_from=[EnvFromSourceArgs(config_map_ref=ConfigMapEnvSourceArgs(name=settings))],
        env=environment,
        resources=ResourceRequirementsArgs(
            requests={"cpu": CPU_REQUEST, "memory": f"{int(args.memory_mib * MEMORY_REQUEST)}Mi"},
            # A start takes 1.2 s of CPU; after it, a worker uses at most 1 CPU.
            limits={"cpu": str(args.workers), "memory": f"{args.memory_mib}Mi"},
        ),
        security_context=confined(),
        # Loading a model takes seconds; the other two probes start only after it.
        startup_probe=probe(HTTP, SERVICE_READY, every=2, failures=60),
        readiness_probe=probe(HTTP, SERVICE_READY, every=5, failures=2),
        liveness_probe=probe(HTTP, "/health/live", every=10, failures=3),
        lifecycle=LifecycleArgs(pre_stop=LifecycleHandlerArgs(sleep=SleepActionArgs(seconds=DRAIN_SECONDS))),
        # If a container fails, the end of its log becomes its termination message, which `up` shows.
        termination_message_policy="FallbackToLogsOnError",
        volume_mounts=[
            VolumeMountArgs(name="tmp", mount_path="/tmp"),  # noqa: S108 - the pod's own
            # The folder, not the file in it: kubelet doesn't renew a file that is mounted alone (subPath).
            *(
                VolumeMountArgs(name=volume.name, mount_path=KEYS_FOLDER, read_only=True)
                for volume in _keys_volume(part)
            ),
        ],
    )


def unprivileged() -> PodSecurityContextArgs:
    """A pod's context: the image's user, and the runtime's filter of system calls."""
    return PodSecurityContextArgs(
        run_as_non_root=True,
        run_as_user=USER,
        run_as_group=USER,
        seccomp_profile=SeccompProfileArgs(type="RuntimeDefault"),
    )


def confined() -> SecurityContextArgs:
    """A container's context: no privileges, and a root file system that can't be written."""
    return SecurityContextArgs(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        capabilities=CapabilitiesArgs(drop=["ALL"]),
    )


def probe(port: str, path: str, *, every: int, failures: int) -> ProbeArgs:
    """A probe every `every` seconds; it has failed after `failures` failures in a row."""
    return ProbeArgs(
        http_get=HTTPGetActionArgs(path=path, port=port),
        timeout_seconds=3,
        period_seconds=every,
        failure_threshold=failures,
    )
