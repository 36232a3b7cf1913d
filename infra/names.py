"""Names that several modules share: the project and its stacks, ports, paths, tags and labels."""

PROJECT = "atlas"
"""The Pulumi project's name, and the prefix of settings (`atlas:nat`) and of the stacks' names in AWS."""
ORGANIZATION = "organization"
"""The organization of every stack in a file or bucket backend: Pulumi has no other organization there."""
BOOTSTRAP = "bootstrap"
"""The name of the stack, and of the environment, for what an account needs once."""
STATE_STACKS = f".pulumi/stacks/{PROJECT}"
"""Where the backend keeps the stacks' states."""
STATE_LOCKS = f".pulumi/locks/{ORGANIZATION}/{PROJECT}"
"""Where the backend keeps the locks of running updates."""
IMAGE_TYPE = "atlas:aws:Image"
REGISTRY_TYPE = "atlas:aws:Registry"
"""Component types that the command uses in URNs."""

SERVICE_PORT = 5000
PROMETHEUS_PORT = 9090
ALERTMANAGER_PORT = 9093
GRAFANA_PORT = 3000
NODE_EXPORTER_PORT = 9100
MATERIALIZER_PORT = 9101

SERVICE_READY = "/health/ready"
MLFLOW_HEALTH = "/health"
MATERIALIZER_READY = "/health/ready"
PROMETHEUS_READY = "/-/ready"
"""Alertmanager's, too."""
GRAFANA_HEALTH = "/api/health"

VIEW_FILES = "features"
"""The folder of the stack's data bucket from which the materialiser reads files of views."""
HOST_FILES = "/etc/atlas/current"
"""The folder of a monitoring host's fetched configuration; its scripts and units (infra/hosts/files) repeat it."""

PROJECT_TAG = "project"
STACK_TAG = "stack"
MANAGER_TAG = "managed-by"
COMPONENT_TAG = "component"
"""The part of the stack; the other three tags identify the owner."""

APP_LABEL = "app.kubernetes.io/name"
"""The label by which the service's pods are selected."""
HTTP = "http"
"""The name of the pods' port."""
METRICS = "metrics"
"""The name of the materialiser's port."""
MATERIALIZER = "materializer"
"""The name of its container."""


def materializer(app: str) -> str:
    """The name of the app's materialiser in the cluster: its Deployment, service account and label."""
    return f"{app}-{MATERIALIZER}"


def stack_prefix(stack: str) -> str:
    """The prefix of the stack's names in AWS."""
    return f"{PROJECT}-{stack}"


def image_repository(stack: str, app: str) -> str:
    """The stack's repository in ECR."""
    return f"{stack_prefix(stack)}/{app}"


def role_path(stack: str) -> str:
    """The path of the stack's IAM roles; permissions to create and pass roles are limited to it."""
    return f"/{PROJECT}/{stack}/"


def control_plane_logs(cluster: str) -> str:
    """The log group in which EKS keeps the logs of a cluster's control plane."""
    return f"/aws/eks/{cluster}/cluster"


def flow_logs(stack: str) -> str:
    """The log group of the VPC's flow logs."""
    return f"/{PROJECT}/{stack}/flow-logs"


def own_tags(stack: str) -> dict[str, str]:
    """The tags of everything that the stack creates in AWS."""
    return {PROJECT_TAG: PROJECT, STACK_TAG: stack, MANAGER_TAG: "pulumi"}
