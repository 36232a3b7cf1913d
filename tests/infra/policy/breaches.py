"""Violations that each rule must catch: a recorded resource with a change, or a resource that no stack declares."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from infra.policy.rule import Resource

REMOVED = object()
POD = "spec template spec"
BOX = f"{POD} containers 0"
WORLD = "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class Breach:
    """A violation of a rule."""

    rule: str
    of: str
    """The resource: its name in the variant `full`, after its type if the name isn't unique; or an undeclared type."""
    change: Mapping[str, Any] = field(default_factory=dict)
    """Path of an input, separated by spaces -> its new value. Empty for a stack rule: the resource is left out."""
    told: str = ""

    def inputs(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs with the change."""
        changed: dict[str, Any] = copy.deepcopy(dict(before))
        for path, value in self.change.items():
            *steps, last = [int(step) if step.isdigit() else step for step in path.split(" ")]
            holder: Any = changed
            for step in steps:
                holder = holder[step] if isinstance(step, int) else holder.setdefault(step, {})
            if value is REMOVED:
                del holder[last]
            else:
                holder[last] = value
        return changed


def document(**statement: Any) -> str:
    """A policy with a single statement."""
    return json.dumps({"Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "a"} | statement]})


def tls(**changed: Any) -> str:
    """A policy that refuses plain HTTP; `changed` replaces parts of its statement."""
    refused = {"Bool": {"aws:SecureTransport": "false"}}
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": ["bucket", "bucket/*"]}
    return document(**{**deny, "Condition": refused, **changed})


def found(resources: Sequence[Resource], of: str) -> Resource:
    """The resource that a breach changes."""
    kind, _, name = of.rpartition(" ")
    hits = [one for one in resources if one.name == name and one.kind.endswith(f":{kind}" if kind else "")]
    if not hits and ":" in name:
        return Resource(name, "undeclared", {}, resources[0].settings)
    (hit,) = hits
    return hit


def broken(resources: Sequence[Resource], breach: Breach) -> tuple[Resource | None, list[Resource]]:
    """The changed resource, None if the breach leaves it out; and all resources with the change."""
    before = found(resources, breach.of)
    if not breach.change and ":" not in breach.of:
        return None, [one for one in resources if one is not before]
    after = replace(before, inputs=breach.inputs(before.inputs))
    return after, [*(one for one in resources if one is not before), after]


GITHUB = "token.actions.githubusercontent.com"
TOKEN = "sts:AssumeRoleWithWebIdentity"
TRUSTED = {"Principal": {"Federated": "arn"}, "Action": TOKEN, "Resource": None}
INGRESS, EGRESS = "monitoring-operator-0-grafana", "grafana-out-https"
DEPLOYMENT, SERVICE = "flask-app-deployment", "flask-app-service"
NODES = "NodeGroup atlas-dev-nodes"

BREACHES: Sequence[Breach] = (
    # --- storage ---
    Breach("s3-public-access-blocked", "atlas-dev-data-closed", {"blockPublicPolicy": False}, "blockPublicPolicy must"),
    Breach("s3-public-access-blocked", "atlas-dev-data-closed", {"ignorePublicAcls": REMOVED}, "ignorePublicAcls must"),
    Breach("s3-no-public-acl", "atlas-dev-data-bucket", {"acl": "public-read"}, "acl public-read makes it public"),
    Breach("s3-no-public-acl", "aws:s3/bucketAcl:BucketAcl", {"acl": "authenticated-read"}, "authenticated-read makes"),
    Breach("s3-tls-only", "atlas-dev-data-policy", {"policy": document(Principal={"AWS": "a"})}, "aws:SecureTransport"),
    Breach("s3-tls-only", "atlas-dev-data-policy", {"policy": tls(Effect="Allow")}, "aws:SecureTransport"),
    Breach("s3-tls-only", "atlas-dev-data-policy", {"policy": tls(Action="s3:GetObject")}, "aws:SecureTransport"),
    Breach("s3-tls-only", "atlas-dev-data-policy", {"policy": tls(Resource="bucket")}, "aws:SecureTransport"),
    Breach("s3-tls-only", "atlas-dev-data-policy", {"policy": tls(Condition={"Bool": {}})}, "aws:SecureTransport"),
    Breach("s3-encrypted", "atlas-dev-data-encryption", {"rules": []}, "sseAlgorithm"),
    Breach("s3-versioned", "atlas-dev-data-versioning", {"versioningConfiguration status": "Suspended"}, "Enabled"),
    Breach("s3-closed", "atlas-dev-data-closed", told="no public access block"),
    Breach("s3-closed", "atlas-dev-config-policy", told="no policy that refuses plain HTTP"),
    Breach("s3-closed", "atlas-dev-data-encryption", told="no encryption"),
    Breach("s3-closed", "atlas-dev-data-versioning", told="no versioning"),
    Breach("s3-closed", "aws:s3/bucketV2:BucketV2", {"bucket": "older"}, "undeclared"),
    Breach(
        "no-anonymous-access", "atlas-dev-data-policy", {"policy": document(Principal="*")}, "grants access to everyone"
    ),
    Breach(
        "no-anonymous-access",
        "Key atlas-dev-secrets",
        {"policy": document(Principal={"AWS": ["*"]})},
        "grants access to everyone",
    ),
    Breach("disks-encrypted", "Volume prometheus-data", {"encrypted": False}, "encrypted must be true"),
    Breach("disks-encrypted", "grafana-instance", {"rootBlockDevice": REMOVED}, "rootBlockDevice: encrypted"),
    Breach(
        "disks-encrypted",
        "LaunchTemplate atlas-dev-node",
        {"blockDeviceMappings 0 ebs encrypted": "false"},
        "/dev/xvda",
    ),
    Breach("disks-encrypted", "LaunchTemplate atlas-dev-node", {"blockDeviceMappings": REMOVED}, "blockDeviceMappings"),
    Breach("topics-encrypted", "atlas-dev-topic", {"kmsMasterKeyId": REMOVED}, "kmsMasterKeyId"),
    Breach("parameters-encrypted", "aws:ssm/parameter:Parameter", {"type": "String"}, "SecureString"),
    Breach("tables-recoverable", "Table atlas-dev-features", {"pointInTimeRecovery enabled": False}, "enabled"),
    Breach("tables-recoverable", "Table atlas-dev-features", {"pointInTimeRecovery": REMOVED}, "pointInTimeRecovery"),
    Breach("keys-rotate", "Key atlas-dev-secrets", {"enableKeyRotation": REMOVED}, "enableKeyRotation"),
    Breach("images-fixed-and-scanned", "atlas-dev-repository", {"imageTagMutability": "MUTABLE"}, "IMMUTABLE"),
    Breach("images-fixed-and-scanned", "atlas-dev-repository", {"imageScanningConfiguration": REMOVED}, "scanOnPush"),
    # --- network ---
    Breach("no-remote-login", INGRESS, {"fromPort": 20, "toPort": 25}, "ports 20-25 let SSH in"),
    Breach("no-remote-login", INGRESS, {"ipProtocol": "-1"}, "let RDP in"),
    Breach(
        "no-remote-login",
        "prometheus-sg",
        {"ingress": [{"protocol": "tcp", "fromPort": 22, "toPort": 22, "cidrBlocks": ["10.0.0.0/8"]}]},
        "SSH",
    ),
    Breach("no-ssh-keys", "grafana-instance", {"keyName": "mine"}, "an SSH key"),
    Breach("no-ssh-keys", NODES, {"remoteAccess ec2SshKey": "mine"}, "an SSH key"),
    Breach("no-open-ports", INGRESS, {"cidrIpv4": WORLD}, "port 3000 is open to 0.0.0.0/0"),
    Breach("no-open-ports", INGRESS, {"cidrIpv4": "128.0.0.0/1"}, "open to 128.0.0.0/1"),
    Breach("no-open-ports", INGRESS, {"cidrIpv6": "::/0"}, "open to ::/0"),
    Breach(
        "no-open-ports",
        "aws:ec2/securityGroupRule:SecurityGroupRule",
        {"type": "ingress", "protocol": "tcp", "fromPort": 443, "toPort": 443, "cidrBlocks": [WORLD]},
        "port 443 is open",
    ),
    Breach("no-open-egress", EGRESS, {"ipProtocol": "-1"}, "every port is open"),
    Breach("no-open-egress", EGRESS, {"fromPort": REMOVED, "toPort": REMOVED}, "every port is open"),
    Breach("default-group-empty", "atlas-dev-default-sg", {"ingress": [{"self": True}]}, "ingress must be empty"),
    Breach("default-group-adopted", "atlas-dev-default-sg", told="has AWS's rules"),
    Breach("flows-logged", "FlowLog atlas-dev-flow-logs", told="declare FlowLogs"),
    Breach("hosts-watched", "atlas-dev-grafana-status", told="nobody would notice that it is dead"),
    Breach("no-public-addresses", "atlas-dev-public-a", {"mapPublicIpOnLaunch": True}, "mapPublicIpOnLaunch"),
    Breach(
        "no-public-addresses",
        "LaunchTemplate atlas-dev-node",
        {"networkInterfaces": [{"associatePublicIpAddress": "true"}]},
        "networkInterfaces",
    ),
    Breach("imdsv2", "grafana-instance", {"metadataOptions httpTokens": "optional"}, "httpTokens must be required"),
    Breach("imdsv2", "LaunchTemplate atlas-dev-node", {"metadataOptions httpPutResponseHopLimit": 2}, "must be 1"),
    Breach("imdsv2", "prometheus-instance", {"metadataOptions": REMOVED}, "httpTokens"),
    # --- cluster ---
    Breach("api-endpoint-restricted", "atlas-dev-eksCluster", {"vpcConfig publicAccessCidrs": [WORLD]}, "open to 0.0"),
    Breach("api-endpoint-restricted", "atlas-dev-eksCluster", {"vpcConfig publicAccessCidrs": REMOVED}, "open to 0.0"),
    Breach("api-endpoint-restricted", "atlas-dev-eksCluster", {"vpcConfig endpointPrivateAccess": False}, "Private"),
    Breach("control-plane-logged", "atlas-dev-eksCluster", {"enabledClusterLogTypes": ["api"]}, "lacks audit, auth"),
    Breach("logs-expire", "atlas-dev-logs", {"retentionInDays": REMOVED}, "retentionInDays"),
    Breach("control-plane-logs-expire", "atlas-dev-logs", told="no log group"),
    Breach("control-plane-logs-expire", "atlas-dev-logs", {"name": "/another"}, "no log group"),
    Breach("cluster-secrets-encrypted", "atlas-dev-eksCluster", {"encryptionConfig": REMOVED}, "encryptionConfig"),
    Breach("versions-pinned", "atlas-dev-eksCluster", {"version": REMOVED}, "version must be set"),
    Breach("versions-pinned", "atlas-dev-coredns", {"addonVersion": REMOVED}, "addonVersion"),
    Breach("versions-pinned", NODES, {"launchTemplate version": "$Latest"}, "a number"),
    Breach("versions-pinned", NODES, {"launchTemplate version": "$Default"}, "a number"),
    Breach("versions-pinned", NODES, {"launchTemplate version": ""}, "a number"),
    Breach("versions-pinned", NODES, {"launchTemplate version": REMOVED}, "a number"),
    Breach("nodes-from-template", NODES, {"launchTemplate": REMOVED}, "must name, by id or name"),
    Breach("nodes-from-template", NODES, {"launchTemplate id": REMOVED}, "must name, by id or name"),
    Breach("nodes-from-template", "LaunchTemplate atlas-dev-node", told="a template that the stack declares"),
    # --- iam ---
    Breach("iam-actions-named", "atlas-dev-service-policy", {"policy": document(Action="s3:*")}, "grants s3:*"),
    Breach("iam-actions-named", "aws:iam/policy:Policy", {"policy": document(Action=["*"], Resource="*")}, "grants *"),
    Breach("iam-actions-named", "grafana-policy", {"policy": document(NotAction="iam:*", Action=None)}, "NotAction"),
    Breach(
        "iam-actions-named", "grafana-role", {"inlinePolicies": [{"policy": document(Action="ec2:*")}]}, "grants ec2:*"
    ),
    Breach(
        "iam-pass-role-named",
        "atlas-dev-service-policy",
        {"policy": document(Action="iam:PassRole", Resource="*")},
        "iam:PassRole on *",
    ),
    Breach(
        "iam-pass-role-named",
        "atlas-dev-service-policy",
        {"policy": document(Action="iam:Pass*", Resource="arn:aws:iam::123456789012:role/*")},
        "iam:PassRole on arn:aws:iam::123456789012:role/*",
    ),
    *(
        Breach(
            "iam-pass-role-named",
            "atlas-dev-service-policy",
            {"policy": document(Action="iam:PassRole", Resource=["…:role/one", f"arn:aws:iam::123456789012:{stars}"])},
            f"iam:PassRole on arn:aws:iam::123456789012:{stars}: ",
        )
        for stars in ("ro*", "role*", "role/**", "role/?*", "role/*/one")
    ),
    Breach(
        "iam-pass-role-named",
        "atlas-dev-service-policy",
        {"policy": document(Action="iam:PassRole", Resource=None, NotResource="…:role/one")},
        "NotResource",
    ),
    Breach(
        "iam-no-administrators",
        "prometheus-ssm",
        {"policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"},
        "only the actions that are needed",
    ),
    Breach("iam-no-administrators", "grafana-role", {"managedPolicyArns": ["…/IAMFullAccess"]}, "IAMFullAccess"),
    Breach(
        "iam-trust-named",
        "grafana-role",
        {"assumeRolePolicy": document(Action="sts:AssumeRole", Principal={"AWS": "*"})},
        "everyone may assume",
    ),
    Breach("iam-trust-named", "grafana-role", {"assumeRolePolicy": document(Principal="*")}, "everyone may assume"),
    Breach("iam-trust-named", "grafana-role", {"assumeRolePolicy": document(NotPrincipal="a")}, "everyone may assume"),
    Breach("iam-trust-named", "grafana-role", {"assumeRolePolicy": document()}, "everyone may assume"),
    Breach(
        "iam-web-tokens-exact",
        "grafana-role",
        {
            "assumeRolePolicy": document(
                **TRUSTED,
                Condition={"StringEquals": {f"{GITHUB}:aud": "sts.amazonaws.com", f"{GITHUB}:sub": "repo:OWNER/*"}},
            )
        },
        "the token's sub",
    ),
    Breach("iam-web-tokens-exact", "grafana-role", {"assumeRolePolicy": document(**TRUSTED)}, "the token's aud"),
    Breach(
        "iam-web-tokens-exact",
        "grafana-role",
        {
            "assumeRolePolicy": document(
                **TRUSTED,
                Condition={
                    "StringEquals": {f"{GITHUB}:aud": "sts.amazonaws.com"},
                    "StringLike": {f"{GITHUB}:sub": "repo:OWNER/*"},
                },
            )
        },
        "the token's sub",
    ),
    Breach("no-static-keys", "aws:iam/accessKey:AccessKey", {"user": "ann"}, "AccessKey: use a role"),
    Breach("no-static-keys", "aws:iam/user:User", {"name": "ann"}, "User: use a role"),
    Breach("no-static-keys", "pulumi:providers:aws", {"accessKey": "AKIA"}, "accessKey is set"),
    # --- kubernetes ---
    Breach("pods-apart-from-node", DEPLOYMENT, {f"{POD} hostNetwork": True}, "hostNetwork"),
    Breach("pods-apart-from-node", DEPLOYMENT, {f"{POD} volumes": [{"name": "x", "hostPath": {}}]}, "a hostPath"),
    Breach("pods-apart-from-node", DEPLOYMENT, {f"{BOX} securityContext privileged": True}, "privileged"),
    Breach("pods-apart-from-node", DEPLOYMENT, {f"{BOX} ports 0 hostPort": 80}, "hostPort"),
    Breach("pods-restricted", DEPLOYMENT, {f"{POD} securityContext runAsNonRoot": REMOVED}, "runAsNonRoot"),
    Breach("pods-restricted", DEPLOYMENT, {f"{BOX} securityContext runAsUser": 0}, "runAsUser not 0"),
    Breach("pods-restricted", DEPLOYMENT, {f"{BOX} securityContext capabilities add": ["NET_RAW"]}, "drop ALL"),
    Breach("pods-restricted", DEPLOYMENT, {f"{BOX} securityContext capabilities": REMOVED}, "drop ALL"),
    Breach("pods-restricted", DEPLOYMENT, {f"{POD} securityContext seccompProfile": REMOVED}, "seccompProfile"),
    Breach("pods-restricted", DEPLOYMENT, {f"{BOX} securityContext allowPrivilegeEscalation": REMOVED}, "Escalation"),
    Breach("pods-restricted", DEPLOYMENT, {f"{POD} initContainers": [{"name": "first", "image": "x"}]}, "first: "),
    Breach("root-read-only", DEPLOYMENT, {f"{BOX} securityContext readOnlyRootFilesystem": False}, "readOnlyRoot"),
    Breach("resources-said", DEPLOYMENT, {f"{BOX} resources limits cpu": REMOVED}, "lacks limits.cpu"),
    Breach("resources-said", DEPLOYMENT, {f"{BOX} resources requests": REMOVED}, "requests.cpu, requests.memory"),
    Breach("probed", DEPLOYMENT, {f"{BOX} livenessProbe": REMOVED}, "no livenessProbe"),
    Breach("probed", DEPLOYMENT, {f"{BOX} readinessProbe": REMOVED}, "no readinessProbe"),
    Breach("images-by-digest", DEPLOYMENT, {f"{BOX} image": "app:1.2.3"}, "image app:1.2.3 must"),
    Breach(
        "images-by-digest",
        "kubernetes:batch/v1:CronJob",
        {"spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "x"}]}}}}}},
        "image x must",
    ),
    Breach("no-idle-tokens", DEPLOYMENT, {f"{POD} automountServiceAccountToken": REMOVED}, "automount"),
    Breach("no-idle-tokens", "flask-app-account", {"automountServiceAccountToken": True}, "automount"),
    Breach("own-namespace", DEPLOYMENT, {"metadata namespace": REMOVED}, "one of its own"),
    Breach(
        "namespaces-restricted",
        "flask-app-namespace",
        {"metadata labels pod-security.kubernetes.io/enforce": "baseline"},
        "restricted",
    ),
    Breach("traffic-denied-by-default", "flask-app-deny", told="no NetworkPolicy"),
    Breach("traffic-denied-by-default", "flask-app-deny", {"spec policyTypes": ["Ingress"]}, "no NetworkPolicy"),
    Breach("traffic-denied-by-default", "flask-app-deny", {"spec ingress": [{}]}, "no NetworkPolicy"),
    Breach("rbac-named", "ClusterRole flask-app-prometheus-nodes", {"rules 0 verbs": ["*"]}, "a wildcard in verbs"),
    Breach("rbac-named", "Role flask-app-prometheus", {"rules 0 resources": ["pods/*"]}, "a wildcard in resources"),
    Breach(
        "rbac-no-way-up", "ClusterRole flask-app-prometheus-nodes", {"rules 1 resources": ["nodes/proxy"]}, "nodes/p"
    ),
    Breach(
        "rbac-no-way-up", "ClusterRole flask-app-prometheus-nodes", {"rules 0 verbs": ["escalate"]}, "verb escalate"
    ),
    Breach(
        "rbac-no-way-up", "ClusterRole flask-app-prometheus-nodes", {"rules 0 resources": ["secrets"]}, "use a Role"
    ),
    Breach("rbac-no-way-up", "RoleBinding flask-app-prometheus", {"roleRef name": "cluster-admin"}, "wide permissions"),
    Breach("load-balancer-sources", SERVICE, {"spec loadBalancerSourceRanges": REMOVED}, "must be set"),
    Breach("load-balancer-sources", SERVICE, {"spec type": "NodePort"}, "NodePort"),
    Breach(
        "load-balancer-tls",
        SERVICE,
        {"metadata annotations service.beta.kubernetes.io/aws-load-balancer-ssl-cert": REMOVED},
        "plain HTTP for everyone",
    ),
    # --- secrets ---
    Breach(
        "no-secret-in-plain-text", "grafana-instance", {"userData": "export K=AKIAIOSFODNN7EXAMPLE"}, "an AWS access"
    ),
    Breach(
        "no-secret-in-plain-text",
        "LaunchTemplate atlas-dev-node",
        {"userData": "ZXhwb3J0IEs9QUtJQUlPU0ZPRE5ON0VYQU1QTEU="},
        "userData contains an AWS access key",
    ),
    Breach(
        "no-secret-in-plain-text", "flask-app-settings", {"data WHO": "the-token"}, "data.WHO contains a secret setting"
    ),
    Breach(
        "no-secret-in-plain-text",
        "prometheus-rules.yml",
        {"content": "-----BEGIN RSA PRIVATE KEY-----"},
        "content contains a private key",
    ),
    Breach("no-secret-in-plain-text", SERVICE, {"metadata annotations x": "ghp_" + "a" * 36}, "a GitHub token"),
    Breach(
        "no-secret-in-plain-text", "flask-app-settings", {"data URL": "https://me:pass@host"}, "a password in a URL"
    ),
    Breach("secrets-by-reference", DEPLOYMENT, {f"{BOX} env 0": {"name": "DB_PASSWORD", "value": "x"}}, "DB_PASSWORD"),
    Breach("secrets-by-reference", "flask-app-settings", {"data API_KEY": "x"}, "API_KEY has a plain value"),
    Breach(
        "no-secret-in-outputs", "Stack atlas-dev", {"token": "the-token"}, "the output token contains a secret setting"
    ),
    Breach(
        "no-secret-in-outputs", "Stack atlas-dev", {"url": {"of": ["http://a:b@c"]}}, "the output url.of.0 contains"
    ),
    # --- tags ---
    Breach("tagged", "grafana-instance", {"tags": REMOVED}, "lacks the tags project, stack, managed-by"),
    Breach("tagged", "grafana-instance", {"rootBlockDevice tags": REMOVED}, "rootBlockDevice lacks"),
    Breach("tagged", "LaunchTemplate atlas-dev-node", {"tagSpecifications": []}, "tagSpecifications volume lacks"),
    Breach("tagged", "aws:dynamodb/table:Table", {"name": "x"}, "lacks the tags"),
)

NO_BREACHES: Sequence[Breach] = (
    # Changes that a rule must let pass.
    Breach("s3-tls-only", "atlas-dev-data-policy", {"policy": tls()}),
    Breach("no-anonymous-access", "atlas-dev-data-policy", {"policy": document(Principal="*", Condition={"x": {}})}),
    Breach("no-anonymous-access", "atlas-dev-data-policy", {"policy": document(Principal={"AWS": "arn"})}),
    Breach("disks-encrypted", "aws:rds/instance:Instance", {"storageEncrypted": True}),
    Breach("parameters-encrypted", "aws:ssm/parameter:Parameter", {"type": "SecureString"}),
    Breach("no-remote-login", EGRESS, {"fromPort": 22, "toPort": 22}),
    Breach("no-open-ports", INGRESS, {"cidrIpv4": "10.0.0.0/8"}),
    Breach("no-open-egress", EGRESS, {"ipProtocol": "-1", "cidrIpv4": REMOVED, "referencedSecurityGroupId": "sg"}),
    Breach("imdsv2", "grafana-instance", {"metadataOptions": {"httpEndpoint": "disabled"}}),
    Breach("api-endpoint-restricted", "atlas-dev-eksCluster", {"vpcConfig endpointPublicAccess": False}),
    Breach("nodes-from-template", NODES, {"launchTemplate id": REMOVED, "launchTemplate name": "nodes"}),
    Breach("versions-pinned", NODES, {"launchTemplate version": "12"}),
    Breach("iam-pass-role-named", "grafana-policy", {"policy": document(Action="iam:PassRole", Resource="…:role/one")}),
    Breach(
        "iam-pass-role-named", "grafana-policy", {"policy": document(Action="iam:PassRole", Resource="…:role/a/b/*")}
    ),
    Breach("iam-pass-role-named", "grafana-policy", {"policy": document(Resource=None, NotResource="a")}),
    Breach("pods-restricted", DEPLOYMENT, {f"{BOX} securityContext seccompProfile": {"type": "Localhost"}}),
    Breach("pods-restricted", DEPLOYMENT, {f"{BOX} securityContext capabilities add": ["NET_BIND_SERVICE"]}),
    Breach("probed", "kubernetes:batch/v1:Job", {"spec": {"template": {"spec": {"containers": [{"name": "once"}]}}}}),
    Breach("rbac-no-way-up", "Role flask-app-prometheus", {"rules 0 resources": ["secrets"]}),
    Breach("load-balancer-sources", SERVICE, {"spec type": "ClusterIP", "spec loadBalancerSourceRanges": REMOVED}),
    Breach("load-balancer-tls", SERVICE, {"spec type": "ClusterIP", "metadata annotations": REMOVED}),
    Breach("secrets-by-reference", "flask-app-settings", {"data DB_PASSWORD": ""}),
)
