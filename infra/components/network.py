"""The network: a VPC over two zones with public subnets, private subnets for nodes, and a subnet for the hosts."""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pulumi
import pulumi_aws as aws

from infra.names import COMPONENT_TAG

EVERYWHERE = "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class NetworkArgs:
    """The inputs of the component Network."""

    region: str
    zones: Sequence[str]
    """Letters of two availability zones."""
    cidr: str
    nat: Literal["single", "per-az"]
    public_hosts: bool
    """Give the hosts' subnet a route from the internet; the hosts' security groups decide who may use it."""
    cluster_name: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Layout:
    """The VPC's address plan: each subnet is a sixteenth of its range."""

    public: tuple[str, str]
    private: tuple[str, str]
    hosts: str
    prometheus: str
    """Fixed addresses of the two hosts. Nothing else is in their subnet, so the addresses can't be in use."""
    grafana: str


def layout(cidr: str) -> Layout:
    """The address plan of a VPC with this range (IPv4, /16 to /20)."""
    parts = list(ipaddress.IPv4Network(cidr).subnets(prefixlen_diff=4))
    hosts = parts[4]
    return Layout(
        public=(str(parts[0]), str(parts[1])),
        private=(str(parts[2]), str(parts[3])),
        hosts=str(hosts),
        prometheus=str(hosts[10]),
        grafana=str(hosts[11]),
    )


class Network(pulumi.ComponentResource):
    """VPC, subnets, routes.

    Outputs:
        vpc_id: the VPC.
        public_subnet_ids, private_subnet_ids: a subnet per zone.
        hosts_subnet_id: for the Prometheus and Grafana hosts, in the first zone.
    """

    vpc_id: pulumi.Output[str]
    public_subnet_ids: list[pulumi.Output[str]]
    private_subnet_ids: list[pulumi.Output[str]]
    hosts_subnet_id: pulumi.Output[str]
    ways_out: list[pulumi.Resource]
    """The routes to the internet. Nodes and hosts depend on them: they are created before and deleted after them."""

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("atlas:aws:Network", name, None, opts)
        here = pulumi.ResourceOptions(parent=self)
        plan = layout(args.cidr)

        def tags(label: str, **more: str) -> dict[str, str]:
            return {**args.tags, COMPONENT_TAG: "network", "Name": label, **more}

        vpc = aws.ec2.Vpc(
            f"{name}-vpc",
            cidr_block=args.cidr,
            enable_dns_hostnames=True,
            enable_dns_support=True,
            tags=tags(f"{name}-vpc"),
            opts=here,
        )
        # Adopt the default group and remove its rules: a resource without an explicit group gets no traffic (CIS AWS
        # 5.4).
        aws.ec2.DefaultSecurityGroup(f"{name}-default-sg", vpc_id=vpc.id, tags=tags(f"{name}-default-sg"), opts=here)
        gateway = aws.ec2.InternetGateway(f"{name}-igw", vpc_id=vpc.id, tags=tags(f"{name}-igw"), opts=here)

        def subnet(label: str, zone: str, cidr: str, **more: str) -> aws.ec2.Subnet:
            return aws.ec2.Subnet(
                f"{name}-{label}",
                vpc_id=vpc.id,
                availability_zone=f"{args.region}{zone}",
                cidr_block=cidr,
                map_public_ip_on_launch=False,
                tags=tags(f"{name}-{label}", **more),
                opts=here,
            )

        # The load balancers' controller selects subnets by these tags.
        owned = {f"kubernetes.io/cluster/{args.cluster_name}": "shared"}
        public = [
            subnet(f"public-{zone}", zone, cidr, **{"kubernetes.io/role/elb": "1"}, **owned)
            for zone, cidr in zip(args.zones, plan.public, strict=True)
        ]
        private = [
            subnet(f"private-{zone}", zone, cidr, **{"kubernetes.io/role/internal-elb": "1"}, **owned)
            for zone, cidr in zip(args.zones, plan.private, strict=True)
        ]
        hosts = subnet("hosts", args.zones[0], plan.hosts)

        tables: list[aws.ec2.RouteTable] = []
        self.ways_out = []

        def table(label: str, subnets: Sequence[tuple[str, aws.ec2.Subnet]], **target: pulumi.Input[str]) -> None:
            routes = aws.ec2.RouteTable(f"{name}-{label}-rt", vpc_id=vpc.id, tags=tags(f"{name}-{label}-rt"), opts=here)
            out = aws.ec2.Route(
                f"{name}-{label}-route",
                route_table_id=routes.id,
                destination_cidr_block=EVERYWHERE,
                **target,
                opts=here,
            )
            tables.append(routes)
            self.ways_out.append(out)
            for key, member in subnets:
                self.ways_out.append(
                    aws.ec2.RouteTableAssociation(
                        f"{name}-{key}-rta", route_table_id=routes.id, subnet_id=member.id, opts=here
                    )
                )

        zones = list(args.zones)
        by_zone = list(zip(zones, private, strict=True))
        table("public", [(f"public-{zone}", s) for zone, s in zip(zones, public, strict=True)], gateway_id=gateway.id)
        nats: list[aws.ec2.NatGateway] = []
        for index, zone in enumerate(zones if args.nat == "per-az" else zones[:1]):
            address = aws.ec2.Eip(f"{name}-nat-{zone}-eip", domain="vpc", tags=tags(f"{name}-nat-{zone}"), opts=here)
            nats.append(
                aws.ec2.NatGateway(
                    f"{name}-nat-{zone}",
                    allocation_id=address.allocation_id,
                    subnet_id=public[index].id,
                    tags=tags(f"{name}-nat-{zone}"),
                    # A NAT gateway can't be created before the internet gateway is attached.
                    opts=pulumi.ResourceOptions(parent=self, depends_on=[gateway]),
                )
            )
        for index, (zone, member) in enumerate(by_zone):
            table(f"private-{zone}", [(f"private-{zone}", member)], nat_gateway_id=nats[index % len(nats)].id)
        if args.public_hosts:
            table("hosts", [("hosts", hosts)], gateway_id=gateway.id)
        else:
            table("hosts", [("hosts", hosts)], nat_gateway_id=nats[0].id)

        # Image layers and DVC's data come from S3: endpoints are free, traffic through NAT is charged per GB.
        # The service reads its features from DynamoDB.
        for service in ("s3", "dynamodb"):
            aws.ec2.VpcEndpoint(
                f"{name}-{service}",
                vpc_id=vpc.id,
                service_name=f"com.amazonaws.{args.region}.{service}",
                vpc_endpoint_type="Gateway",
                route_table_ids=[routes.id for routes in tables],
                tags=tags(f"{name}-{service}"),
                opts=here,
            )

        self.vpc_id = vpc.id
        self.public_subnet_ids = [member.id for member in public]
        self.private_subnet_ids = [member.id for member in private]
        self.hosts_subnet_id = hosts.id
        self.register_outputs({"vpc_id": self.vpc_id})
