"""Rules about the network: security groups, public addresses, instance metadata."""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.policy.rule import Resource, items, rule, stack_rule, true
from infra.settings import AwsSettings

GROUPS = ("aws:ec2/securityGroup:SecurityGroup", "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup")
INGRESS = (
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
    "aws:ec2/securityGroupRule:SecurityGroupRule",
    *GROUPS,
)
EGRESS = (
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
    "aws:ec2/securityGroupRule:SecurityGroupRule",
    *GROUPS,
)
INSTANCE, TEMPLATE = "aws:ec2/instance:Instance", "aws:ec2/launchTemplate:LaunchTemplate"
ADMIN_PORTS = {22: "SSH", 3389: "RDP"}


@dataclass(frozen=True, slots=True)
class Way:
    """The traffic that a rule of a security group allows."""

    cidrs: tuple[str, ...]
    first: int
    last: int

    @property
    def ports(self) -> str:
        """The ports as text: 443 or 20-25."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def everyone(cidr: str) -> bool:
    """Whether the network is so large that it counts as everyone: 0.0.0.0/0, or larger than /8 (/16 for IPv6)."""
    network = ipaddress.ip_network(cidr, strict=False)
    return network.prefixlen < (8 if network.version == 4 else 16)


def ways(resource: Resource, direction: str) -> Iterator[Way]:
    """The traffic that a security group, or a single rule of it, allows; `direction` is ingress or egress."""
    inputs = resource.inputs
    given: Sequence[Mapping[str, Any]] = [inputs]
    if resource.kind in GROUPS:
        given = items(inputs.get(direction))
    elif "type" in inputs and inputs["type"] != direction:
        given = []
    for one in given:
        cidrs = [
            cidr for key in ("cidrIpv4", "cidrIpv6", "cidrBlocks", "ipv6CidrBlocks") for cidr in items(one.get(key))
        ]
        every = str(one.get("ipProtocol", one.get("protocol"))) in ("-1", "all")
        first, last = (0, 65535) if every else (int(one.get("fromPort") or 0), int(one.get("toPort") or 65535))
        yield Way(tuple(cidrs), first, last)


@rule(*INGRESS, ids=("CKV_AWS_24", "CKV_AWS_25", "CIS 5.2", "CIS 5.3"))
def no_remote_login(resource: Resource) -> Iterator[str]:
    """Ports 22 and 3389 are closed for everyone: log in through Systems Manager."""
    for way in ways(resource, "ingress"):
        for port, name in ADMIN_PORTS.items():
            if way.first <= port <= way.last:
                yield f"ports {way.ports} let {name} in: use `aws ssm start-session`"


@rule(INSTANCE, TEMPLATE, "aws:eks/nodeGroup:NodeGroup", ids=("CKV_AWS_100",))
def no_ssh_keys(resource: Resource) -> Iterator[str]:
    """No instance or node has an SSH key."""
    if resource.inputs.get("keyName") or (resource.inputs.get("remoteAccess") or {}).get("ec2SshKey"):
        yield "has an SSH key: use `aws ssm start-session`"


@rule(*INGRESS, ids=("CKV_AWS_260", "CKV_AWS_277"))
def no_open_ports(resource: Resource) -> Iterator[str]:
    """No security group allows ingress from everyone.

    Everyone is 0.0.0.0/0, ::/0, or a network larger than /8 (/16 for IPv6). `atlas:operatorCidrs: [0.0.0.0/0]` is
    refused too, because Prometheus has no password. The stack declares no security group for the service's load
    balancer; the rule load-balancer-sources covers it.
    """
    for way in ways(resource, "ingress"):
        for cidr in filter(everyone, way.cidrs):
            yield f"port {way.ports} is open to {cidr}: name the networks"


@rule(*EGRESS, ids=("CKV_AWS_382",))
def no_open_egress(resource: Resource) -> Iterator[str]:
    """No security group allows egress to everyone on all ports: ports are named."""
    for way in ways(resource, "egress"):
        if (way.first, way.last) == (0, 65535) and any(map(everyone, way.cidrs)):
            yield "every port is open to everyone: name the ports"


@rule(GROUPS[1], ids=("CKV2_AWS_12", "CIS 5.4"))
def default_group_empty(resource: Resource) -> Iterator[str]:
    """A VPC's default security group allows no traffic."""
    for direction in ("ingress", "egress"):
        if items(resource.inputs.get(direction)):
            yield f"{direction} must be empty"


