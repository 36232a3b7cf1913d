"""The requests that AWS authorises for the recorded resources: action, resource, and the keys of the conditions.

tests/infra/support/needed.py knows the actions; this module adds what IAM evaluates besides them. An action is
authorised for each of its resources (AWS's published list): a new resource has the request's tags and none of its own;
an existing resource has the tags that it was made with.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from infra.permissions.network import CANONICAL
from tests.infra.recording.answers import ACCOUNT, EC2, REGION
from tests.infra.recording.world import Call, World, handles, named
from tests.infra.support.iam import entries_of, fits
from tests.infra.support.needed import MAKE, READ, REMOVE

MAKERS = frozenset({
    # Actions that make their resource together with its tags.
    "budgets:ModifyBudget", "cloudwatch:PutMetricAlarm", "dynamodb:CreateTable", "ec2:AllocateAddress",
    "ec2:AuthorizeSecurityGroupEgress", "ec2:AuthorizeSecurityGroupIngress", "ec2:CreateFlowLogs",
    "ec2:CreateInternetGateway", "ec2:CreateLaunchTemplate",
    "ec2:CreateNatGateway", "ec2:CreateRouteTable", "ec2:CreateSecurityGroup", "ec2:CreateSubnet", "ec2:CreateVolume",
    "ec2:CreateVpc", "ec2:CreateVpcEndpoint", "ec2:RunInstances", "ecr:CreateRepository", "eks:CreateAccessEntry",
    "eks:CreateAddon", "eks:CreateCluster", "eks:CreateNodegroup", "eks:CreatePodIdentityAssociation",
    "iam:CreateInstanceProfile", "iam:CreateRole", "kms:CreateKey", "logs:CreateLogGroup", "s3:CreateBucket",
    "secretsmanager:CreateSecret", "sns:CreateTopic",
})  # fmt: skip
INSTANCE = "aws:ec2/instance:Instance"
LATE = "aws:kms/key:Key"
"""The type whose tags don't count at once: for up to five minutes KMS authorises as if a new key had no tags."""
AFTER_CREATION = frozenset({"kms:CreateGrant", "kms:DescribeKey", "kms:EnableKeyRotation", "kms:TagResource"})
"""What the provider and EKS ask of a key within these minutes, besides what is read of it."""
LINKED: Mapping[str, str] = {"aws:eks/cluster:Cluster": "eks", "aws:eks/nodeGroup:NodeGroup": "eks-nodegroup"}
"""Type -> the service whose linked role its first resource makes."""
PASSED_TO: Mapping[str, str] = {
    INSTANCE: "ec2", "aws:iam/instanceProfile:InstanceProfile": "ec2",
    "aws:ec2/flowLog:FlowLog": "vpc-flow-logs",
    "aws:eks/cluster:Cluster": "eks", "aws:eks/nodeGroup:NodeGroup": "eks",
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": "pods.eks",
}  # fmt: skip
"""Type -> the service that gets its role."""


@dataclass(frozen=True, slots=True)
class Request:
    """What IAM evaluates: a single action on a single resource."""

    action: str
    resource: str
    context: Mapping[str, str]
    """Condition key -> value."""
    of: str
    """Type and name of the recorded resource."""


@dataclass(frozen=True, slots=True)
class Target:
    """A resource in AWS: its ARN, and the tags that it has before the request."""

    arn: str
    tags: Mapping[str, str]
    kind: str = ""


