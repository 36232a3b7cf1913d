"""What EKS and Kubernetes create for a stack's cluster outside of it: load balancers, target groups, its log group."""

from collections.abc import Iterator
from typing import Any

from infra.leftovers.place import Place, tags_of
from infra.names import control_plane_logs, flow_logs


def cluster_balancers(place: Place) -> Iterator[tuple[str, dict[str, str]]]:
    """ARN and tags of each network or application load balancer of the stack's cluster."""
    client = place.client("elbv2")
    listed = list(place.all("elbv2", "describe_load_balancers", "LoadBalancers[]"))
    in_network = {found["LoadBalancerArn"] for found in listed if found.get("VpcId") in place.vpcs}
    for arn, tags in _elb_tags(client, [found["LoadBalancerArn"] for found in listed]):
        if place.owns(tags) or arn in in_network:
            yield arn, tags


def cluster_target_groups(place: Place) -> Iterator[str]:
    """ARN of each target group of the stack's cluster."""
    client = place.client("elbv2")
    for arn, tags in _elb_tags(client, place.all("elbv2", "describe_target_groups", "TargetGroups[].TargetGroupArn")):
        if place.owns(tags):
            yield arn


def classic_balancers(place: Place) -> Iterator[tuple[str, dict[str, str]]]:
    """Name and tags of each classic load balancer of the stack's cluster."""
    client = place.client("elb")
    listed = {found["LoadBalancerName"]: found for found in place.all(
        "elb", "describe_load_balancers", "LoadBalancerDescriptions[]"
    )}  # fmt: skip
    names = list(listed)
    for start in range(0, len(names), 20):
        for found in client.describe_tags(LoadBalancerNames=names[start : start + 20])["TagDescriptions"]:
            name, tags = found["LoadBalancerName"], tags_of(found)
            if place.owns(tags) or listed[name].get("VPCId") in place.vpcs:
                yield name, tags


def log_groups(place: Place) -> Iterator[str]:
    """The flow logs' group, and the control plane's, which EKS creates again while the cluster is deleted."""
    names = [flow_logs(place.stack), *([control_plane_logs(place.cluster)] if place.cluster is not None else [])]
    for name in names:
        found = place.all("logs", "describe_log_groups", "logGroups[].logGroupName", logGroupNamePrefix=name)
        yield from (group for group in found if group == name)


def _elb_tags(client: Any, arns: Any) -> Iterator[tuple[str, dict[str, str]]]:
    arns = list(arns)
    for start in range(0, len(arns), 20):  # the API's limit is twenty
        for found in client.describe_tags(ResourceArns=arns[start : start + 20])["TagDescriptions"]:
            yield found["ResourceArn"], tags_of(found)
