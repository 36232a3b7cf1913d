"""A stack's monthly cost, computed from its settings: no AWS account is queried, and nothing needs to be deployed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from infra.capacity import HOSTS, NODE_DISK_GB
from infra.cost.prices import prices
from infra.errors import SettingsError
from infra.settings import AwsSettings, BootstrapSettings

LOGS_GB = 3
"""Assumed: control-plane logs of a cluster with little activity in a month, most of them audit logs."""
FLOW_LOGS_GB = 1
"""Assumed: flow logs of a network with little traffic in a month; a record is about 120 bytes."""
IMAGE_GB = 0.15
"""Assumed: compressed size of an image without the layers that it shares with others."""
OBJECTS_GB = 5
"""Assumed: DVC's data in the bucket."""
TABLE_GB = 0.1
"""Assumed: the rows of the feature store, some hundred bytes each; expired rows are deleted."""
TABLE_READS, TABLE_WRITES = 5, 2
"""Assumed: millions of request units in a month. A row that was read stays in a process's memory (docs/features.md), so
reads don't follow the number of predictions; writes follow the events, which are the same for every caller."""
FREE_TRAFFIC_GB = 100
"""Free traffic to the internet, per month and account."""
OFFICE_HOURS = 50
"""Hours a week, if the stack is up on weekdays from 8:00 to 18:00."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table."""

    part: str
    what: str
    monthly: float
    """US dollars."""
    hourly: bool
    """Whether it costs nothing while the stack is destroyed."""
    declares: tuple[str, int] | None = None
    """Type and number of the resources that cost this; None for usage, such as traffic."""


@dataclass(frozen=True, slots=True)
class Saving:
    """A change of settings, and its monthly saving."""

    change: str
    monthly: float


def table(settings: AwsSettings | BootstrapSettings, traffic_gb: float = 10) -> list[Line]:
    """The table's lines; `traffic_gb`: monthly traffic through the load balancer, and the same through the NAT gateway.

    Raises SettingsError when an instance type has no price.
    """
    if isinstance(settings, BootstrapSettings):
        return [
            _priced("state", "KMS key", "key", 1, declares=("aws:kms/key:Key", 1)),
            _priced("state", "bucket, 1 GB assumed", "objects", 1, declares=("aws:s3/bucket:Bucket", 1)),
        ]
    nat = 1 if settings.nat == "single" else 2
    disks = HOSTS * settings.host_disk_gb
    out = max(0.0, traffic_gb - FREE_TRAFFIC_GB)
    images = settings.images_kept * IMAGE_GB
    lines = [
        _priced("cluster", "EKS control plane", "control_plane", 1, declares=("aws:eks/cluster:Cluster", 1)),
        _instances("cluster", settings.node_type, settings.node_desired, "aws:eks/nodeGroup:NodeGroup", 1),
        _priced("cluster", f"{settings.node_desired} x {NODE_DISK_GB} GB of the nodes", "disk",
                settings.node_desired * NODE_DISK_GB),
        _priced("cluster", "KMS key of its secrets", "key", 1, declares=("aws:kms/key:Key", 1)),
        _priced("cluster", f"control-plane logs, {LOGS_GB} GB assumed", "logs", LOGS_GB,
                declares=("aws:cloudwatch/logGroup:LogGroup", 1)),
        _priced("network", f"{nat} NAT gateway{'s' * (nat > 1)}", "nat_gateway", nat,
                declares=("aws:ec2/natGateway:NatGateway", nat)),
        _priced("network", f"{nat} public address{'es' * (nat > 1)} of NAT", "public_address", nat,
                declares=("aws:ec2/eip:Eip", nat)),
        _priced("network", f"NAT, {traffic_gb:g} GB", "nat_traffic", traffic_gb),
        _priced("network", f"flow logs, {FLOW_LOGS_GB} GB assumed", "logs", FLOW_LOGS_GB,
                declares=("aws:cloudwatch/logGroup:LogGroup", 1)),
        _priced("service", "network load balancer", "load_balancer", 1, declares=("kubernetes:core/v1:Service", 1)),
        _priced("service", "its public addresses, per zone", "public_address", 2),
        _priced("service", f"load balancer, {traffic_gb:g} GB", "load_balancer_unit", traffic_gb),
        _priced("service", f"to the internet, {out:g} GB beyond the free {FREE_TRAFFIC_GB}", "traffic_out", out),
        _instances("monitoring", settings.host_type, HOSTS, "aws:ec2/instance:Instance", HOSTS),
        _priced("monitoring", f"{HOSTS} x {settings.host_disk_gb} GB of the hosts", "disk", disks),
        _priced("monitoring", f"{settings.data_disk_gb} GB of samples", "disk", settings.data_disk_gb,
                declares=("aws:ebs/volume:Volume", 1)),
        _priced("monitoring", "secret: Grafana's password", "secret", 1,
                declares=("aws:secretsmanager/secret:Secret", 1)),
        _priced("monitoring", "KMS key of the alerts", "key", 1, declares=("aws:kms/key:Key", 1)),
        _priced("monitoring", f"{HOSTS} alarms on the hosts", "alarm", HOSTS,
                declares=("aws:cloudwatch/metricAlarm:MetricAlarm", HOSTS)),
        _priced("storage", f"{images:g} GB of images assumed", "images", images,
                declares=("aws:ecr/repository:Repository", 1)),
        _priced("storage", f"buckets, {OBJECTS_GB} GB assumed", "objects", OBJECTS_GB,
                declares=("aws:s3/bucket:Bucket", 2)),
    ]  # fmt: skip
    if settings.feature_store:
        lines += [
            _priced("features", f"table, {TABLE_GB:g} GB assumed", "table_storage", TABLE_GB,
                    declares=("aws:dynamodb/table:Table", 1)),
            _priced("features", "its backups, to any moment of 35 days", "table_backup", TABLE_GB),
            _priced("features", f"{TABLE_READS} million reads assumed", "table_reads", TABLE_READS),
            _priced("features", f"{TABLE_WRITES} million writes assumed", "table_writes", TABLE_WRITES),
        ]  # fmt: skip
    if settings.operator_cidrs:
        lines.append(_priced("monitoring", f"{HOSTS} public addresses of the hosts", "public_address", HOSTS))
    return lines


