"""The `eks` provider's components: they register the AWS resources that pulumi-eks 4.4 registers, recorded by `aws`.

Taken from a record of the real component under the real engine: names, inputs, parents, dependencies, ignored changes.
Not taken: vpc-cni's environment (constants of the component) and the inner Kubernetes provider (nothing here uses it).
"""

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_eks
from pulumi.provider import ConstructResult, Provider, main

from tests.infra.recording import schema


class Components(Provider):
    """Constructs Cluster, ManagedNodeGroup."""

    def __init__(self) -> None:
        super().__init__(version("pulumi_eks"), json.dumps({"name": "eks", "version": version("pulumi_eks")}))

    def construct(
        self, name: str, resource_type: str, inputs: Mapping[str, Any], options: pulumi.ResourceOptions | None = None
    ) -> ConstructResult:
        known = schema.resource_classes("eks")
        if resource_type not in known or resource_type not in KINDS:
            raise LookupError(f"{resource_type}: the recording provider has no such component")
        for path, reason in schema.problems(resource_type, _shape(inputs)):
            raise ValueError(f"{resource_type} {path}: {reason}")
        component = KINDS[resource_type](name, inputs, options)
        return ConstructResult(component.urn, component.state)


def _shape(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs with everything that isn't plain data left out: names are checked, and what is known of types."""

    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shown(item) for key, item in value.items()}
        if isinstance(value, list):
            return [shown(item) for item in value]
        return value if isinstance(value, str | bool | int | float | None) else schema.UNKNOWN

    return {key: shown(value) for key, value in inputs.items()}


class Cluster(pulumi.ComponentResource):
    """eks.Cluster with API authentication, without its default node group and security groups."""

    def __init__(self, name: str, inputs: Mapping[str, Any], opts: pulumi.ResourceOptions | None) -> None:
        super().__init__("eks:index:Cluster", name, None, opts)
        here = pulumi.ResourceOptions(parent=self)
        tags = inputs.get("tags") or {}
        service_role = ServiceRole(f"{name}-eksRole", tags, here)
        cluster = aws.eks.Cluster(
            f"{name}-eksCluster",
            name=inputs.get("name"),
            version=inputs.get("version"),
            role_arn=service_role.role.arn,
            access_config={
                "authentication_mode": "API",
                "bootstrap_cluster_creator_admin_permissions": True,
            },
            bootstrap_self_managed_addons=True,
            enabled_cluster_log_types=inputs.get("enabledClusterLogTypes"),
            encryption_config={"provider": {"key_arn": inputs["encryptionConfigKeyArn"]}, "resources": ["secrets"]}
            if inputs.get("encryptionConfigKeyArn") is not None
            else None,
            upgrade_policy={"support_type": inputs["upgradePolicy"]["supportType"]},
            vpc_config={
                "endpoint_private_access": inputs.get("endpointPrivateAccess"),
                "endpoint_public_access": inputs.get("endpointPublicAccess"),
                "public_access_cidrs": inputs.get("publicAccessCidrs"),
                "subnet_ids": [*(inputs.get("publicSubnetIds") or []), *(inputs.get("privateSubnetIds") or [])],
            },
            tags={"Name": f"{name}-eksCluster", **tags},
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=service_role.attachments,
                ignore_changes=["accessConfig.bootstrapClusterCreatorAdminPermissions", "bootstrapSelfManagedAddons"],
            ),
        )
        entries: list[pulumi.Resource] = []
        for label, entry in (inputs.get("accessEntries") or {}).items():
            made = aws.eks.AccessEntry(
                f"{name}-{label}",
                cluster_name=cluster.name,
                principal_arn=entry["principalArn"],
                kubernetes_groups=entry.get("kubernetesGroups"),
                tags=entry.get("tags"),
                opts=here,
            )
            entries.append(made)
            for policy, association in (entry.get("accessPolicies") or {}).items():
                aws.eks.AccessPolicyAssociation(
                    f"{name}-{label}-{policy}",
                    cluster_name=cluster.name,
                    principal_arn=entry["principalArn"],
                    policy_arn=association["policyArn"],
                    access_scope={"type": association["accessScope"]["type"]},
                    opts=pulumi.ResourceOptions(parent=made, depends_on=[made]),
                )
        proxy = inputs.get("kubeProxyAddonOptions") or {}
        _addon(f"{name}-kube-proxy", "kube-proxy", proxy.get("version"), cluster, tags, here)
        cni = inputs.get("vpcCniOptions") or {}
        below = pulumi.ResourceOptions.merge(here, pulumi.ResourceOptions(depends_on=entries))
        VpcCni(f"{name}-vpc-cni", cni, cluster, tags, below)

        kubeconfig = pulumi.Output.all(cluster.endpoint, cluster.certificate_authority, cluster.name).apply(
            lambda at: _kubeconfig(at[0], at[1]["data"], at[2])
        )
        self.state = {
            "kubeconfigJson": kubeconfig,
            "kubeconfig": kubeconfig.apply(json.loads),
            "eksCluster": cluster,
            "clusterSecurityGroupId": cluster.vpc_config.cluster_security_group_id,
        }
        self.register_outputs(self.state)


