"""Finds resources that a killed run created without recording their ids: by their tags, or by what they connect."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from zlib import crc32

import jmespath  # type: ignore[import-untyped]  # boto3's own query language
from botocore.exceptions import BotoCoreError, ClientError

from infra.leftovers.ec2 import EC2, Ec2, state_of
from infra.leftovers.place import Place, raise_expired, reason, tags_of

RULE = Ec2("rule", "describe_security_group_rules", "SecurityGroupRules[]", "SecurityGroupRuleId", "")
"""A rule of a security group; `atlas destroy` doesn't look for rules, because they are deleted with their group."""
RULE_INPUTS = {
    "securityGroupId": "GroupId", "ipProtocol": "IpProtocol", "fromPort": "FromPort", "toPort": "ToPort",
    "cidrIpv4": "CidrIpv4", "referencedSecurityGroupId": "ReferencedGroupInfo.GroupId",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tagged:
    """How EC2 finds a type of resource by its tags."""

    kind: Ec2
    same: Mapping[str, str]
    """Input -> its place in EC2's description, in JMESPath: these must be equal besides the tags."""
    only: str = "@"
    """What must be true in EC2's description, in JMESPath."""


TAGGED: Mapping[str, Tagged] = {
    "aws:ebs/volume:Volume": Tagged(EC2["volume"], {"availabilityZone": "AvailabilityZone"}),
    "aws:ec2/eip:Eip": Tagged(EC2["elastic-ip"], {}),
    "aws:ec2/flowLog:FlowLog": Tagged(EC2["vpc-flow-log"], {"vpcId": "ResourceId"}),
    "aws:ec2/instance:Instance": Tagged(EC2["instance"], {"subnetId": "SubnetId"}),
    "aws:ec2/internetGateway:InternetGateway": Tagged(EC2["internet-gateway"], {}),
    "aws:ec2/launchTemplate:LaunchTemplate": Tagged(EC2["launch-template"], {"name": "LaunchTemplateName"}),
    "aws:ec2/natGateway:NatGateway": Tagged(EC2["natgateway"], {"subnetId": "SubnetId"}),
    "aws:ec2/routeTable:RouteTable": Tagged(EC2["route-table"], {"vpcId": "VpcId"}),
    "aws:ec2/securityGroup:SecurityGroup": Tagged(EC2["security-group"], {"name": "GroupName", "vpcId": "VpcId"}),
    "aws:ec2/subnet:Subnet": Tagged(EC2["subnet"], {"cidrBlock": "CidrBlock", "vpcId": "VpcId"}),
    "aws:ec2/vpc:Vpc": Tagged(EC2["vpc"], {"cidrBlock": "CidrBlock"}),
    "aws:ec2/vpcEndpoint:VpcEndpoint": Tagged(EC2["vpc-endpoint"], {"vpcId": "VpcId", "serviceName": "ServiceName"}),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": Tagged(RULE, RULE_INPUTS, "IsEgress"),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": Tagged(RULE, RULE_INPUTS, "!IsEgress"),
}


Found = tuple[str, Mapping[str, Any]]
"""A resource's id, and the outputs by which the provider reads it; no outputs if it can be imported by its id."""


def finder(
    place: Place, say: Callable[[str], None]
) -> Callable[[str, Mapping[str, Any], Collection[str]], Found | None]:
    """A function that looks for a resource: type, inputs, ids in the state -> what it found, or None.

    It returns None too if two resources fit, because either could be another's; `say` tells if AWS can't be asked.
    """
    return partial(_find, place, say)


def _find(
    place: Place, say: Callable[[str], None], kind: str, inputs: Mapping[str, Any], known: Collection[str]
) -> Found | None:
    try:
        if kind in TAGGED:
            found: list[Found] = [(identifier, {}) for identifier in _by_tags(place, TAGGED[kind], inputs)]
        elif kind in OTHERS:
            found = OTHERS[kind](place, inputs)
        else:
            return None
    except (BotoCoreError, ClientError) as error:
        raise_expired(error)
        say(f"  {kind.rsplit(':', 1)[-1]}: can't look for it: {reason(error)}")
        return None
    unknown = [there for there in found if there[0] not in known]
    return unknown[0] if len(unknown) == 1 else None


def _by_tags(place: Place, how: Tagged, inputs: Mapping[str, Any]) -> list[str]:
    tags = inputs.get("tags")
    if not tags:
        return []
    filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in sorted(tags.items())]
    listed = place.all("ec2", how.kind.operation, how.kind.found, **{how.kind.filters: filters})
    return [
        str(thing[how.kind.key])
        for thing in listed
        if _own(tags_of(thing)) == tags
        and state_of(thing) not in how.kind.gone
        and jmespath.search(how.only, thing)
        and all(inputs[key] == jmespath.search(at, thing) for key, at in how.same.items() if key in inputs)
    ]


