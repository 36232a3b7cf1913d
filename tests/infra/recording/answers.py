"""What AWS, Kubernetes and the others would answer: plausible ids, ARNs, addresses; the same for the same resource."""

import base64
import hashlib
import json
import os
import uuid
from typing import Any

ACCOUNT, REGION = "123456789012", "us-east-1"
CLUSTER_ENDPOINT = "ATLAS_RECORD_CLUSTER"
"""JSON with endpoint and certificateAuthority of a real cluster, where there is one."""

REPLACES: dict[str, set[str]] = {
    # Inputs that make another resource: `forceNew` in the providers' schemas.
    "aws:ec2/vpc:Vpc": {"cidrBlock"},
    "aws:ec2/subnet:Subnet": {"vpcId", "cidrBlock", "availabilityZone"},
    "aws:ec2/natGateway:NatGateway": {"subnetId", "allocationId"},
    "aws:ec2/routeTable:RouteTable": {"vpcId"},
    "aws:ec2/route:Route": {"routeTableId", "destinationCidrBlock"},
    "aws:ec2/routeTableAssociation:RouteTableAssociation": {"subnetId"},
    "aws:ec2/securityGroup:SecurityGroup": {"vpcId", "description", "name"},
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": {"securityGroupId"},
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": {"securityGroupId"},
    "aws:ec2/instance:Instance": {"subnetId", "privateIp", "associatePublicIpAddress", "ami", "availabilityZone"},
    "aws:ebs/volume:Volume": {"availabilityZone", "encrypted", "kmsKeyId"},
    "aws:ec2/volumeAttachment:VolumeAttachment": {"volumeId", "instanceId", "deviceName"},
    "aws:ec2/launchTemplate:LaunchTemplate": {"name", "namePrefix"},
    "aws:eks/cluster:Cluster": {"name", "roleArn", "encryptionConfig"},
    "aws:eks/nodeGroup:NodeGroup": {"clusterName", "nodeGroupName", "nodeRoleArn", "subnetIds", "instanceTypes"},
    "aws:eks/addon:Addon": {"clusterName", "addonName"},
    "aws:eks/accessEntry:AccessEntry": {"clusterName", "principalArn", "type"},
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": {"clusterName", "namespace", "serviceAccount"},
    "aws:iam/role:Role": {"name", "namePrefix", "path"},
    "aws:iam/rolePolicy:RolePolicy": {"role", "name"},
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": {"role", "policyArn"},
    "aws:s3/bucket:Bucket": {"bucket", "bucketPrefix"},
    "aws:s3/bucketObjectv2:BucketObjectv2": {"bucket", "key"},
    "aws:ecr/repository:Repository": {"name", "encryptionConfigurations"},
    "aws:cloudwatch/logGroup:LogGroup": {"name"},
    "aws:sns/topicSubscription:TopicSubscription": {"topic", "protocol", "endpoint"},
    "aws:secretsmanager/secret:Secret": {"name", "namePrefix"},
    "aws:secretsmanager/secretVersion:SecretVersion": {"secretId", "secretString"},
    "random:index/randomPassword:RandomPassword": {"length", "special"},
    "kubernetes:core/v1:Namespace": {"metadata.name"},
}
KEPT_WHOLE = frozenset({"kubernetes:core/v1:ConfigMap", "kubernetes:core/v1:Secret"})
"""Replaced by any change, where they are immutable."""
PREFIXES = {
    "Vpc": "vpc", "Subnet": "subnet", "InternetGateway": "igw", "NatGateway": "nat", "RouteTable": "rtb",
    "SecurityGroup": "sg", "DefaultSecurityGroup": "sg", "Instance": "i", "Volume": "vol", "LaunchTemplate": "lt",
    "VpcEndpoint": "vpce", "SecurityGroupIngressRule": "sgr", "SecurityGroupEgressRule": "sgr", "Eip": "eipalloc",
}  # fmt: skip