CHANGES: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("atlas:nat: single", {"nat": "single"}),
    ("atlas:hostType: t3.small (2 GB of memory, enough for a few pods)", {"host_type": "t3.small"}),
    ("atlas:nodeMin and nodeDesired: 1", {"node_min": 1, "node_desired": 1}),
    ("atlas:nodeType: t3.small", {"node_type": "t3.small"}),
    ("atlas:operatorCidrs: [] (the hosts are then reached through SSM)", {"operator_cidrs": ()}),
)
"""Changes that reduce the cost: the text, and the settings."""


def savings(settings: AwsSettings, traffic_gb: float = 10) -> tuple[list[Saving], float]:
    """The possible savings of this stack, the largest first, and its cost with all of them together."""
    lines = table(settings, traffic_gb)
    found, least = [], settings
    for change, update in CHANGES:
        cheaper = _changed(settings, update)
        saved = total(lines) - total(table(cheaper, traffic_gb)) if cheaper else 0
        if saved > 0.005:
            found.append(Saving(change, saved))
            least = _changed(least, update) or least
    lowest = table(least, traffic_gb)
    if settings.disposable:
        found.append(Saving(f"destroyed at night and on weekends ({OFFICE_HOURS} of 168 hours up)", _nights(lines)))
        return sorted(found, key=lambda saving: -saving.monthly), total(lowest) - _nights(lowest)
    return sorted(found, key=lambda saving: -saving.monthly), total(lowest)


def _nights(lines: Sequence[Line]) -> float:
    """The saving if the stack is up only in office hours."""
    return sum(line.monthly for line in lines if line.hourly) * (1 - OFFICE_HOURS / 168)


def _changed(settings: AwsSettings, update: Mapping[str, Any]) -> AwsSettings | None:
    """The settings with the update; None if the result is invalid, such as more pods than the nodes can run."""
    try:
        return AwsSettings.model_validate({**settings.model_dump(), **update})
    except ValidationError:
        return None


def total(lines: Sequence[Line]) -> float:
    """US dollars a month."""
    return sum(line.monthly for line in lines)


def _priced(part: str, what: str, key: str, quantity: float, declares: tuple[str, int] | None = None) -> Line:
    price = prices().prices[key]
    hourly = price.per == "hour"
    # Disks are priced per month, but their cost also ends when the stack is destroyed.
    stops = hourly or key == "disk"
    return Line(part, what, price.usd * quantity * (prices().hours if hourly else 1), stops, declares)


def _instances(part: str, kind: str, count: int, resource: str, declared: int) -> Line:
    known = prices().instances.usd
    if kind not in known:
        raise SettingsError(f"infra/cost/prices.yml has no price for {kind}; it has {', '.join(known)}: add it")
    return Line(part, f"{count} x {kind}", known[kind] * count * prices().hours, True, (resource, declared))