class ServiceRole(pulumi.ComponentResource):
    def __init__(self, name: str, tags: Mapping[str, str], opts: pulumi.ResourceOptions) -> None:
        super().__init__("eks:index:ServiceRole", name, None, opts)
        statement = {
            "Action": ["sts:AssumeRole", "sts:TagSession"],
            "Effect": "Allow",
            "Principal": {"Service": ["eks.amazonaws.com"]},
        }
        self.role = aws.iam.Role(
            f"{name}-role",
            assume_role_policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
            description="Allows EKS to manage clusters on your behalf.",
            tags=tags,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.attachments = [
            aws.iam.RolePolicyAttachment(
                f"{name}-4b490823",
                policy_arn="arn:aws:iam::aws:policy/AmazonEKSClusterPolicy",
                role=self.role.name,
                opts=pulumi.ResourceOptions(parent=self),
            )
        ]
        self.register_outputs({})


class VpcCni(pulumi.ComponentResource):
    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        cluster: aws.eks.Cluster,
        tags: Mapping[str, str],
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("eks:index:VpcCniAddon", name, None, opts)
        enabled = "true" if options.get("enableNetworkPolicy") else "false"
        _addon(
            name, "vpc-cni", options.get("addonVersion"), cluster, tags, pulumi.ResourceOptions(parent=self),
            configuration_values=json.dumps({"enableNetworkPolicy": enabled}),
        )  # fmt: skip
        self.register_outputs({})


def _addon(
    name: str,
    addon: str,
    chosen: Any,
    cluster: aws.eks.Cluster,
    tags: Mapping[str, str],
    opts: pulumi.ResourceOptions,
    **more: Any,
) -> None:
    # Without a version the real component looks the newest up at run time: a record of that would not repeat.
    if chosen is None:
        raise ValueError(f"{addon} has no version")
    aws.eks.Addon(
        name,
        addon_name=addon,
        addon_version=chosen,
        cluster_name=cluster.name,
        preserve=True,
        resolve_conflicts_on_create="OVERWRITE",
        resolve_conflicts_on_update="OVERWRITE",
        tags=tags,
        opts=opts,
        **more,
    )


class ManagedNodeGroup(pulumi.ComponentResource):
    """eks.ManagedNodeGroup with a launch template of its own."""

    def __init__(self, name: str, inputs: Mapping[str, Any], opts: pulumi.ResourceOptions | None) -> None:
        super().__init__("eks:index:ManagedNodeGroup", name, None, opts)
        cluster = pulumi.Output.from_input(inputs["cluster"])
        scaling, template = inputs["scalingConfig"], inputs.get("launchTemplate")
        group = aws.eks.NodeGroup(
            name,
            cluster_name=cluster.apply(lambda made: made.eks_cluster).apply(lambda made: made.name),
            node_group_name=inputs.get("nodeGroupName"),
            node_role_arn=inputs["nodeRoleArn"],
            subnet_ids=inputs["subnetIds"],
            instance_types=inputs.get("instanceTypes"),
            scaling_config={
                "min_size": scaling["minSize"],
                "desired_size": scaling["desiredSize"],
                "max_size": scaling["maxSize"],
            },
            launch_template={"id": template["id"], "version": template["version"]} if template else None,
            tags=inputs.get("tags"),
            opts=pulumi.ResourceOptions(
                parent=self,
                ignore_changes=["scalingConfig.desiredSize"] if inputs.get("ignoreScalingChanges") else None,
            ),
        )
        self.state = {"nodeGroup": group}
        self.register_outputs(self.state)


def _kubeconfig(endpoint: str, authority: str, name: str) -> str:
    arguments = ["--region", "us-east-1", "eks", "get-token", "--cluster-name", name, "--output", "json"]
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "kubernetes", "cluster": {"server": endpoint, "certificate-authority-data": authority}}
            ],
            "contexts": [{"name": "aws", "context": {"cluster": "kubernetes", "user": "aws"}}],
            "current-context": "aws",
            "users": [
                {
                    "name": "aws",
                    "user": {
                        "exec": {
                            "apiVersion": "client.authentication.k8s.io/v1beta1",
                            "command": "aws",
                            "args": arguments,
                        }
                    },
                }
            ],
        }
    )


KINDS: Mapping[str, Any] = {
    pulumi_eks.Cluster.pulumi_type: Cluster,
    pulumi_eks.ManagedNodeGroup.pulumi_type: ManagedNodeGroup,
}

if __name__ == "__main__":
    main(Components(), [])
