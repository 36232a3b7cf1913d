"""What a killed run created without recording it is found in AWS by tags and connections: moto over HTTP."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from infra.leftovers.place import Place
from infra.leftovers.unrecorded import OTHERS, TAGGED, finder
from tests.infra.support.aws import up
from tests.infra.support.leftovers import client, specification, tag_list

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("moto")]

Made = tuple[dict[str, Any], str]
"""A resource's inputs as the state has them, and its id."""
OWN = {"project": "atlas", "stack": "dev", "managed-by": "pulumi"}


def tags(name: str) -> dict[str, str]:
    return {**OWN, "component": "network", "Name": name}


class Account:
    """Makes resources as a run would that was killed then."""

    def __init__(self) -> None:
        self.ec2 = client("ec2")
        self.vpc = self.ec2.create_vpc(CidrBlock="10.20.0.0/16", TagSpecifications=specification("vpc", tags("vpc")))[
            "Vpc"
        ]["VpcId"]
        self.subnet = self._subnet("10.20.1.0/24", "hosts")

    def _subnet(self, cidr: str, name: str) -> str:
        made = self.ec2.create_subnet(
            VpcId=self.vpc, CidrBlock=cidr, TagSpecifications=specification("subnet", tags(name))
        )
        return str(made["Subnet"]["SubnetId"])

    def _group(self) -> str:
        made = self.ec2.create_security_group(
            GroupName="prometheus-sg-1", Description="d", VpcId=self.vpc,
            TagSpecifications=specification("security-group", tags("prometheus")),
        )  # fmt: skip
        return str(made["GroupId"])

    def _table(self) -> str:
        made = self.ec2.create_route_table(
            VpcId=self.vpc, TagSpecifications=specification("route-table", tags("table"))
        )
        return str(made["RouteTable"]["RouteTableId"])

    def _gateway(self) -> str:
        made = self.ec2.create_internet_gateway(TagSpecifications=specification("internet-gateway", tags("igw")))
        return str(made["InternetGateway"]["InternetGatewayId"])

    def network(self) -> Made:
        return {"cidrBlock": "10.20.0.0/16", "tags": tags("vpc")}, self.vpc

    def subnets(self) -> Made:
        # Beside it a subnet of another range with the same tags, as a change of settings would leave it.
        self._subnet("10.20.2.0/24", "hosts")
        return {"vpcId": self.vpc, "cidrBlock": "10.20.1.0/24", "tags": tags("hosts")}, self.subnet

    def gateway(self) -> Made:
        return {"vpcId": self.vpc, "tags": tags("igw")}, self._gateway()

    def address(self) -> Made:
        made = self.ec2.allocate_address(Domain="vpc", TagSpecifications=specification("elastic-ip", tags("nat")))
        return {"domain": "vpc", "tags": tags("nat")}, made["AllocationId"]

    def nat(self) -> Made:
        made = self.ec2.create_nat_gateway(
            SubnetId=self.subnet, AllocationId=self.address()[1],
            TagSpecifications=specification("natgateway", tags("nat")),
        )  # fmt: skip
        return {"subnetId": self.subnet, "tags": tags("nat")}, made["NatGateway"]["NatGatewayId"]

    def table(self) -> Made:
        return {"vpcId": self.vpc, "tags": tags("table")}, self._table()

    def route(self) -> Made:
        table, gateway = self._table(), self._gateway()
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=self.vpc)
        self.ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
        inputs = {"routeTableId": table, "destinationCidrBlock": "0.0.0.0/0", "gatewayId": gateway}
        return inputs, f"r-{table}1080289494"

    def association(self) -> Made:
        table = self._table()
        made = self.ec2.associate_route_table(RouteTableId=table, SubnetId=self.subnet)
        return {"routeTableId": table, "subnetId": self.subnet}, made["AssociationId"]

    def endpoint(self) -> Made:
        service = "com.amazonaws.us-east-1.s3"
        made = self.ec2.create_vpc_endpoint(
            VpcId=self.vpc, ServiceName=service, TagSpecifications=specification("vpc-endpoint", tags("s3"))
        )
        inputs = {"vpcId": self.vpc, "serviceName": service, "tags": tags("s3")}
        return inputs, made["VpcEndpoint"]["VpcEndpointId"]

    def flow_log(self) -> Made:
        made = self.ec2.create_flow_logs(
            ResourceIds=[self.vpc], ResourceType="VPC", TrafficType="ALL", LogGroupName="/atlas/dev/flow-logs",
            DeliverLogsPermissionArn="arn:aws:iam::123456789012:role/flow-logs",
            TagSpecifications=specification("vpc-flow-log", tags("flow-logs")),
        )  # fmt: skip
        return {"vpcId": self.vpc, "tags": tags("flow-logs")}, made["FlowLogIds"][0]

    def group(self) -> Made:
        return {"vpcId": self.vpc, "name": "prometheus-sg-1", "tags": tags("prometheus")}, self._group()

    def egress(self) -> Made:
        """Two rules with equal tags, as the program makes them: they differ by port."""
        group = self._group()
        made = [
            self.ec2.authorize_security_group_egress(
                GroupId=group,
                IpPermissions=[
                    {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
                ],
                TagSpecifications=specification("security-group-rule", tags("prometheus")),
            )["SecurityGroupRules"][0]["SecurityGroupRuleId"]
            for port in (80, 443)
        ]
        inputs = {"securityGroupId": group, "ipProtocol": "tcp", "fromPort": 443, "toPort": 443}
        return {**inputs, "cidrIpv4": "0.0.0.0/0", "tags": tags("prometheus")}, made[1]

    def ingress(self) -> Made:
        group = self._group()
        made = self.ec2.authorize_security_group_ingress(
            GroupId=group,
            IpPermissions=[
                {"IpProtocol": "tcp", "FromPort": 9090, "ToPort": 9090, "UserIdGroupPairs": [{"GroupId": group}]}
            ],
            TagSpecifications=specification("security-group-rule", tags("monitoring")),
        )["SecurityGroupRules"][0]["SecurityGroupRuleId"]
        inputs = {"securityGroupId": group, "ipProtocol": "tcp", "fromPort": 9090, "toPort": 9090}
        return {**inputs, "referencedSecurityGroupId": group, "tags": tags("monitoring")}, made

    def volume(self) -> Made:
        made = self.ec2.create_volume(
            AvailabilityZone="us-east-1a", Size=1, TagSpecifications=specification("volume", tags("prometheus-data"))
        )
        return {"availabilityZone": "us-east-1a", "tags": tags("prometheus-data")}, made["VolumeId"]

    def template(self) -> Made:
        made = self.ec2.create_launch_template(
            LaunchTemplateName="atlas-dev-node-1", LaunchTemplateData={"InstanceType": "t3.small"},
            TagSpecifications=specification("launch-template", tags("nodes")),
        )  # fmt: skip
        return {"name": "atlas-dev-node-1", "tags": tags("nodes")}, made["LaunchTemplate"]["LaunchTemplateId"]

    def instance(self) -> Made:
        image = self.ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        ids = [
            self.ec2.run_instances(
                ImageId=image, MinCount=1, MaxCount=1, SubnetId=self.subnet,
                TagSpecifications=specification("instance", tags("grafana")),
            )["Instances"][0]["InstanceId"]
            for _ in range(2)
        ]  # fmt: skip
        self.ec2.terminate_instances(InstanceIds=ids[:1])  # the host that was replaced
        return {"subnetId": self.subnet, "tags": tags("grafana")}, ids[1]

    def key(self) -> Made:
        kms = client("kms")
        made = [
            kms.create_key(Tags=[{"TagKey": key, "TagValue": value} for key, value in tags("alerts").items()])
            for _ in range(2)
        ]
        kms.schedule_key_deletion(KeyId=made[0]["KeyMetadata"]["KeyId"], PendingWindowInDays=7)
        return {"tags": tags("alerts")}, made[1]["KeyMetadata"]["KeyId"]

    def secret(self) -> Made:
        made = client("secretsmanager").create_secret(
            Name="atlas-dev/grafana-admin-1", SecretString="x", Tags=tag_list(tags("grafana"))
        )
        return {"namePrefix": "atlas-dev/grafana-admin-", "tags": tags("grafana")}, made["ARN"]

    def budget(self) -> Made:
        client("budgets").create_budget(
            AccountId="123456789012",
            Budget={
                "BudgetName": "b-1", "BudgetType": "COST", "TimeUnit": "MONTHLY",
                "BudgetLimit": {"Amount": "1", "Unit": "USD"},
            },
        )  # fmt: skip
        return {"name": "b-1"}, "123456789012:b-1"


POD_IDENTITY = "aws:eks/podIdentityAssociation:PodIdentityAssociation"
"""moto has no such associations."""
MAKERS: Mapping[str, Callable[[Account], Made]] = {
    "aws:budgets/budget:Budget": Account.budget,
    "aws:ebs/volume:Volume": Account.volume,
    "aws:ec2/eip:Eip": Account.address,
    "aws:ec2/flowLog:FlowLog": Account.flow_log,
    "aws:ec2/instance:Instance": Account.instance,
    "aws:ec2/internetGateway:InternetGateway": Account.gateway,
    "aws:ec2/launchTemplate:LaunchTemplate": Account.template,
    "aws:ec2/natGateway:NatGateway": Account.nat,
    "aws:ec2/route:Route": Account.route,
    "aws:ec2/routeTable:RouteTable": Account.table,
    "aws:ec2/routeTableAssociation:RouteTableAssociation": Account.association,
    "aws:ec2/securityGroup:SecurityGroup": Account.group,
    "aws:ec2/subnet:Subnet": Account.subnets,
    "aws:ec2/vpc:Vpc": Account.network,
    "aws:ec2/vpcEndpoint:VpcEndpoint": Account.endpoint,
    "aws:kms/key:Key": Account.key,
    "aws:secretsmanager/secret:Secret": Account.secret,
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": Account.egress,
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": Account.ingress,
}


def test_every_type_that_is_looked_for_is_made_in_these_tests() -> None:
    assert MAKERS.keys() | {POD_IDENTITY} == {*TAGGED, *OTHERS}


@pytest.mark.parametrize("kind", MAKERS)
def test_resource_is_found_unless_the_state_has_it_or_it_is_anothers(kind: str) -> None:
    said: list[str] = []
    find = finder(Place("dev", "us-east-1", None, disposable=True), said.append)
    inputs, identifier = MAKERS[kind](Account())
    found = find(kind, inputs, ())
    assert found is not None
    assert found[0] == identifier
    assert find(kind, inputs, {identifier}) is None
    for key in ("tags", "name", "subnetId", "destinationCidrBlock", "namespace"):
        if key in inputs:
            other = {**OWN, "stack": "prod"} if key == "tags" else "other"
            assert find(kind, {**inputs, key: other}, ()) is None, key
    assert said == []


def test_pod_identity_association_is_found_by_what_it_connects() -> None:
    place = Place("dev", "us-east-1", None, disposable=True)
    place.clients["eks"] = client("eks")
    inputs = {"clusterName": "c", "namespace": "n", "serviceAccount": "s", "tags": OWN}
    with Stubber(place.clients["eks"]) as eks:
        eks.add_response(
            "list_pod_identity_associations",
            {"associations": [{"clusterName": "c", "associationId": "a-1"}]},
            {"clusterName": "c", "namespace": "n", "serviceAccount": "s"},
        )
        assert finder(place, lambda _: None)(POD_IDENTITY, inputs, ()) == ("a-1", {**inputs, "associationId": "a-1"})


def test_of_two_that_fit_neither_is_taken() -> None:
    account = Account()
    inputs, _ = account.address()
    account.address()
    find = finder(Place("dev", "us-east-1", None, disposable=True), lambda _: None)
    assert find("aws:ec2/eip:Eip", inputs, ()) is None
    assert find("aws:sns/topic:Topic", {"name": "t"}, ()) is None


def test_account_that_cannot_be_asked_is_told_and_the_run_goes_on() -> None:
    said: list[str] = []
    place = Place("dev", "us-east-1", None, disposable=True)
    place.clients["ec2"] = client("ec2")
    place.clients["ec2"].meta.events.register("before-call.ec2", _denied)
    find = finder(place, said.append)
    assert find("aws:ec2/vpc:Vpc", {"tags": OWN}, ()) is None
    (line,) = said
    assert line.startswith("  Vpc: can't look for it: denied (")


def _denied(**_: Any) -> None:
    raise ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": "no"}}, "DescribeVpcs")


def test_tags_and_inputs_tell_apart_all_that_the_program_makes() -> None:
    seen: dict[tuple[Any, ...], str] = {}
    for call in up("full").world.existing().values():
        if call.token in TAGGED:
            compared = tuple(str(call.inputs.get(key)) for key in TAGGED[call.token].same)
            mark = (call.token, tuple(sorted(call.inputs["tags"].items())), *compared)
            assert mark not in seen, (seen[mark], call.name)
            seen[mark] = call.name
    assert len(seen) > 30
