"""Stack configuration -> one frozen, validated settings object; unknown keys are an error."""

import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from infra.capacity import CLUSTER_PODS, NODE_PODS, POD_LIMITS
from infra.errors import SettingsError
from infra.names import GRAFANA_PORT, PROJECT, PROMETHEUS_PORT, SERVICE_PORT
from infra.setting_errors import problems
from infra.setting_types import (
    Account,
    Certificate,
    Cidr,
    Day,
    Duration,
    InstanceType,
    KubernetesName,
    LogLevel,
    Policy,
    Port,
    Principal,
    Region,
    RetentionDays,
    Zone,
)

SECRETS = frozenset({"mlflowToken"})
"""Settings that must be encrypted in the stack file: `pulumi config set --secret`."""


STRICT = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class PolicyException(BaseModel):
    """Leave to break a rule of the policy pack, for a while."""

    model_config = STRICT

    rule: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    """Its name in docs/policy.md."""
    reason: Annotated[str, Field(min_length=10)]
    """Why, for whoever reads the log of a run: at least ten letters."""
    until: Day
    """The last day on which it counts, such as "2026-12-31"."""
    resources: Annotated[str, Field(min_length=1)] = "*"
    """Names of the resources it is for; * stands for any letters."""


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
    """Where the stack keeps its files; removed by destroy."""
    dvc_remote: str = ".atlas/dvc-remote"
    """DVC's default remote; what is in it belongs to DVC and stays."""
    mlflow_store: str = ".atlas/mlflow"
    """MLflow's database and artifacts, made by the pipeline; they stay."""
    service_port: Port = SERVICE_PORT
    mlflow_port: Port = 5001
    prometheus_port: Port = PROMETHEUS_PORT
    grafana_port: Port = GRAFANA_PORT
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    log_level: LogLevel = "info"
    scrape_interval: Duration = "15s"
    """How often Prometheus asks, such as 15s."""
    start_timeout: Annotated[int, Field(ge=1, le=600)] = 90
    """Seconds that a process may take to become healthy."""

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = [self.service_port, self.mlflow_port, self.prometheus_port, self.grafana_port]
        if len(set(ports)) < len(ports):
            raise ValueError(f"servicePort, mlflowPort, prometheusPort and grafanaPort must differ, got {ports}")
        return self