@stack_rule(ids=("CKV2_AWS_12", "CIS 5.4"))
def default_group_adopted(resources: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    """Every VPC's default security group is adopted by the stack, which removes its rules."""
    adopted = {urn for one in resources if one.kind == GROUPS[1] for urn in one.uses.get("vpcId", ())}
    for vpc in resources:
        if vpc.kind == "aws:ec2/vpc:Vpc" and vpc.urn not in adopted:
            yield vpc, "its default security group has AWS's rules: adopt it with an empty DefaultSecurityGroup"


@rule(INSTANCE, TEMPLATE, "aws:ec2/subnet:Subnet", ids=("CKV_AWS_88", "CKV_AWS_130", "CIS EKS 5.4.3"))
def no_public_addresses(resource: Resource) -> Iterator[str]:
    """No instance, node or subnet assigns public addresses.

    The two hosts may have public addresses if `atlas:operatorCidrs` names the networks that may reach them.
    """
    if true(resource.inputs.get("mapPublicIpOnLaunch")):
        yield "mapPublicIpOnLaunch must be false"
    for card in items(resource.inputs.get("networkInterfaces")):
        if true(card.get("associatePublicIpAddress")):
            yield "networkInterfaces.associatePublicIpAddress must be false"
    spelled_out = isinstance(resource.settings, AwsSettings) and resource.settings.operator_cidrs
    if true(resource.inputs.get("associatePublicIpAddress")) and not spelled_out:
        yield "associatePublicIpAddress must be false, unless atlas:operatorCidrs names who may reach it"


@stack_rule(ids=("CKV2_AWS_11", "CIS 3.7"))
def flows_logged(resources: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    """Every VPC has a flow log."""
    logged = {urn for log in resources if log.kind == "aws:ec2/flowLog:FlowLog" for urn in log.uses.get("vpcId", ())}
    for vpc in resources:
        if vpc.kind == "aws:ec2/vpc:Vpc" and vpc.urn not in logged:
            yield vpc, "nobody could tell later who connected to whom: declare FlowLogs for it"


@stack_rule()
def hosts_watched(resources: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    """Every instance has an alarm that notifies somebody."""
    watched = {
        urn
        for alarm in resources
        if alarm.kind == "aws:cloudwatch/metricAlarm:MetricAlarm" and alarm.uses.get("alarmActions")
        for urn in alarm.uses.get("dimensions", ())
    }
    for host in resources:
        if host.kind == INSTANCE and host.urn not in watched:
            yield host, "nobody would notice that it is dead: declare an alarm on its status checks"


@stack_rule(ids=("CIS EKS 5.4.3",))
def private_nodes(resources: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    """A cluster's nodes are in private subnets."""
    gateways = {one.urn for one in resources if one.kind == "aws:ec2/internetGateway:InternetGateway"}
    public_tables = {
        table
        for one in resources
        if one.kind == "aws:ec2/route:Route" and gateways.intersection(one.uses.get("gatewayId", ()))
        for table in one.uses.get("routeTableId", ())
    }
    public = {
        subnet
        for one in resources
        if one.kind == "aws:ec2/routeTableAssociation:RouteTableAssociation"
        and public_tables.intersection(one.uses.get("routeTableId", ()))
        for subnet in one.uses.get("subnetId", ())
    }
    for nodes in resources:
        if nodes.kind == "aws:eks/nodeGroup:NodeGroup" and public.intersection(nodes.uses.get("subnetIds", ())):
            yield nodes, "nodes are in a subnet with a route to the internet gateway: use private subnets"


@rule(INSTANCE, TEMPLATE, ids=("CKV_AWS_79", "CKV_AWS_341", "CIS 5.6"))
def imdsv2(resource: Resource) -> Iterator[str]:
    """Instances and nodes require IMDSv2 with a hop limit of 1, so that pods can't get their credentials."""
    options = resource.inputs.get("metadataOptions") or {}
    if options.get("httpEndpoint") == "disabled":
        return
    if options.get("httpTokens") != "required":
        yield "metadataOptions.httpTokens must be required"
    if options.get("httpPutResponseHopLimit") != 1:
        yield "metadataOptions.httpPutResponseHopLimit must be 1"
