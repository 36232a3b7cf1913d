"""What AWS, Kubernetes and the others would answer: plausible ids, ARNs, addresses."""

import base64
import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from typing import Any

ACCOUNT, REGION = "123456789012", "us-east-1"
CLUSTER_ENDPOINT = "ATLAS_RECORD_CLUSTER"
"""JSON with endpoint and certificateAuthority of a real cluster, where there is one."""
REGISTRY = "ATLAS_RECORD_REGISTRY"
"""Host of a real registry instead of ECR's, where there is one."""

MADE_PREFIXES = {
    "Vpc": "vpc", "Subnet": "subnet", "InternetGateway": "igw", "NatGateway": "nat", "RouteTable": "rtb",
    "SecurityGroup": "sg", "DefaultSecurityGroup": "sg", "Instance": "i", "Volume": "vol", "LaunchTemplate": "lt",
    "VpcEndpoint": "vpce", "FlowLog": "fl", "SecurityGroupIngressRule": "sgr", "SecurityGroupEgressRule": "sgr",
    "Eip": "eipalloc",
    "RouteTableAssociation": "rtbassoc", "VolumeAttachment": "vai", "PodIdentityAssociation": "a",
}  # fmt: skip
"""Ids that AWS makes up."""
IDS: Mapping[str, str] = {
    # Ids that are made of inputs, as terraform-provider-aws has them: two of the same inputs are the same thing.
    "AccessEntry": "{clusterName}:{principalArn}",
    "AccessPolicyAssociation": "{clusterName}#{principalArn}#{policyArn}",
    "Addon": "{clusterName}:{addonName}",
    "Bucket": "{bucket}",
    "BucketLifecycleConfiguration": "{bucket}",
    "BucketObjectv2": "{bucket}/{key}",
    "BucketOwnershipControls": "{bucket}",
    "BucketPolicy": "{bucket}",
    "BucketPublicAccessBlock": "{bucket}",
    "BucketServerSideEncryptionConfiguration": "{bucket}",
    "BucketVersioning": "{bucket}",
    "Budget": ACCOUNT + ":{name}",
    "Alias": "{name}",
    "Cluster": "{name}",
    "InstanceProfile": "{name}",
    "LifecyclePolicy": "{repository}",
    "LogGroup": "{name}",
    "MetricAlarm": "{name}",
    "NodeGroup": "{clusterName}:{nodeGroupName}",
    "Repository": "{name}",
    "Role": "{name}",
    "RolePolicy": "{role}:{name}",
    "RolePolicyAttachment": "{role}/{policyArn}",
    "Table": "{name}",
    "Route": "r-{routeTableId}-{destinationCidrBlock}",
}
EC2 = f"arn:aws:ec2:{REGION}:{ACCOUNT}"
ARNS: Mapping[str, str] = {
    "AccessEntry": f"arn:aws:eks:{REGION}:{ACCOUNT}:access-entry/{{clusterName}}/role/{ACCOUNT}/x/{{unique}}",
    "Addon": f"arn:aws:eks:{REGION}:{ACCOUNT}:addon/{{clusterName}}/{{addonName}}/{{unique}}",
    "Bucket": "arn:aws:s3:::{bucket}",
    "BucketObjectv2": "arn:aws:s3:::{bucket}/{key}",
    "Budget": f"arn:aws:budgets::{ACCOUNT}:budget/{{name}}",
    "Cluster": f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{{name}}",
    "DefaultSecurityGroup": f"{EC2}:security-group/{{id}}",
    "Eip": f"{EC2}:elastic-ip/{{id}}",
    "FlowLog": f"{EC2}:vpc-flow-log/{{id}}",
    "InstanceProfile": f"arn:aws:iam::{ACCOUNT}:instance-profile{{path}}{{name}}",
    "InternetGateway": f"{EC2}:internet-gateway/{{id}}",
    "LaunchTemplate": f"{EC2}:launch-template/{{id}}",
    "LogGroup": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{{name}}",
    "MetricAlarm": f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{{name}}",
    "NodeGroup": f"arn:aws:eks:{REGION}:{ACCOUNT}:nodegroup/{{clusterName}}/{{nodeGroupName}}/{{unique}}",
    "OpenIdConnectProvider": f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com",
    "PodIdentityAssociation": f"arn:aws:eks:{REGION}:{ACCOUNT}:podidentityassociation/{{clusterName}}/{{id}}",
    "Policy": f"arn:aws:iam::{ACCOUNT}:policy/{{name}}",
    "Repository": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{{name}}",
    "Role": f"arn:aws:iam::{ACCOUNT}:role{{path}}{{name}}",
    "RouteTable": f"{EC2}:route-table/{{id}}",
    "SecurityGroup": f"{EC2}:security-group/{{id}}",
    "SecurityGroupEgressRule": f"{EC2}:security-group-rule/{{id}}",
    "SecurityGroupIngressRule": f"{EC2}:security-group-rule/{{id}}",
    "Table": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{{name}}",
    "Secret": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{{name}}-{{unique}}",
    "Topic": f"arn:aws:sns:{REGION}:{ACCOUNT}:{{name}}",
    "TopicSubscription": "{topic}:{unique}",
    "Volume": f"{EC2}:volume/{{id}}",
    "VpcEndpoint": f"{EC2}:vpc-endpoint/{{id}}",
}