class AwsSettings(_Settings):
    """An AWS environment: `dev`, `prod`, or any other stack file that says `atlas:environment: aws`."""

    environment: Literal["aws"]
    account_id: Account | None = None
    """The only account this stack may touch; None: whichever the credentials belong to."""
    region: Region = "us-east-1"
    zones: tuple[Zone, Zone] = ("a", "b")
    """Two availability zones of the region; EKS wants two. A stack that is deployed keeps its own."""
    disposable: bool
    """`destroy` may delete data too (objects, images, the password's secret); false protects what holds data."""
    vpc_cidr: Cidr = "10.20.0.0/16"
    nat: Literal["single", "per-az"] = "single"
    """One NAT gateway, or one a zone: dearer, and a zone's failure stays in that zone."""

    cluster_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]{0,59}$")] = "flask-app-cluster"
    kubernetes_version: Literal["1.35", "1.36"] = "1.36"
    api_access_cidrs: tuple[Cidr, ...]
    """Who reaches the Kubernetes API over the internet; empty: only the VPC."""
    admin_principals: Annotated[tuple[Principal, ...], Field(min_length=1)]
    """IAM roles or users who administer the cluster; whoever runs `up` must be among them."""
    permissions_boundary: Policy | None = None
    """The most that the stack's own roles can be given; GitHub's deploy role makes no role without it."""
    node_group_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]{0,62}$")] = "flask-app-nodes"
    node_type: InstanceType = "t3.small"
    node_min: Annotated[int, Field(ge=1, le=100)] = 1
    node_desired: Annotated[int, Field(ge=1, le=100)] = 1
    """Nodes at first; later what scaling made of it stays."""
    node_max: Annotated[int, Field(ge=1, le=100)] = 1
    log_retention_days: RetentionDays = 30
    """Days that control-plane logs are kept."""

    app_name: KubernetesName = "flask-app"
    namespace: KubernetesName = "flask-app"
    service_name: KubernetesName = "flask-app-service"
    secret_name: KubernetesName = "capstone-secret"  # noqa: S105 - a name
    service_cidrs: Annotated[tuple[Cidr, ...], Field(min_length=1)]
    """Who may call the service through the load balancer."""
    hostname: Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$")] | None = None
    """The name that callers use and the certificate is for; outputs show it."""
    certificate_arn: Certificate | None = None
    """An ACM certificate: the load balancer then speaks TLS on port 5000."""
    replicas: Annotated[int, Field(ge=1, le=50)] = 1
    max_replicas: Annotated[int, Field(ge=1, le=50)] | None = None
    """More than `replicas`: pods are added by CPU use, up to this many."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes in a pod; each holds the model."""
    pod_memory_mib: Annotated[int, Field(ge=256, le=65536)] = 512
    """The most memory that a pod may take, in MiB; three eighths of it are set aside for it."""
    log_level: LogLevel = "info"

    bundle: str = "models/bundle"
    """The bundle that goes into the image: a folder anywhere, relative to the repository."""
    image: Annotated[str, Field(pattern=r"^(promoted|[^\s@]+@sha256:[0-9a-f]{64})$")] | None = None
    """An image by digest, REPOSITORY@sha256:…, to deploy instead of building one; or `promoted`: the one that runs
    stays, and `atlas promote` brings another."""
    base_image: Annotated[str, Field(pattern=r"^\S+$")] | None = None
    """The image's base instead of the Dockerfile's own, such as a company mirror's, by digest."""
    images_kept: Annotated[int, Field(ge=2, le=1000)] = 10
    """Images that the repository keeps; older ones expire."""
    model_uri: Annotated[str, Field(pattern=r"^models:/[^/@]+(@[\w.-]+|/\d+)$")] | None = None
    """Serve models:/NAME@ALIAS of the registry instead of the bundle in the image."""
    mlflow_tracking_uri: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | None = None
    mlflow_token: SecretStr | None = None
    """The MLflow server's token; arrives in the pod as CAPSTONE_TEST."""

    host_type: InstanceType = "t3.medium"
    """Of the Prometheus and the Grafana host; x86-64."""
    host_disk_gb: Annotated[int, Field(ge=8, le=1000)] = 20
    data_disk_gb: Annotated[int, Field(ge=1, le=16000)] = 20
    """Prometheus's own volume; it outlives the host."""
    scrape_interval: Duration = "15s"
    retention: Duration = "15d"
    """How long Prometheus keeps samples."""
    operator_cidrs: tuple[Cidr, ...] = ()
    """Who reaches Prometheus and Grafana over the internet; empty: nobody, they are private and reached through SSM."""
    download_mirror: Annotated[str, Field(pattern=r"^https?://\S+[^/]$")] | None = None
    """Where the hosts fetch their software instead of the official addresses."""
    alert_email: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")] | None = None
    """Who is told of alerts and of the budget; must confirm AWS's first mail."""
    budget_usd: Annotated[int, Field(ge=1)] | None = 250
    """A month; warns at 80 % and when the forecast passes it. Counts by the tag `stack`, once activated for costs."""

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
            raise ValueError(
                "hostname needs certificateArn: a name without a certificate would promise what isn't there"
            )
        if self.model_uri and not self.mlflow_tracking_uri:
            raise ValueError("modelUri needs mlflowTrackingUri: the registry to ask")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"maxReplicas must be at least replicas ({self.replicas}), got {self.max_replicas}")
        if self.pod_memory_mib < 64 * (self.workers + 1):
            raise ValueError(
                f"podMemoryMib is {self.pod_memory_mib}, too little for {self.workers} workers, who take some 50 each "
                f"and more with larger models: at least {64 * (self.workers + 1)}"
            )
        room = self.pod_room
        wanted = self.pods + 1  # a rolling update runs one more
        if room is not None and wanted > room:
            raise ValueError(
                f"{self.pods} pods, and one more while they roll, don't fit: "
                f"{self.node_max} {self.node_type} hold {room} "
                "beside the system's: fewer replicas, more nodes (nodeMax) or a larger nodeType"
            )
        return self

    @property
    def pods(self) -> int:
        """The most pods of the service at rest."""
        return max(self.replicas, self.max_replicas or 1)

    @property
    def pod_room(self) -> int | None:
        """Pods that fit beside the system's when all nodes are there; None for a type that isn't known."""
        limit = POD_LIMITS.get(self.node_type)
        return None if limit is None else self.node_max * (limit - NODE_PODS) - CLUSTER_PODS


class BootstrapSettings(_Settings):
    """The `bootstrap` environment: what an account needs once, before and after all stacks (`atlas bootstrap`)."""

    environment: Literal["bootstrap"]
    account_id: Account
    """The account; its number is part of the roles' permissions."""
    region: Region = "us-east-1"
    """Of the state bucket and its key; stacks may be elsewhere."""
    repository: Annotated[str, Field(pattern=r"^repo:[\w.-]+(@[0-9]+)?/[\w.-]+(@[0-9]+)?$")]
    """How GitHub's tokens name the repository: repo:OWNER/REPO, or repo:OWNER@ID/REPO@ID."""
    stacks: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,19}$")], ...], Field(min_length=1, max_length=4)
    ] = ("dev", "prod")
    """AWS stacks whose state is in the bucket, and who get roles; each has a stack file. Four: a role can have ten
    policies, and the preview role takes two for each stack."""
    state_bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$")] | None = None
    """Its name; None: atlas-state-ACCOUNT-REGION."""
    session_hours: Annotated[int, Field(ge=2, le=4)] = 4
    """The longest session of a role: a destroy that goes badly takes more than one hour."""

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
    """The settings from a stack's configuration, with keys `atlas:name`; lists are JSON, as the engine gives them.

    Raises SettingsError, one line per wrong key.
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


def _decoded(key: str, value: str) -> Any:
    if not re.match(r"\s*[\[{]", value):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise SettingsError(f"{PROJECT}:{key}: not readable as JSON ({error})") from None
