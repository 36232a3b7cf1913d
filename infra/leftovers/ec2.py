"""A stack's resources in EC2: their kinds, and how each kind is listed and deleted."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra.leftovers.place import CLUSTER_TAG, CNI_TAG, NODES_TAG, Place, tags_of
from infra.names import STACK_TAG


@dataclass(frozen=True, slots=True)
class Ec2:
    """How EC2 lists a kind of resource."""

    kind: str
    operation: str
    found: str
    """The resources' place in the answer, in JMESPath."""
    key: str
    remedy: str
    """The command that deletes it, without `aws ec2` and the id."""
    gone: tuple[str, ...] = ()
    """States that count as deleted."""
    in_vpc: str | None = None
    """The filter by network."""
    by_cluster: str = ""
    """The tag with which EKS or Kubernetes marks the resources of a cluster."""
    owned: Mapping[str, Any] | None = None
    """The option that limits the list to the account's own resources."""
    filters: str = "Filters"
    """The name of the operation's option for filters."""


EC2: Mapping[str, Ec2] = {
    # Kind in the ARN -> how to list it; in an order in which the resources can be deleted.
    "instance": Ec2(
        "instance", "describe_instances", "Reservations[].Instances[]", "InstanceId",
        "terminate-instances --instance-ids", ("terminated", "shutting-down"), "vpc-id",
        by_cluster=CLUSTER_TAG,
    ),
    "vpc-endpoint": Ec2(
        "VPC endpoint", "describe_vpc_endpoints", "VpcEndpoints[]", "VpcEndpointId",
        "delete-vpc-endpoints --vpc-endpoint-ids", ("deleted", "deleting"), "vpc-id",
    ),
    "vpc-flow-log": Ec2(
        "flow log", "describe_flow_logs", "FlowLogs[]", "FlowLogId", "delete-flow-logs --flow-log-ids", (),
        "resource-id", filters="Filter",
    ),
    "natgateway": Ec2(
        "NAT gateway", "describe_nat_gateways", "NatGateways[]", "NatGatewayId",
        "delete-nat-gateway --nat-gateway-id", ("deleted", "deleting"), "vpc-id",
    ),
    "network-interface": Ec2(
        "network interface", "describe_network_interfaces", "NetworkInterfaces[]", "NetworkInterfaceId",
        "delete-network-interface --network-interface-id", (), "vpc-id",
        by_cluster=CNI_TAG,
    ),
    "elastic-ip": Ec2(
        "Elastic IP", "describe_addresses", "Addresses[]", "AllocationId", "release-address --allocation-id",
    ),
    "volume": Ec2(
        "EBS volume", "describe_volumes", "Volumes[]", "VolumeId", "delete-volume --volume-id", ("deleted", "deleting"),
        by_cluster=CLUSTER_TAG,
    ),
    "snapshot": Ec2(
        "EBS snapshot", "describe_snapshots", "Snapshots[]", "SnapshotId", "delete-snapshot --snapshot-id",
        owned={"OwnerIds": ["self"]},
        by_cluster=CLUSTER_TAG,
    ),
    "image": Ec2(
        "machine image", "describe_images", "Images[]", "ImageId", "deregister-image --image-id", ("deregistered",),
        owned={"Owners": ["self"]},
    ),
    "launch-template": Ec2(
        "launch template", "describe_launch_templates", "LaunchTemplates[]", "LaunchTemplateId",
        "delete-launch-template --launch-template-id",
        by_cluster=NODES_TAG,
    ),
    "security-group": Ec2(
        # A VPC's `default` group is deleted with the VPC.
        "security group", "describe_security_groups", "SecurityGroups[?GroupName!='default']", "GroupId",
        "delete-security-group --group-id", (), "vpc-id",
        by_cluster=CLUSTER_TAG,
    ),
    "subnet": Ec2("subnet", "describe_subnets", "Subnets[]", "SubnetId", "delete-subnet --subnet-id", (), "vpc-id"),
    "route-table": Ec2(
        # A VPC's main route table is deleted with the VPC.
        "route table", "describe_route_tables", "RouteTables[?!not_null(Associations[?Main]|[0])]", "RouteTableId",
        "delete-route-table --route-table-id", (), "vpc-id",
    ),
    "internet-gateway": Ec2(
        "internet gateway", "describe_internet_gateways", "InternetGateways[]", "InternetGatewayId",
        "delete-internet-gateway --internet-gateway-id", (), "attachment.vpc-id",
    ),
    "vpc": Ec2("VPC", "describe_vpcs", "Vpcs[]", "VpcId", "delete-vpc --vpc-id", (), "vpc-id"),
}  # fmt: skip


def ec2_things(place: Place, kind: Ec2) -> Iterator[dict[str, Any]]:
    """The stack's resources of this kind: with the stack's tags, with its cluster's tags, or in its VPC."""
    searches: list[dict[str, list[str]]] = [{f"tag:{STACK_TAG}": [place.stack]}]
    if kind.by_cluster and place.cluster is not None:
        searches.append({"tag-key": [kind.by_cluster.format(place.cluster)]})
    if kind.in_vpc and place.vpcs:
        searches.append({kind.in_vpc: list(place.vpcs)})
    seen: set[str] = set()
    for search in searches:
        filters = [{"Name": name, "Values": values} for name, values in search.items()]
        for thing in place.all("ec2", kind.operation, kind.found, **{kind.filters: filters}, **(kind.owned or {})):
            whose = place.owns(tags_of(thing)) or (kind.in_vpc is not None and kind.in_vpc in search)
            if whose and thing[kind.key] not in seen and state_of(thing) not in kind.gone:
                seen.add(thing[kind.key])
                yield thing


def state_of(thing: Mapping[str, Any]) -> str:
    """The resource's state in EC2's words; empty if it has none."""
    state = thing.get("State") or thing.get("Status") or ""
    return str(state.get("Name", "")) if isinstance(state, dict) else str(state)