def made(
    token: str, name: str, inputs: dict[str, Any], environment: Mapping[str, str] = os.environ
) -> tuple[str, dict[str, Any]]:
    """The id and the outputs of a new resource."""
    package, module, kind = token.split(":")
    outputs = {key: value for key, value in inputs.items() if not key.startswith("__")}
    if package == "kubernetes":
        return _kubernetes(kind, outputs)
    if package == "random":
        return "none", {**outputs, "result": hashlib.sha256(os.urandom(8)).hexdigest()[: int(inputs["length"])]}
    if package == "docker-build":
        return _image(outputs)
    unique = uuid.uuid4().hex[:17]
    if kind == "Secret" and "namePrefix" in outputs:
        outputs["name"] = f"{outputs['namePrefix']}{unique}"
    known = {**outputs, "unique": unique[:8]}
    identifier = f"{MADE_PREFIXES[kind]}-{unique}" if kind in MADE_PREFIXES else f"{name}-{unique}"
    if kind in IDS:
        identifier = IDS[kind].format_map(known)
    default = f"arn:aws:{module.split('/')[0]}:{REGION}:{ACCOUNT}:{kind.lower()}/{identifier}"
    arn = ARNS[kind].format_map({"path": "/", **known, "id": identifier}) if kind in ARNS else default
    match kind:
        case "Bucket":
            outputs |= {"bucketDomainName": f"{identifier}.s3.amazonaws.com"}
        case "Repository":
            host = environment.get(REGISTRY) or f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
            outputs |= {"repositoryUrl": f"{host}/{identifier}", "registryId": ACCOUNT}
        case "Eip":
            outputs |= {"allocationId": identifier, "publicIp": "203.0.113.10"}
        case "Instance":
            outputs |= {"publicIp": "203.0.113.20" if inputs.get("associatePublicIpAddress") else ""}
        case "LaunchTemplate":
            outputs |= {"latestVersion": 1, "defaultVersion": 1}
        case "Topic" | "Secret" | "Policy" | "OpenIdConnectProvider":
            identifier = arn
        case "SecretVersion":
            identifier = f"{inputs['secretId']}|{uuid.uuid4()}"
        case "Key":
            identifier = str(uuid.uuid4())
            arn = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{identifier}"
            outputs |= {"keyId": identifier}
        case "Cluster":
            outputs |= _control_plane(outputs, unique, environment)
        case _:
            pass
    outputs |= {"arn": arn}
    if "tags" in outputs:
        outputs["tagsAll"] = outputs["tags"]
    return identifier, outputs


