"""Names that several modules must agree on: of the project and its stacks, of ports, paths, tags and labels."""

PROJECT = "atlas"
"""Pulumi's project: settings begin with it (`atlas:nat`), and so do the names of what the stacks make."""
ORGANIZATION = "organization"
"""Of every stack in a backend that is files or a bucket: Pulumi has no other there."""
BOOTSTRAP = "bootstrap"
"""The stack, and the environment, of what an account needs once."""
STATE_STACKS = f".pulumi/stacks/{PROJECT}"
"""Where the backend keeps the stacks' states."""
STATE_LOCKS = f".pulumi/locks/{ORGANIZATION}/{PROJECT}"
"""Where the backend keeps the locks of running updates."""
IMAGE_TYPE = "atlas:aws:Image"
REGISTRY_TYPE = "atlas:aws:Registry"
"""Types of components whose resources the command names by their URN."""

SERVICE_PORT = 5000
PROMETHEUS_PORT = 9090
ALERTMANAGER_PORT = 9093
GRAFANA_PORT = 3000
NODE_EXPORTER_PORT = 9100

SERVICE_READY = "/health/ready"
MLFLOW_HEALTH = "/health"
PROMETHEUS_READY = "/-/ready"
"""Alertmanager's, too."""
GRAFANA_HEALTH = "/api/health"

HOST_FILES = "/etc/atlas/current"
"""Where a monitoring host keeps the configuration it fetched; its scripts and units (infra/hosts/files) say it too."""

PROJECT_TAG = "project"
STACK_TAG = "stack"
MANAGER_TAG = "managed-by"
COMPONENT_TAG = "component"
"""Which part of the stack it belongs to; the other three say whose it is."""

APP_LABEL = "app.kubernetes.io/name"
"""The label of the service's pods, by which they are found."""
HTTP = "http"
"""Of the pods' port."""


def stack_prefix(stack: str) -> str:
    """What the stack's names in AWS begin with."""
    return f"{PROJECT}-{stack}"


def image_repository(stack: str, app: str) -> str:
    """The stack's repository in ECR."""
    return f"{stack_prefix(stack)}/{app}"


def role_path(stack: str) -> str:
    """The path of the stack's IAM roles: permissions to make and pass roles name it."""
    return f"/{PROJECT}/{stack}/"


def control_plane_logs(cluster: str) -> str:
    """The log group in which EKS keeps the logs of a cluster's control plane."""
    return f"/aws/eks/{cluster}/cluster"


def own_tags(stack: str) -> dict[str, str]:
    """The tags of everything that the stack makes in AWS."""
    return {PROJECT_TAG: PROJECT, STACK_TAG: stack, MANAGER_TAG: "pulumi"}