def _own(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags without AWS's own."""
    return {key: value for key, value in tags.items() if not key.startswith("aws:")}


def _route(place: Place, inputs: Mapping[str, Any]) -> list[Found]:
    table, network = inputs["routeTableId"], inputs.get("destinationCidrBlock")
    filters = [{"Name": "route-table-id", "Values": [table]}]
    routes = place.all("ec2", "describe_route_tables", "RouteTables[].Routes[]", Filters=filters)
    # The provider's own id (internal/service/ec2/vpc_route.go, routeCreateID); EC2 has none.
    identifier = f"r-{table}{crc32(str(network).encode())}"
    return [(identifier, inputs) for route in routes if route.get("DestinationCidrBlock") == network]


def _association(place: Place, inputs: Mapping[str, Any]) -> list[Found]:
    filters = [{"Name": "route-table-id", "Values": [inputs["routeTableId"]]}]
    links = place.all("ec2", "describe_route_tables", "RouteTables[].Associations[]", Filters=filters)
    subnet = inputs.get("subnetId")
    return [(link["RouteTableAssociationId"], inputs) for link in links if subnet and link.get("SubnetId") == subnet]


def _pod_identity(place: Place, inputs: Mapping[str, Any]) -> list[Found]:
    found = place.all(
        "eks", "list_pod_identity_associations", "associations[].associationId",
        clusterName=inputs["clusterName"], namespace=inputs["namespace"], serviceAccount=inputs["serviceAccount"],
    )  # fmt: skip
    return [(identifier, {**inputs, "associationId": identifier}) for identifier in found]


def _key(place: Place, inputs: Mapping[str, Any]) -> list[Found]:
    client = place.client("kms")
    identifiers = [arn.rsplit("/", 1)[-1] for arn in _listed(place, "kms:key", inputs)]
    return [(key, {}) for key in identifiers if client.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Enabled"]


def _secret(place: Place, inputs: Mapping[str, Any]) -> list[Found]:
    client = place.client("secretsmanager")
    listed = _listed(place, "secretsmanager:secret", inputs)
    return [(arn, {}) for arn in listed if "DeletedDate" not in client.describe_secret(SecretId=arn)]


def _listed(place: Place, kind: str, inputs: Mapping[str, Any]) -> list[str]:
    """ARNs from the tagging API, which lists new resources with a delay of some seconds."""
    tags = inputs.get("tags") or {}
    filters = [{"Key": key, "Values": [value]} for key, value in sorted(tags.items())]
    listed = place.all(
        "resourcegroupstaggingapi", "get_resources", "ResourceTagMappingList[]",
        TagFilters=filters, ResourceTypeFilters=[kind],
    )  # fmt: skip
    return [found["ResourceARN"] for found in listed if tags and _own(tags_of(found)) == tags]


def _budget(place: Place, inputs: Mapping[str, Any]) -> list[Found]:
    account = place.client("sts").get_caller_identity()["Account"]
    client = place.client("budgets")
    try:
        client.describe_budget(AccountId=account, BudgetName=inputs["name"])
    except client.exceptions.NotFoundException:
        return []
    return [(f"{account}:{inputs['name']}", {})]


OTHERS: Mapping[str, Callable[[Place, Mapping[str, Any]], list[Found]]] = {
    "aws:budgets/budget:Budget": _budget,
    "aws:ec2/route:Route": _route,
    "aws:ec2/routeTableAssociation:RouteTableAssociation": _association,
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": _pod_identity,
    "aws:kms/key:Key": _key,
    "aws:secretsmanager/secret:Secret": _secret,
}