def made(token: str, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The id and the outputs of a new resource."""
    package, module, kind = token.split(":")
    outputs = {key: value for key, value in inputs.items() if not key.startswith("__")}
    if package == "kubernetes":
        return _kubernetes(kind, name, outputs)
    if package == "random":
        return "none", {**outputs, "result": hashlib.sha256(os.urandom(8)).hexdigest()[: int(inputs["length"])]}
    if package == "docker-build":
        reference = str(inputs["tags"][0])
        digest = "sha256:" + hashlib.sha256(reference.encode()).hexdigest()
        return digest, {**outputs, "digest": digest, "ref": f"{reference}@{digest}", "contextHash": digest[-8:]}
    unique = uuid.uuid4().hex[:17]
    service = module.split("/")[0]
    label = str(outputs.get("name") or outputs.get("bucket") or f"{outputs.get('namePrefix') or name + '-'}{unique[:7]}")
    identifier = f"{PREFIXES[kind]}-{unique}" if kind in PREFIXES else label
    path = f"{kind.lower()}/{label}"
    arn = f"arn:aws:{service}:{REGION}:{ACCOUNT}:{path}"
    match kind:
        case "Role" | "InstanceProfile":
            arn = f"arn:aws:iam::{ACCOUNT}:{kind[0].lower() + kind[1:]}/{label}"
            outputs |= {"name": label}
        case "Bucket":
            arn = f"arn:aws:s3:::{label}"
            outputs |= {"bucket": label, "bucketDomainName": f"{label}.s3.amazonaws.com"}
        case "BucketObjectv2":
            identifier = f"{inputs['bucket']}/{inputs['key']}"
        case "Repository":
            arn = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{label}"
            registry = os.environ.get("ATLAS_RECORD_REGISTRY", f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com")
            outputs |= {"repositoryUrl": f"{registry}/{label}", "registryId": ACCOUNT}
        case "Eip":
            outputs |= {"allocationId": identifier, "publicIp": "203.0.113.10"}
        case "Instance":
            outputs |= {"publicIp": "203.0.113.20" if inputs.get("associatePublicIpAddress") else ""}
        case "LaunchTemplate":
            outputs |= {"latestVersion": 1, "defaultVersion": 1}
        case "Topic":
            arn = identifier = f"arn:aws:sns:{REGION}:{ACCOUNT}:{label}"
        case "Key":
            identifier = str(uuid.uuid4())
            arn = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{identifier}"
        case "Secret":
            arn = identifier = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{label}"
        case "Cluster":
            arn = f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{label}"
            at = json.loads(os.environ.get(CLUSTER_ENDPOINT) or "{}")
            outputs |= {
                "endpoint": at.get("endpoint", f"https://{unique.upper()}.gr7.{REGION}.eks.amazonaws.com"),
                "certificateAuthority": {"data": at.get("certificateAuthority", base64.b64encode(_PEM).decode())},
                "vpcConfig": {**outputs.get("vpcConfig", {}), "clusterSecurityGroupId": f"sg-{unique}", "vpcId": "vpc-1"},
                "platformVersion": "eks.13",
                "status": "ACTIVE",
            }
        case _:
            pass
    if kind not in ("Bucket", "BucketObjectv2", "Role", "Repository", "Cluster") and "name" in _named(kind):
        outputs.setdefault("name", label)
    outputs |= {"arn": arn}
    if "tags" in outputs:
        outputs["tagsAll"] = outputs["tags"]
    return identifier, outputs


def changed(token: str, old: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """The outputs of a resource after an update."""
    outputs = {**old, **{key: value for key, value in inputs.items() if not key.startswith("__")}}
    if token == "aws:ec2/launchTemplate:LaunchTemplate":
        outputs |= {"latestVersion": int(old["latestVersion"]) + 1, "defaultVersion": int(old["latestVersion"]) + 1}
    if token == "docker-build:index:Image":
        _, outputs = made(token, "", inputs)
    if token.startswith("kubernetes:"):
        outputs["metadata"] = {**old.get("metadata", {}), **inputs.get("metadata", {})}
        if token.endswith(":Service"):
            outputs["status"] = old["status"]
    if token == "aws:eks/cluster:Cluster":
        outputs["vpcConfig"] = {**old["vpcConfig"], **inputs.get("vpcConfig", {})}
    return outputs


def _named(kind: str) -> set[str]:
    return {"name"} if kind in ("SecurityGroup", "InstanceProfile", "LogGroup", "Topic", "Key", "RolePolicy") else set()


def _kubernetes(kind: str, name: str, outputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    metadata = {"namespace": "default", **outputs.get("metadata", {})}
    metadata.setdefault("name", f"{name}-{uuid.uuid4().hex[:8]}")
    metadata["uid"] = str(uuid.uuid4())
    outputs["metadata"] = metadata
    if kind == "Service":
        host = f"{uuid.uuid4().hex[:16]}.elb.{REGION}.amazonaws.com"
        outputs["status"] = {"loadBalancer": {"ingress": [{"hostname": host}]}}
    return f"{metadata['namespace']}/{metadata['name']}", outputs


def invoked(token: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a function of a provider returns."""
    match token:
        case "aws:ecr/getAuthorizationToken:getAuthorizationToken":
            return {
                "id": REGION, "authorizationToken": "QVdTOnRva2Vu", "userName": "AWS", "password": "token",
                "expiresAt": "2026-01-01T00:00:00Z", "proxyEndpoint": f"https://{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com",
                "region": REGION, **arguments,
            }  # fmt: skip
        case "aws:ssm/getParameter:getParameter":
            name = str(arguments["name"])
            value = "ami-0123456789abcdef0"
            return {
                "id": name, "arn": f"arn:aws:ssm:{REGION}::parameter{name}", "name": name, "type": "String",
                "value": value, "insecureValue": value, "version": 1, "region": REGION,
            }  # fmt: skip
        case "aws:index/getPartition:getPartition":
            return {"id": "aws", "partition": "aws", "dnsSuffix": "amazonaws.com", "reverseDnsPrefix": "com.amazonaws"}
        case "aws:index/getCallerIdentity:getCallerIdentity":
            return {"id": ACCOUNT, "accountId": ACCOUNT, "arn": f"arn:aws:iam::{ACCOUNT}:role/deploy", "userId": "A"}
        case _:
            raise LookupError(f"{token}: the recording provider has no answer for this function")


_PEM = b"-----BEGIN CERTIFICATE-----\nMIIBdummy\n-----END CERTIFICATE-----\n"