class Requests:
    """The requests for everything that exists in a recorded world."""

    def __init__(self, world: World) -> None:
        self.calls = [call for call in world.existing().values() if call.token.startswith("aws:")]
        self.by_handle: dict[str, tuple[Target, Call]] = {}
        for call in self.calls:
            for handle in (*handles(call), *_more_handles(call)):
                self.by_handle[handle] = (Target(str(call.outputs["arn"]), _tags(call), call.token), call)
            if call.token == "aws:eks/cluster:Cluster":
                group = str(call.outputs["vpcConfig"]["clusterSecurityGroupId"])
                owned = {f"kubernetes.io/cluster/{call.inputs['name']}": "owned"}
                self.by_handle[group] = (Target(f"{EC2}:security-group/{group}", owned), call)

    def make(self) -> Iterator[Request]:
        """To make every resource, and to change it later."""
        for call in self.calls:
            for action in MAKE[_type(call)]:
                yield from self._make(call, action)

    def read(self) -> Iterator[Request]:
        """To look at every resource."""
        for call in self.calls:
            for action in READ[_type(call)]:
                yield from self._on_existing(call, action)

    def read_new(self) -> Iterator[Request]:
        """To look at what has just been made, before its tags count."""
        for call in self.calls:
            if call.token == LATE:
                for action in READ[_type(call)]:
                    yield _request(call, action, Target(str(call.outputs["arn"]), {}))

    def remove(self) -> Iterator[Request]:
        """To delete every resource."""
        for call in self.calls:
            for action in REMOVE[_type(call)]:
                yield from self._on_existing(call, action)

    def _make(self, call: Call, action: str) -> Iterator[Request]:
        match action:
            case "ec2:RunInstances":
                yield from self._run(call)
            case "ec2:CreateTags" | "ec2:DeleteTags":
                yield from self._tag(call, action)
            case "ec2:ModifyVolume" if call.token == INSTANCE:
                yield _request(call, action, self._root_disk(call))
            case "iam:PassRole":
                service = f"{PASSED_TO[call.token]}.amazonaws.com"
                for role in self._roles(call):
                    yield _request(call, action, role, {"iam:PassedToService": service})
            case "iam:CreateServiceLinkedRole":
                service = f"{LINKED[call.token]}.amazonaws.com"
                role = Target(f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/{service}/AWSServiceRoleForIt", {})
                yield _request(call, action, role, {"iam:AWSServiceName": service})
            case _ if action in MAKERS:
                yield from self._create(call, action)
            case _:
                yield from self._on_existing(call, action, _request_tags(_tags(call)) if "Tag" in action else {})
                if action in AFTER_CREATION:
                    yield from self._on_new_key(call, action)

    def _create(self, call: Call, action: str) -> Iterator[Request]:
        """A call that makes its resource with its tags, in or beside resources that exist."""
        requested = {**_request_tags(_tags(call)), **self._more_keys(call, action)}
        arn = str(call.outputs["arn"])
        if fits(arn, action) or not _has_resource(action):
            yield _request(call, action, Target(arn if fits(arn, action) else "*", {}), requested)
        for target in self._named(call):
            if fits(target.arn, action):
                yield _request(call, action, target, requested)

    def _on_new_key(self, call: Call, action: str) -> Iterator[Request]:
        """A key's tags don't count yet."""
        own = Target(str(call.outputs["arn"]), {}, call.token)
        given = {**(_request_tags(_tags(call)) if "Tag" in action else {}), **self._more_keys(call, action)}
        for key in (own, *self._named(call)):
            if key.kind == LATE:
                yield _request(call, action, Target(key.arn, {}), given)

    def _run(self, call: Call) -> Iterator[Request]:
        """An instance, or the try with which EKS checks a node group's launch template."""
        made = self._run_tags(call)
        for kind in ("instance", "volume", "network-interface"):
            tags = made.get(kind, {})
            new = Target(f"{EC2}:{kind}/*", {})
            yield _request(call, "ec2:RunInstances", new, _request_tags(tags))
            if tags:
                yield _request(call, "ec2:CreateTags", new, {**_request_tags(tags), "ec2:CreateAction": "RunInstances"})
        owner = CANONICAL if call.token == INSTANCE else "amazon"
        image = Target(f"arn:aws:ec2:{REGION}::image/ami-0123456789abcdef0", {})
        yield _request(call, "ec2:RunInstances", image, {"ec2:Owner": owner})
        for target in self._named(call):
            if fits(target.arn, "ec2:RunInstances"):
                yield _request(call, "ec2:RunInstances", target)

    def _tag(self, call: Call, action: str) -> Iterator[Request]:
        """Tags that come with the making call, and later changes of them."""
        arn, tags = str(call.outputs["arn"]), _tags(call)
        if not fits(arn, action):
            return  # a node group's CreateTags are those of RunInstances
        makers = [maker for maker in MAKE[_type(call)] if maker in MAKERS and maker != "ec2:RunInstances"]
        if action == "ec2:CreateTags":
            for maker in makers:
                created = {**_request_tags(tags), "ec2:CreateAction": maker.removeprefix("ec2:")}
                yield _request(call, action, Target(arn, {}), created)
            if call.token == "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup":
                yield _request(call, action, Target(arn, {}), _request_tags(tags))  # AWS made it, without tags
            if call.token == INSTANCE:
                disk = call.inputs["rootBlockDevice"]["tags"]
                yield _request(call, action, self._root_disk(call), _request_tags(disk))
        yield _request(call, action, Target(arn, tags), _request_tags(tags))

    def _root_disk(self, call: Call) -> Target:
        """An instance's root volume, with the tags that it was made with."""
        return Target(f"{EC2}:volume/vol-1", self._run_tags(call).get("volume", {}))

    def _run_tags(self, call: Call) -> dict[str, Mapping[str, str]]:
        """Type of resource -> the tags that RunInstances makes it with."""
        template = (
            self.by_handle[call.inputs["launchTemplate"]["id"]][1].inputs if "launchTemplate" in call.inputs else {}
        )
        made = {str(one["resourceType"]): one["tags"] for one in template.get("tagSpecifications", [])}
        if call.token == INSTANCE:
            # The provider puts these two into RunInstances; rootBlockDevice.tags come in a later CreateTags.
            made |= {"instance": _tags(call)}
            made |= {"volume": call.inputs["volumeTags"]} if "volumeTags" in call.inputs else {}
        return made

    def _roles(self, call: Call) -> Iterator[Target]:
        """The roles that a resource names, or those of the instance profile that it names."""
        for handle in named(call):
            target, other = self.by_handle.get(handle, (None, None))
            if target and target.kind == "aws:iam/role:Role":
                yield target
            elif target and other and target.kind == "aws:iam/instanceProfile:InstanceProfile":
                yield from self._roles(other)

    def _named(self, call: Call) -> Sequence[Target]:
        # A rule that refers to another group is authorised for its own group alone.
        others = {call.inputs.get("referencedSecurityGroupId")}
        handles_of = [handle for handle in (*named(call), *_more_named(call)) if handle not in others]
        found = [self.by_handle[handle][0] for handle in handles_of if handle in self.by_handle]
        return list({target.arn: target for target in found}.values())

    def _on_existing(self, call: Call, action: str, context: Mapping[str, str] | None = None) -> Iterator[Request]:
        given = {**(context or {}), **self._more_keys(call, action)}
        own = Target(str(call.outputs["arn"]), _tags(call), call.token)
        if not _has_resource(action):
            yield _request(call, action, Target("*", {}), given)
            return
        if call.token == "aws:s3/bucket:Bucket" and "Object" in action and "Configuration" not in action:
            own = Target(f"{own.arn}/any/key", {})
        targets = [target for target in (own, *self._named(call)) if fits(target.arn, action)]
        if not targets:
            raise LookupError(f"{action} of {call.token} {call.name}: on which resource?")
        yield from (_request(call, action, target, given) for target in targets)

    def _more_keys(self, call: Call, action: str) -> dict[str, str]:
        """Keys of a single service: a role's boundary and policy, for whom a grant of KMS is."""
        if action == "kms:CreateGrant":
            return {"kms:GrantIsForAWSResource": "true"}  # EKS makes it, in its caller's name
        role = call
        if call.token in ("aws:iam/rolePolicy:RolePolicy", "aws:iam/rolePolicyAttachment:RolePolicyAttachment"):
            role = self.by_handle[f"aws:iam/role:Role {call.inputs['role']}"][1]
        found = {}
        if "permissionsBoundary" in role.inputs:
            found["iam:PermissionsBoundary"] = str(role.inputs["permissionsBoundary"])
        if "policyArn" in call.inputs:
            found["iam:PolicyARN"] = str(call.inputs["policyArn"])
        return found


def _request(call: Call, action: str, target: Target, more: Mapping[str, str] | None = None) -> Request:
    tags = {f"aws:ResourceTag/{key}": value for key, value in target.tags.items()}
    context = {"aws:RequestedRegion": REGION, **tags, **(more or {})}
    return Request(action, target.arn, context, f"{_type(call)} {call.name}")


def _type(call: Call) -> str:
    return call.token.removeprefix("aws:")


def _tags(call: Call) -> dict[str, str]:
    tags: dict[str, str] = call.inputs.get("tags") or {}
    return tags


def _request_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {f"aws:RequestTag/{key}": value for key, value in tags.items()}


def _has_resource(action: str) -> bool:
    return any(entry["resource_arn_format"] != "*" for entry in entries_of(action))


def _more_handles(call: Call) -> Iterator[str]:
    """Names that only this module needs: an access entry's principal."""
    if call.token == "aws:eks/accessEntry:AccessEntry":
        yield call.id


def _more_named(call: Call) -> Iterator[str]:
    if call.token == "aws:eks/accessPolicyAssociation:AccessPolicyAssociation":
        yield f"{call.inputs['clusterName']}:{call.inputs['principalArn']}"