def changed(token: str, old: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """The outputs of a resource after an update."""
    given = {key: value for key, value in inputs.items() if not key.startswith("__")}
    outputs = {**old, **given}
    if token == "aws:ec2/launchTemplate:LaunchTemplate":
        outputs |= {"latestVersion": int(old["latestVersion"]) + 1, "defaultVersion": int(old["latestVersion"]) + 1}
    if token == "docker-build:index:Image":
        _, outputs = _image(given)
    if token.startswith("kubernetes:"):
        # Maps such as labels are the program's alone: what it no longer says is gone.
        outputs = {**given, "metadata": {**given.get("metadata", {}), "uid": old["metadata"]["uid"]}}
        if "status" in old:
            outputs["status"] = old["status"]
    if token == "aws:eks/cluster:Cluster":
        outputs["vpcConfig"] = {**old["vpcConfig"], **inputs.get("vpcConfig", {})}
    if "tags" in given:
        outputs["tagsAll"] = given["tags"]
    return outputs


def _control_plane(inputs: dict[str, Any], unique: str, environment: Mapping[str, str]) -> dict[str, Any]:
    at = json.loads(environment.get(CLUSTER_ENDPOINT) or "{}")
    authority = base64.b64encode(
        f"-----BEGIN CERTIFICATE-----\n{unique}\n-----END CERTIFICATE-----\n".encode()
    ).decode()
    issuer = f"https://oidc.eks.{REGION}.amazonaws.com/id/{unique.upper()}"
    return {
        "endpoint": at.get("endpoint", f"https://{unique.upper()}.gr7.{REGION}.eks.amazonaws.com"),
        "certificateAuthority": {"data": at.get("certificateAuthority", authority)},
        "identities": [{"oidcs": [{"issuer": issuer}]}],
        "vpcConfig": {
            **inputs.get("vpcConfig", {}),
            "clusterSecurityGroupId": f"sg-{unique}",
            "vpcId": f"vpc-of-{unique}",
        },
        "platformVersion": "eks.13",
        "status": "ACTIVE",
    }


def _image(inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    reference = str(inputs["tags"][0])
    digest = "sha256:" + hashlib.sha256(json.dumps([reference, inputs.get("buildArgs")]).encode()).hexdigest()
    return digest, {**inputs, "digest": digest, "ref": f"{reference}@{digest}", "contextHash": digest[-8:]}


def _kubernetes(kind: str, outputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    metadata = {**outputs.get("metadata", {}), "uid": str(uuid.uuid4())}
    outputs["metadata"] = metadata
    if kind == "Service" and outputs.get("spec", {}).get("type") == "LoadBalancer":
        # A test that serves something there says where.
        host = os.environ.get("ATLAS_TEST_BALANCER") or f"{uuid.uuid4().hex[:16]}.elb.{REGION}.amazonaws.com"
        outputs["status"] = {"loadBalancer": {"ingress": [{"hostname": host}]}}
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"]), outputs


def invoked(token: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a function of a provider returns.

    Raises LookupError for one that has no answer here.
    """
    match token:
        case "aws:ecr/getAuthorizationToken:getAuthorizationToken":
            return {
                "id": REGION, "authorizationToken": "QVdTOnRva2Vu", "userName": "AWS", "password": uuid.uuid4().hex,
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
        case "aws:index/getRegion:getRegion":
            return {
                "id": REGION,
                "name": REGION,
                "region": REGION,
                "description": "US East (N. Virginia)",
                "endpoint": "",
            }
        case "aws:index/getAvailabilityZones:getAvailabilityZones":
            zones = [f"{REGION}{letter}" for letter in "abcdef"]
            return {"id": REGION, "names": zones, "zoneIds": zones, "groupNames": [REGION], "region": REGION}
        case "aws:eks/getAddonVersion:getAddonVersion":
            return {"id": arguments["addonName"], "version": "v9.9.9-eksbuild.9", "region": REGION, **arguments}
        case _:
            raise LookupError(f"{token}: the recording provider has no answer for this function")
