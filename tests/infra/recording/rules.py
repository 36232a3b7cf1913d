"""What real providers decide: the names they give, what can't exist twice, which changes make another resource."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""How the engine writes a value that a preview can't know yet."""

REPLACES: Mapping[str, tuple[str, ...]] = {
    # Inputs with ForceNew or RequiresReplace in terraform-provider-aws 6, internal/service/*: of the types in use.
    "aws:budgets/budget:Budget": ("name", "namePrefix", "accountId"),
    "aws:cloudwatch/logGroup:LogGroup": ("name", "namePrefix", "logGroupClass", "skipDestroy"),
    "aws:dynamodb/table:Table": ("hashKey", "importTable", "localSecondaryIndexes", "name", "rangeKey"),
    "aws:ebs/volume:Volume": ("availabilityZone", "encrypted", "kmsKeyId", "snapshotId"),
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": ("vpcId",),
    "aws:ec2/eip:Eip": ("domain", "address", "publicIpv4Pool", "networkBorderGroup"),
    "aws:ec2/instance:Instance": (
        "ami", "associatePublicIpAddress", "availabilityZone", "keyName", "launchTemplate.id", "launchTemplate.name",
        "placementGroup", "privateIp",
        "rootBlockDevice.encrypted", "rootBlockDevice.kmsKeyId", "subnetId", "tenancy",
    ),
    "aws:cloudwatch/metricAlarm:MetricAlarm": ("name",),
    "aws:ec2/flowLog:FlowLog": (
        "deliverCrossAccountRole", "destinationOptions", "eniId", "iamRoleArn", "logDestination", "logDestinationType",
        "logFormat", "maxAggregationInterval", "subnetId", "trafficType", "vpcId",
    ),
    "aws:ec2/launchTemplate:LaunchTemplate": ("name", "namePrefix"),
    "aws:ec2/natGateway:NatGateway": ("allocationId", "connectivityType", "privateIp", "subnetId"),
    "aws:ec2/route:Route": ("destinationCidrBlock", "destinationPrefixListId", "routeTableId"),
    "aws:ec2/routeTable:RouteTable": ("vpcId",),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": ("subnetId", "gatewayId"),
    "aws:ec2/securityGroup:SecurityGroup": ("description", "name", "namePrefix", "vpcId"),
    "aws:ec2/subnet:Subnet": ("availabilityZone", "availabilityZoneId", "cidrBlock", "vpcId"),
    "aws:ec2/volumeAttachment:VolumeAttachment": ("deviceName", "instanceId", "volumeId"),
    "aws:ec2/vpc:Vpc": ("cidrBlock",),
    "aws:ec2/vpcEndpoint:VpcEndpoint": ("serviceName", "vpcEndpointType", "vpcId"),
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": ("policy", "repository"),
    "aws:ecr/repository:Repository": ("encryptionConfigurations", "name"),
    "aws:eks/accessEntry:AccessEntry": ("clusterName", "principalArn", "type"),
    "aws:eks/accessPolicyAssociation:AccessPolicyAssociation": (
        "accessScope", "clusterName", "policyArn", "principalArn",
    ),
    "aws:eks/addon:Addon": ("addonName", "clusterName"),
    "aws:eks/cluster:Cluster": (
        "accessConfig.bootstrapClusterCreatorAdminPermissions", "bootstrapSelfManagedAddons", "kubernetesNetworkConfig",
        "name", "roleArn",
    ),
    "aws:eks/nodeGroup:NodeGroup": (
        "amiType", "capacityType", "clusterName", "diskSize", "instanceTypes", "launchTemplate.id",
        "launchTemplate.name", "nodeGroupName", "nodeRoleArn", "remoteAccess", "subnetIds",
    ),
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": ("clusterName", "namespace", "serviceAccount"),
    "aws:iam/instanceProfile:InstanceProfile": ("name", "namePrefix", "path"),
    "aws:iam/openIdConnectProvider:OpenIdConnectProvider": ("url",),
    "aws:iam/policy:Policy": ("description", "name", "namePrefix", "path"),
    "aws:iam/role:Role": ("name", "namePrefix", "path"),
    "aws:iam/rolePolicy:RolePolicy": ("name", "namePrefix", "role"),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": ("policyArn", "role"),
    "aws:kms/alias:Alias": ("name", "namePrefix"),
    "aws:kms/key:Key": ("customerMasterKeySpec", "keyUsage", "multiRegion"),
    "aws:s3/bucket:Bucket": ("bucket", "bucketPrefix", "objectLockEnabled"),
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": ("bucket",),
    "aws:s3/bucketObjectv2:BucketObjectv2": ("bucket", "key"),
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": ("bucket",),
    "aws:s3/bucketPolicy:BucketPolicy": ("bucket",),
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": ("bucket",),
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": ("bucket",),
    "aws:s3/bucketVersioning:BucketVersioning": ("bucket",),
    "aws:secretsmanager/secret:Secret": ("name", "namePrefix"),
    "aws:secretsmanager/secretVersion:SecretVersion": ("secretBinary", "secretId", "secretString"),
    "aws:sns/topic:Topic": ("fifoTopic", "name", "namePrefix"),
    "aws:sns/topicSubscription:TopicSubscription": ("endpoint", "protocol", "topic"),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": ("securityGroupId",),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": ("securityGroupId",),
    # terraform-provider-random 3, internal/provider/resource_password.go
    "random:index/randomPassword:RandomPassword": (
        "keepers", "length", "lower", "minLower", "minNumeric", "minSpecial", "minUpper", "number", "numeric",
        "overrideSpecial", "special", "upper",
    ),
    # pulumi-kubernetes 4, provider/pkg/provider/diff.go; metadata.name and metadata.namespace of every kind besides.
    "kubernetes:apps/v1:Deployment": ("spec.selector",),
    "kubernetes:core/v1:ConfigMap": ("binaryData", "data"),
    "kubernetes:core/v1:Secret": ("data", "stringData", "type"),
    "kubernetes:core/v1:Service": ("spec.clusterIP",),
    "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding": ("roleRef",),
    "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding": ("roleRef",),
}  # fmt: skip
UPDATED = frozenset({
    # Types of which every change is an update: the Kubernetes ones by diff.go, the rest by their sources.
    "aws:ec2/internetGateway:InternetGateway",
    "docker-build:index:Image",
    "kubernetes:autoscaling/v2:HorizontalPodAutoscaler",
    "kubernetes:core/v1:Namespace",
    "kubernetes:core/v1:ServiceAccount",
    "kubernetes:networking.k8s.io/v1:NetworkPolicy",
    "kubernetes:policy/v1:PodDisruptionBudget",
    "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole",
    "kubernetes:rbac.authorization.k8s.io/v1:Role",
})  # fmt: skip
DELETED_FIRST = frozenset({
    # `DeleteBeforeReplace` in pulumi-aws 7, provider/resources.go.
    "aws:ecr/lifecyclePolicy:LifecyclePolicy",
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
})  # fmt: skip
AUTONAMED: Mapping[str, tuple[str, int]] = {
    # pulumi-aws names these when the program doesn't: property and longest name; 7 hex digits make it unique.
    "aws:budgets/budget:Budget": ("name", 255),
    "aws:cloudwatch/logGroup:LogGroup": ("name", 255),
    "aws:cloudwatch/metricAlarm:MetricAlarm": ("name", 255),
    "aws:dynamodb/table:Table": ("name", 255),
    "aws:ec2/launchTemplate:LaunchTemplate": ("name", 255),
    "aws:ec2/securityGroup:SecurityGroup": ("name", 255),
    "aws:ecr/repository:Repository": ("name", 255),
    "aws:eks/cluster:Cluster": ("name", 255),
    "aws:eks/nodeGroup:NodeGroup": ("nodeGroupName", 255),
    "aws:iam/instanceProfile:InstanceProfile": ("name", 255),
    "aws:iam/policy:Policy": ("name", 128),
    "aws:iam/role:Role": ("name", 64),
    "aws:iam/rolePolicy:RolePolicy": ("name", 255),
    "aws:s3/bucket:Bucket": ("bucket", 63),
    "aws:secretsmanager/secret:Secret": ("name", 255),
    "aws:sns/topic:Topic": ("name", 255),
}
UNIQUE: Mapping[str, tuple[str, str]] = {
    # What AWS lets exist once only, and how it refuses the second.
    "aws:budgets/budget:Budget": ("{name}", "DuplicateRecordException: the budget already exists"),
    "aws:cloudwatch/logGroup:LogGroup": ("{name}", "ResourceAlreadyExistsException: the log group already exists"),
    "aws:cloudwatch/metricAlarm:MetricAlarm": ("{name}", "CloudWatch metric alarm already exists"),
    "aws:dynamodb/table:Table": ("{name}", "ResourceInUseException: Table already exists"),
    "aws:ec2/flowLog:FlowLog": ("{vpcId} {logDestination}", "FlowLogAlreadyExists: there is an existing flow log"),
    "aws:ec2/instance:Instance": ("{subnetId} {privateIp}", "InvalidIPAddress.InUse: the address is in use"),
    "aws:ec2/launchTemplate:LaunchTemplate": ("{name}", "InvalidLaunchTemplateName.AlreadyExistsException"),
    "aws:ec2/route:Route": ("{routeTableId} {destinationCidrBlock}", "RouteAlreadyExists: the route already exists"),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": ("{subnetId}", "Resource.AlreadyAssociated"),
    "aws:ec2/securityGroup:SecurityGroup": ("{vpcId} {name}", "InvalidGroup.Duplicate: the group already exists"),
    "aws:ec2/subnet:Subnet": ("{vpcId} {cidrBlock}", "InvalidSubnet.Conflict: the CIDR conflicts with another subnet"),
    "aws:ec2/volumeAttachment:VolumeAttachment": ("{volumeId}", "VolumeInUse: the volume is attached to an instance"),
    "aws:ecr/repository:Repository": ("{name}", "RepositoryAlreadyExistsException: the repository already exists"),
    "aws:eks/accessEntry:AccessEntry": (
        "{clusterName} {principalArn}", "ResourceInUseException: the access entry is already in use on this cluster",
    ),
    "aws:eks/addon:Addon": ("{clusterName} {addonName}", "ResourceInUseException: Addon already exists."),
    "aws:eks/cluster:Cluster": ("{name}", "ResourceInUseException: Cluster already exists"),
    "aws:eks/nodeGroup:NodeGroup": (
        "{clusterName} {nodeGroupName}", "ResourceInUseException: NodeGroup already exists with the name",
    ),
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": (
        "{clusterName} {namespace} {serviceAccount}", "ResourceInUseException: Association already exists",
    ),
    "aws:iam/instanceProfile:InstanceProfile": ("{name}", "EntityAlreadyExists: the instance profile already exists"),
    "aws:iam/openIdConnectProvider:OpenIdConnectProvider": ("{url}", "EntityAlreadyExists: it already exists"),
    "aws:iam/policy:Policy": ("{name}", "EntityAlreadyExists: the policy already exists"),
    "aws:iam/role:Role": ("{name}", "EntityAlreadyExists: the role already exists"),
    "aws:kms/alias:Alias": ("{name}", "AlreadyExistsException: an alias with the name already exists"),
    "aws:s3/bucket:Bucket": ("{bucket}", "BucketAlreadyOwnedByYou: the bucket exists"),
    "aws:secretsmanager/secret:Secret": ("{name}{namePrefix}", "ResourceExistsException: the secret already exists"),
}  # fmt: skip


