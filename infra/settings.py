"""Stack configuration -> one frozen, validated settings object; unknown keys are an error."""

import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, SecretStr, ValidationError, model_validator

from infra.capacity import CLUSTER_PODS, NODE_PODS, POD_LIMITS
from infra.errors import SettingsError
from infra.names import GRAFANA_PORT, MATERIALIZER_PORT, PROJECT, PROMETHEUS_PORT, SERVICE_PORT
from infra.setting_errors import problems
from infra.setting_types import (
    STRICT,
    Account,
    Certificate,
    Cidr,
    Duration,
    InstanceType,
    KubernetesName,
    LogLevel,
    Mirror,
    Policy,
    PolicyException,
    Port,
    Principal,
    Region,
    ReplaySpeed,
    RetentionDays,
    Zone,
)

SECRETS = frozenset({"mlflowToken"})
"""Settings that must be encrypted in the stack file: `pulumi config set --secret`."""


class _Settings(BaseModel):
    model_config = STRICT

    policy_exceptions: tuple[PolicyException, ...] = ()
    """Rules that may be broken; each run prints them."""


class LocalSettings(_Settings):
    """The `local` environment: everything on this machine."""

    environment: Literal["local"]
    bundle: str = "models/bundle"
    """The bundle that the service serves, relative to the repository."""
    directory: str = ".atlas/local"
    """The directory of the stack's files; destroy removes it."""
    dvc_remote: str = ".atlas/dvc-remote"
    """DVC's default remote; destroy keeps its contents."""
    mlflow_store: str = ".atlas/mlflow"
    """MLflow's database and artifacts, created by the pipeline; destroy keeps them."""
    # A port that the stack file doesn't name may be replaced by the next free port: infra/local/ports.py.
    service_port: Port = SERVICE_PORT
    mlflow_port: Port = 5001
    prometheus_port: Port = PROMETHEUS_PORT
    grafana_port: Port = GRAFANA_PORT
    materializer_port: Port = MATERIALIZER_PORT
    replay_speed: ReplaySpeed = 1.0
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    api_keys_file: str | None = None
    """The file with the hashes of the service's API keys, relative to the repository; None: no key is needed."""
    log_level: LogLevel = "info"
    scrape_interval: Duration = "15s"
    download_mirror: Mirror | None = None
    """The address of Prometheus's and Grafana's archives, instead of the official one: infra/hosts/versions.py."""
    start_timeout: Annotated[int, Field(ge=1, le=600)] = 90
    """Seconds that a process may take to become healthy; a process that still works or writes gets more time."""

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if len(ports := {name: port for name, port in self if name.endswith("_port")}) > len(set(ports.values())):
            raise ValueError(f"the ports must differ, got {[*ports.values()]}")
        return self


