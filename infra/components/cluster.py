"""The Kubernetes cluster: EKS, a managed node group, pinned add-ons, access entries."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_eks as eks

from infra.capacity import NODE_DISK_GB
from infra.components.trust import policy_document, trusted
from infra.names import COMPONENT_TAG, control_plane_logs

ADDONS: Mapping[str, Mapping[str, str]] = {
    # `aws eks describe-addon-versions --kubernetes-version VERSION` lists compatible versions; upgrade them with the
    # cluster.
    "1.36": {
        "kube-proxy": "v1.36.0-eksbuild.25",
        "vpc-cni": "v1.22.4-eksbuild.3",
        "coredns": "v1.14.3-eksbuild.23",
        "metrics-server": "v0.9.0-eksbuild.11",
        "eks-pod-identity-agent": "v1.3.10-eksbuild.3",
    },
    "1.35": {
        "kube-proxy": "v1.35.3-eksbuild.29",
        "vpc-cni": "v1.22.4-eksbuild.3",
        "coredns": "v1.13.2-eksbuild.31",
        "metrics-server": "v0.9.0-eksbuild.6",
        "eks-pod-identity-agent": "v1.3.10-eksbuild.3",
    },
}
NODE_POLICIES = ("AmazonEKSWorkerNodeMinimalPolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonEKS_CNI_Policy")
ADMIN_POLICY = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"


@dataclass(frozen=True, slots=True)
class ClusterArgs:
    """The inputs of the component Cluster."""

    name: str
    version: str
    """Kubernetes' minor version, a key of ADDONS."""
    vpc_id: pulumi.Input[str]
    public_subnet_ids: Sequence[pulumi.Input[str]]
    private_subnet_ids: Sequence[pulumi.Input[str]]
    ways_out: Sequence[pulumi.Resource]
    """Routes that nodes need to join the cluster, and to leave it cleanly."""
    api_access_cidrs: Sequence[str]
    """Networks that may reach the API over the internet; empty: the VPC only."""
    admins: Sequence[str]
    """ARNs of IAM roles or users who administer the cluster."""
    groups: Mapping[str, tuple[str, pulumi.Input[str]]]
    """Further access entries: name -> Kubernetes group, ARN of the IAM role."""
    node_group_name: str
    node_type: str
    nodes: tuple[int, int, int]
    """Minimum, initial and maximum number of nodes."""
    log_retention_days: int
    tags: Mapping[str, str]