def named(token: str, name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs as the provider completes them, as pulumi-terraform-bridge and pulumi-kubernetes do in Check.

    Raises ValueError when the name would be too long.
    """
    complete = dict(new)
    if token in AUTONAMED:
        key, longest = AUTONAMED[token]
        prefixed = f"{key}Prefix" in new or "namePrefix" in new
        complete["__defaults"] = []
        if key not in new and not prefixed:
            given = old[key] if key in old and key in old.get("__defaults", ()) else f"{name}-{_random(name)}"
            if len(given) > longest:
                raise ValueError(f"the name of {name} would have {len(given)} characters; {longest} are allowed")
            complete |= {key: given.lower() if key == "bucket" else given, "__defaults": [key]}
    if _kubernetes(token) and isinstance(new.get("metadata", {}), dict):
        metadata = dict(new.get("metadata") or {})
        if "name" not in metadata and "generateName" not in metadata:
            earlier = old.get("metadata") or {}
            kept = "pulumi.com/autonamed" in (earlier.get("annotations") or {})
            metadata["name"] = earlier["name"] if kept else f"{name}-{_random(name)[:8]}"
            metadata["annotations"] = {**(metadata.get("annotations") or {}), "pulumi.com/autonamed": "true"}
            complete["metadata"] = metadata
    return complete


def _random(name: str) -> str:
    return hashlib.sha256(name.encode() + os.urandom(8)).hexdigest()[:7]


def identity(token: str, inputs: Mapping[str, Any]) -> str | None:
    """What can't exist twice of this resource; None when nothing can collide."""
    if token.startswith("kubernetes:"):
        metadata = inputs["metadata"]
        return f"{metadata.get('namespace', '')}/{metadata.get('name')}"
    if token not in UNIQUE:
        return None
    if token == "aws:ec2/instance:Instance" and not inputs.get("privateIp"):
        return None
    if token == "aws:secretsmanager/secret:Secret" and "namePrefix" in inputs:
        return None
    return UNIQUE[token][0].format_map(_Blank(inputs))


class _Blank(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between old and new inputs."""

    paths: Mapping[str, str]
    """Property path -> add, delete or update."""
    replaces: tuple[str, ...]
    """The paths that make it another resource."""
    deleted_first: bool

    @property
    def keys(self) -> list[str]:
        """The top-level properties."""
        return sorted({_head(path) for path in self.paths})


def difference(token: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Difference:
    """What a provider says to Diff."""
    if token not in REPLACES and token not in UPDATED:
        raise LookupError(f"{token}: rules.py doesn't know which of its inputs make another resource")
    compared = list(_compared("", _comparable(token, old), _comparable(token, new)))
    forced = [*REPLACES.get(token, ()), *(("metadata.name", "metadata.namespace") if _kubernetes(token) else ())]
    if token == "kubernetes:core/v1:Secret" and not (old.get("immutable") or new.get("immutable")):
        # With the provider's enableSecretMutable, which tests/infra/test_api_keys.py looks for.
        forced = [path for path in forced if path not in {"data", "stringData"}]
    if new.get("userDataReplaceOnChange"):
        forced.append("userData")
    if token == "aws:eks/cluster:Cluster" and old.get("encryptionConfig") and not new.get("encryptionConfig"):
        forced.append("encryptionConfig")
    replaces = tuple(path for path, _, _ in compared if any(_within(path, one) or _within(one, path) for one in forced))
    paths = {path: kind for path, kind, _ in compared}
    return Difference(paths, replaces, bool(replaces) and _deleted_first(token, old, new))


def _comparable(token: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in inputs.items() if not key.startswith("__")}
    if token == "docker-build:index:Image":
        # provider/internal/image.go ignores passwords, which change with every login.
        shown["registries"] = [{**entry, "password": ""} for entry in shown.get("registries") or []]
    return {key: _document(value) for key, value in shown.items()}


def _document(value: Any) -> Any:
    """IAM policies and the like are compared as documents, not as texts (the bridge's TransformJSONDocument)."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.dumps(json.loads(value), sort_keys=True)
        except ValueError:
            return value
    return value


def _compared(path: str, old: Any, new: Any) -> Iterator[tuple[str, str, Any]]:
    """Paths that differ, how, and the new value there."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            below = f"{path}.{key}" if path else key
            if old.get(key) is None and new.get(key) is None:
                continue
            if old.get(key) is None:
                yield below, "add", new[key]
            elif new.get(key) is None:
                yield below, "delete", None
            else:
                yield from _compared(below, old[key], new[key])
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _compared(f"{path}[{index}]", before, after)
    elif old != new:
        yield path, "update", new


def _within(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith((f"{prefix}.", f"{prefix}["))


def _head(path: str) -> str:
    return path.split(".", maxsplit=1)[0].split("[", maxsplit=1)[0]


def _kubernetes(token: str) -> bool:
    return token.startswith("kubernetes:")


def _deleted_first(token: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    if token in DELETED_FIRST:
        return True
    if _kubernetes(token):
        # diff.go: named by the program, and the name and namespace stay.
        before, after = old.get("metadata") or {}, new.get("metadata") or {}
        if after == UNKNOWN:
            return False
        given = "pulumi.com/autonamed" not in (after.get("annotations") or {})
        return given and all(before.get(key) == after.get(key) for key in ("name", "namespace"))
    if token in AUTONAMED:
        # pulumi-terraform-bridge, nameRequiresDeleteBeforeReplace: named by the program.
        key = AUTONAMED[token][0]
        return key in new and key not in new.get("__defaults", ())
    return False