class AwsSettings(_Settings):
    """An AWS environment: `dev`, `prod`, or any other stack file that says `atlas:environment: aws`."""

    environment: Literal["aws"]
    account_id: Account | None = None
    """The only account in which this stack may be deployed; None: the account of the credentials."""
    region: Region = "us-east-1"
    zones: tuple[Zone, Zone] = ("a", "b")
    """Two availability zones of the region, because EKS requires two. A deployed stack can't change them."""
    disposable: bool
    """Whether `destroy` may delete data too (objects, images, the password's secret); false protects the resources
    that contain data."""
    vpc_cidr: Cidr = "10.20.0.0/16"
    nat: Literal["single", "per-az"] = "single"
    """A single NAT gateway, or a gateway per zone: more expensive, but a zone's failure affects only that zone."""

    cluster_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]{0,59}$")] = "flask-app-cluster"
    kubernetes_version: Literal["1.35", "1.36"] = "1.36"
    api_access_cidrs: tuple[Cidr, ...]
    """Networks that may reach the Kubernetes API over the internet; empty: only the VPC may reach it."""
    admin_principals: Annotated[tuple[Principal, ...], Field(min_length=1)]
    """IAM roles and users who administer the cluster; the caller of `up` must be in the list."""
    permissions_boundary: Policy | None = None
    """The permissions boundary of the stack's own roles; GitHub's deploy role can't create a role without it."""
    node_group_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]{0,62}$")] = "flask-app-nodes"
    node_type: InstanceType = "t3.small"
    node_min: Annotated[int, Field(ge=1, le=100)] = 1
    node_desired: Annotated[int, Field(ge=1, le=100)] = 1
    """The initial number of nodes; later `up` keeps the number that scaling has set."""
    node_max: Annotated[int, Field(ge=1, le=100)] = 1
    log_retention_days: RetentionDays = 30
    """Retention of the control plane's logs and of the VPC's flow logs, in days."""

    app_name: KubernetesName = "flask-app"
    namespace: KubernetesName = "flask-app"
    service_name: KubernetesName = "flask-app-service"
    secret_name: KubernetesName = "capstone-secret"  # noqa: S105 - a name
    api_keys_file: str | None = None
    service_cidrs: Annotated[tuple[Cidr, ...], Field(min_length=1)]
    """Networks that may call the service through the load balancer."""
    hostname: Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$")] | None = None
    """The host name that callers use and that the certificate is for; the outputs show it."""
    certificate_arn: Certificate | None = None
    """ARN of an ACM certificate: with it, the load balancer uses TLS on port 5000."""
    replicas: Annotated[int, Field(ge=1, le=50)] = 1
    max_replicas: Annotated[int, Field(ge=1, le=50)] | None = None
    """If greater than `replicas`: an autoscaler adds pods by CPU use, up to this number."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Worker processes per pod; each of them loads the model."""
    pod_memory_mib: Annotated[int, Field(ge=256, le=65536)] = 512
    """The memory limit of a pod, in MiB; three eighths of it are requested."""
    rollout_seconds: Annotated[int, Field(ge=30, le=3600)] = 300
    """Seconds that a rollout may take, after which `up` fails; the old pods keep answering. A pod is ready within
    seconds, but an additional node takes minutes."""
    log_level: LogLevel = "info"

    bundle: str = "models/bundle"
    """The bundle for the image: a folder, relative to the repository; it may be outside of it."""
    image: Annotated[str, Field(pattern=r"^(promoted|[^\s@]+@sha256:[0-9a-f]{64})$")] | None = None
    """An image by digest, REPOSITORY@sha256:…, to deploy without a build; `promoted`: one from `atlas promote`."""
    base_image: Annotated[str, Field(pattern=r"^\S+$")] | None = None
    """The base image, by digest, instead of the Dockerfile's, for example from a company's mirror."""
    images_kept: Annotated[int, Field(ge=2, le=1000)] = 10
    """The number of images that the repository keeps."""
    model_uri: Annotated[str, Field(pattern=r"^models:/[^/@]+(@[\w.-]+|/\d+)$")] | None = None
    """Serve models:/NAME@ALIAS of the registry instead of the bundle in the image."""
    feature_store: bool = True
    """A DynamoDB table for the service's look-ups, and a materialiser that writes it; a stack that builds its image has
    them if the bundle has views. False for an image, promoted or by digest, whose model has none."""
    replay_speed: ReplaySpeed = 1.0
    materializer_memory_mib: Annotated[int, Field(ge=256, le=65536)] = 768
    """The memory limit of the materialiser, in MiB; a third of it is requested. Large files of views need more."""
    mlflow_tracking_uri: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | None = None
    mlflow_token: SecretStr | None = None
    """The MLflow server's token; the pod gets it as CAPSTONE_TEST."""

    host_type: InstanceType = "t3.medium"
    """Instance type of the Prometheus and the Grafana host; it must be x86-64."""
    host_disk_gb: Annotated[int, Field(ge=8, le=1000)] = 20
    data_disk_gb: Annotated[int, Field(ge=1, le=16000)] = 20
    """Size of Prometheus's data volume, which isn't deleted when the host is replaced."""
    scrape_interval: Duration = "15s"
    retention: Duration = "15d"
    """How long Prometheus keeps samples."""
    operator_cidrs: tuple[Cidr, ...] = ()
    """Networks that may reach Prometheus and Grafana over the internet; empty: both are private, and reached by SSM."""
    download_mirror: Mirror | None = None
    """The address from which the hosts download their software, instead of the official addresses."""
    alert_email: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")] | None = None
    """The address that gets alerts and budget warnings; its owner must confirm AWS's first mail."""
    budget_usd: Annotated[int, Field(ge=1)] | None = 250
    """The monthly budget; AWS warns at 80 %, and when the forecast exceeds it. It counts costs with the tag `stack`,
    after this tag is activated for cost allocation."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if not self.node_min <= self.node_desired <= self.node_max:
            raise ValueError(
                f"nodeMin <= nodeDesired <= nodeMax must hold: {self.node_min}, {self.node_desired}, {self.node_max}"
            )
        if self.zones[0] == self.zones[1]:
            raise ValueError(f"zones must differ, got {list(self.zones)}")
        if ipaddress.IPv4Network(self.vpc_cidr).prefixlen > 20:
            raise ValueError(f"vpcCidr must hold at least a /20, got {self.vpc_cidr}")
        if self.hostname and not self.certificate_arn:
            raise ValueError("hostname needs certificateArn: the service uses the host name only with TLS")
        if self.model_uri and not self.mlflow_tracking_uri:
            raise ValueError("modelUri needs mlflowTrackingUri: the address of the registry")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"maxReplicas must be at least replicas ({self.replicas}), got {self.max_replicas}")
        if self.pod_memory_mib < 64 * (self.workers + 1):
            raise ValueError(
                f"podMemoryMib is {self.pod_memory_mib}, too little for {self.workers} workers, which need about 50 "
                f"each and more with larger models: at least {64 * (self.workers + 1)}"
            )
        room = self.pod_room
        wanted = self.pods + 1 + self.feature_store  # a rolling update runs an additional pod
        if room is not None and wanted > room:
            raise ValueError(
                f"{self.pods} pods{', the materialiser' if self.feature_store else ''}, and 1 more during a rolling "
                f"update, don't fit: {self.node_max} {self.node_type} hold {room} "
                "besides the system's: use fewer replicas, more nodes (nodeMax) or a larger nodeType"
            )
        return self

    @property
    def pods(self) -> int:
        """The maximum number of the service's pods, without a rolling update."""
        return max(self.replicas, self.max_replicas or 1)

    @property
    def autoscaled(self) -> bool:
        """Whether an autoscaler sets the number of pods."""
        return self.pods > self.replicas

    @property
    def pod_room(self) -> int | None:
        """Pods that fit besides the system's pods on the maximum number of nodes; None for an unknown node type."""
        limit = POD_LIMITS.get(self.node_type)
        return None if limit is None else self.node_max * (limit - NODE_PODS) - CLUSTER_PODS