class Cluster(pulumi.ComponentResource):
    """Control plane, nodes, add-ons.

    Outputs:
        kubeconfig: JSON; it gets its token from `aws eks get-token`, so it contains no secret.
        endpoint, certificate_authority: the address of the API, and its base64 CA certificate.
        security_group_id: the security group of control plane and nodes.
    """

    kubeconfig: pulumi.Output[str]
    endpoint: pulumi.Output[str]
    certificate_authority: pulumi.Output[str]
    security_group_id: pulumi.Output[str]
    ready: list[pulumi.Resource]
    """Access entries, nodes and the Pod Identity agent.

    Workloads depend on them, so they are created after and deleted before them.
    """

    def __init__(self, name: str, args: ClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("atlas:aws:Cluster", name, None, opts)
        here = pulumi.ResourceOptions(parent=self)
        tags = {**args.tags, COMPONENT_TAG: "cluster"}
        versions = ADDONS[args.version]

        # Created before the cluster: otherwise EKS creates the log group, and it keeps logs for ever.
        logs = aws.cloudwatch.LogGroup(
            f"{name}-logs",
            name=control_plane_logs(args.name),
            retention_in_days=args.log_retention_days,
            tags=tags,
            opts=here,
        )
        key = aws.kms.Key(
            f"{name}-secrets",
            description=f"Kubernetes secrets of {args.name}",
            enable_key_rotation=True,
            deletion_window_in_days=7,
            tags=tags,
            opts=here,
        )
        cluster = eks.Cluster(
            name,
            name=args.name,
            version=args.version,
            vpc_id=args.vpc_id,
            public_subnet_ids=list(args.public_subnet_ids),
            private_subnet_ids=list(args.private_subnet_ids),
            endpoint_private_access=True,
            endpoint_public_access=bool(args.api_access_cidrs),
            public_access_cidrs=list(args.api_access_cidrs) or None,
            authentication_mode=eks.AuthenticationMode.API,
            access_entries={
                **{f"admin-{_label(arn)}": _admin(arn, tags) for arn in args.admins},
                **{
                    label: eks.AccessEntryArgs(principal_arn=arn, kubernetes_groups=[group], tags=tags)
                    for label, (group, arn) in args.groups.items()
                },
            },
            create_oidc_provider=False,  # pods get their roles through Pod Identity
            encryption_config_key_arn=key.arn,
            enabled_cluster_log_types=["api", "audit", "authenticator", "controllerManager", "scheduler"],
            upgrade_policy={"support_type": "STANDARD"},  # extended support costs six times as much
            skip_default_node_group=True,
            skip_default_security_groups=True,
            kube_proxy_addon_options=eks.KubeProxyAddonOptionsArgs(version=versions["kube-proxy"]),
            vpc_cni_options=eks.VpcCniOptionsArgs(addon_version=versions["vpc-cni"], enable_network_policy=True),
            tags=tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[logs], transforms=[_creator_is_no_admin]),
        )
        # EKS uses the key with the cluster's role, and looks at its grants; AWS's policy only has DescribeKey.
        aws.iam.RolePolicy(
            f"{name}-cluster-key",
            role=cluster.eks_cluster.role_arn.apply(lambda arn: arn.rsplit("/", 1)[-1]),
            policy=key.arn.apply(_use_key),
            opts=here,
        )
        nodes = self._nodes(name, args, cluster, tags)
        addons = {
            addon: aws.eks.Addon(
                f"{name}-{addon}",
                cluster_name=args.name,
                addon_name=addon,
                addon_version=versions[addon],
                # A new cluster already has a self-managed coredns; the add-on overwrites it.
                resolve_conflicts_on_create="OVERWRITE",
                resolve_conflicts_on_update="OVERWRITE",
                tags=tags,
                # Their pods need a node; without it the add-on stays degraded until it times out.
                opts=pulumi.ResourceOptions(parent=self, depends_on=[nodes]),
            )
            for addon in ("coredns", "metrics-server", "eks-pod-identity-agent")
        }

        self.kubeconfig = cluster.kubeconfig_json
        self.endpoint = cluster.eks_cluster.endpoint
        self.certificate_authority = cluster.eks_cluster.certificate_authority.data
        self.security_group_id = cluster.eks_cluster.vpc_config.cluster_security_group_id
        self.ready = [cluster, nodes, addons["eks-pod-identity-agent"]]
        self.register_outputs({"endpoint": self.endpoint})

    def _nodes(
        self, name: str, args: ClusterArgs, cluster: eks.Cluster, tags: Mapping[str, str]
    ) -> eks.ManagedNodeGroup:
        here = pulumi.ResourceOptions(parent=self)
        role = aws.iam.Role(
            f"{name}-node",
            assume_role_policy=trusted("ec2.amazonaws.com"),
            tags=tags,
            opts=here,
        )
        attachments = [
            aws.iam.RolePolicyAttachment(
                f"{name}-node-{policy}", role=role.name, policy_arn=f"arn:aws:iam::aws:policy/{policy}", opts=here
            )
            for policy in NODE_POLICIES
        ]
        named = {**tags, "Name": args.node_group_name}
        template = aws.ec2.LaunchTemplate(
            f"{name}-node",
            # With a hop limit of 1 pods can't reach the instance's credentials (enable_imd_sv2 would set 2).
            metadata_options={
                "http_endpoint": "enabled",
                "http_tokens": "required",
                "http_put_response_hop_limit": 1,
            },
            block_device_mappings=[
                {
                    "device_name": "/dev/xvda",
                    "ebs": {
                        "encrypted": "true",
                        "volume_type": "gp3",
                        "volume_size": NODE_DISK_GB,
                        "delete_on_termination": "true",
                    },
                }
            ],
            tag_specifications=[
                {"resource_type": kind, "tags": named} for kind in ("instance", "volume", "network-interface")
            ],
            update_default_version=True,
            tags=tags,
            opts=here,
        )
        fewest, first, most = args.nodes
        return eks.ManagedNodeGroup(
            f"{name}-nodes",
            cluster=cluster,
            node_group_name=args.node_group_name,
            node_role_arn=role.arn,
            # Without explicit subnets, EKS would also put nodes into the public subnets.
            subnet_ids=list(args.private_subnet_ids),
            instance_types=[args.node_type],
            scaling_config={"min_size": fewest, "desired_size": first, "max_size": most},
            ignore_scaling_changes=True,  # `up` doesn't reset the number of nodes that scaling has set
            launch_template={"id": template.id, "version": template.latest_version.apply(str)},
            tags=tags,
            # A node can't join the cluster, or drain its pods, without its policies and a route to the internet.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[*attachments, *args.ways_out]),
        )


def _use_key(arn: str) -> str:
    """The policy by which the cluster's role uses the key of the cluster's secrets."""
    actions = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey", "kms:ListGrants"]
    statement = {"Sid": "UseKeyOfSecrets", "Effect": "Allow", "Action": actions, "Resource": arn}
    return json.dumps(policy_document(statement))


def _label(arn: str) -> str:
    """A stable label of a principal: its name, and a part of its ARN's hash, because names aren't unique."""
    return f"{arn.rsplit('/', 1)[-1]}-{hashlib.sha256(arn.encode()).hexdigest()[:6]}"


def _admin(arn: str, tags: Mapping[str, str]) -> eks.AccessEntryArgs:
    everywhere = aws.eks.AccessPolicyAssociationAccessScopeArgs(type="cluster")
    return eks.AccessEntryArgs(
        principal_arn=arn,
        access_policies={"admin": eks.AccessPolicyAssociationArgs(access_scope=everywhere, policy_arn=ADMIN_POLICY)},
        tags=dict(tags),
    )


def _creator_is_no_admin(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
    """Don't make the cluster's creator an administrator; only listed principals are administrators.

    pulumi-eks 4.4 always asks EKS to add the creator. If the creator is also listed, its access entry would then fail
    with 409.
    """
    if args.type_ != "aws:eks/cluster:Cluster":
        return None
    props: dict[str, Any] = dict(args.props)
    access = {**props["accessConfig"], "bootstrapClusterCreatorAdminPermissions": False}
    return pulumi.ResourceTransformResult(props={**props, "accessConfig": access}, opts=args.opts)