class BootstrapSettings(_Settings):
    """The `bootstrap` environment: what an account needs once, before and after all stacks (`atlas bootstrap`)."""

    environment: Literal["bootstrap"]
    account_id: Account
    """The account's id; the roles' permissions contain it."""
    region: Region = "us-east-1"
    """The region of the state bucket and its key; stacks may be in other regions."""
    repository: Annotated[str, Field(pattern=r"^repo:[\w.-]+(@[0-9]+)?/[\w.-]+(@[0-9]+)?$")]
    """How GitHub's tokens name the repository: repo:OWNER/REPO, or repo:OWNER@ID/REPO@ID."""
    stacks: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,19}$")], ...], Field(min_length=1, max_length=4)
    ] = ("dev", "prod")
    """AWS stacks that get roles and keep their state in the bucket; each needs a stack file. At most four, because a
    role can have ten policies, and the drift role needs two per stack."""
    state_bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$")] | None = None
    """The bucket's name; None: atlas-state-ACCOUNT-REGION."""
    session_hours: Annotated[int, Field(ge=2, le=4)] = 4
    """The maximum duration of a role's session: a destroy with problems takes more than an hour."""

    @property
    def bucket(self) -> str:
        """The state bucket's name."""
        return self.state_bucket or f"{PROJECT}-state-{self.account_id}-{self.region}"


Settings = LocalSettings | AwsSettings
"""An environment that serves a model."""
AnySettings = Settings | BootstrapSettings
KINDS: Mapping[str, type[LocalSettings] | type[AwsSettings] | type[BootstrapSettings]] = {
    "local": LocalSettings,
    "aws": AwsSettings,
    "bootstrap": BootstrapSettings,
}


def load_settings(config: Mapping[str, str]) -> AnySettings:
    """The settings from a stack's configuration, with keys `atlas:name`; lists are JSON, as the engine passes them.

    Raises SettingsError with a line per invalid key.
    """
    given = {key.removeprefix(f"{PROJECT}:"): value for key, value in config.items() if key.startswith(f"{PROJECT}:")}
    kind = KINDS.get(given.get("environment", ""))
    if kind is None:
        raise SettingsError(
            f"{PROJECT}:environment must be one of {', '.join(KINDS)}, got {given.get('environment')!r}"
        )
    try:
        return kind.model_validate({key: _decoded(key, value) for key, value in given.items()})
    except ValidationError as error:
        raise SettingsError("\n".join(problems(kind, error, SECRETS))) from None


def must_be_encrypted(name: str) -> SettingsError:
    """The error for a setting of SECRETS whose value is in plain text."""
    return SettingsError(f"{PROJECT}:{name} must be encrypted: `pulumi config set --secret {name} …`")


def _decoded(key: str, value: str) -> Any:
    if not re.match(r"\s*[\[{]", value):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise SettingsError(f"{PROJECT}:{key}: not readable as JSON ({error})") from None
