"""EC2: network, hosts, volumes, the nodes' launch template. The tag `stack` shows to which stack a resource belongs."""

from infra.capacity import VCPU_QUOTA
from infra.permissions.grant import EVERYTHING, Grant, Scope

TAGGED = (
    "vpc", "subnet", "route-table", "internet-gateway", "natgateway", "elastic-ip", "security-group",
    "security-group-rule", "vpc-endpoint", "vpc-flow-log", "volume", "launch-template", "instance",
    "network-interface",
)  # fmt: skip
"""Kinds of resources that the stack creates with its tag."""
MAKERS = (
    "CreateVpc", "CreateSubnet", "CreateRouteTable", "CreateInternetGateway", "CreateNatGateway", "AllocateAddress",
    "CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress", "CreateVpcEndpoint",
    "CreateVolume", "CreateLaunchTemplate", "RunInstances", "CreateFlowLogs",
)  # fmt: skip
"""Calls that create a resource together with its tags."""
CANONICAL = "099720109477"
"""Canonical's account, which publishes the hosts' Ubuntu image; the nodes' images are Amazon's."""


def read(scope: Scope) -> list[Grant]:
    """Reading the network and the hosts."""
    return [
        Grant(
            "SeeEc2",
            "the stack's resources, and what it left; EC2's Describe calls have no finer resource",
            [
                f"ec2:Describe{what}"
                for what in (
                    "AccountAttributes",
                    "Addresses",
                    "AddressesAttribute",
                    "AvailabilityZones",
                    "FlowLogs",
                    "IamInstanceProfileAssociations",
                    "Images",
                    "InstanceCreditSpecifications",
                    "InstanceStatus",
                    "InstanceTypeOfferings",
                    "InstanceTypes",
                    "Instances",
                    "InternetGateways",
                    "LaunchTemplateVersions",
                    "LaunchTemplates",
                    "NatGateways",
                    "NetworkAcls",
                    "NetworkInterfaces",
                    "PrefixLists",
                    "RouteTables",
                    "SecurityGroupRules",
                    "SecurityGroups",
                    "Snapshots",
                    "Subnets",
                    "Tags",
                    "Volumes",
                    "VolumesModifications",
                    "VpcEndpoints",
                    "Vpcs",
                )
            ],
            EVERYTHING,
            scope.here,
        ),
        Grant(
            "SeeQuota",
            "`up` checks first whether the account may run the stack's instances",
            ["servicequotas:GetServiceQuota"],
            scope.arn("servicequotas", f"ec2/{VCPU_QUOTA}"),
        ),
        Grant(
            "SeePlan",
            "the Free plan of a new account refuses most instance types; no finer resource",
            ["freetier:GetAccountPlanState"],
            EVERYTHING,
        ),
        Grant("SeeVpc", "the DNS settings of a VPC", ["ec2:DescribeVpcAttribute"], scope.ec2("vpc")),
        Grant(
            "SeeInstance",
            "an instance's user data and termination protection",
            ["ec2:DescribeInstanceAttribute"],
            scope.ec2("instance"),
            scope.own,
        ),
        Grant(
            "SeeVolume",
            "whether a volume's I/O is enabled",
            ["ec2:DescribeVolumeAttribute"],
            scope.ec2("volume"),
            scope.own,
        ),
    ]


def change(scope: Scope) -> list[Grant]:
    """Creating the network and the hosts, and changing resources with the stack's tag."""
    return [
        Grant(
            "MakeTagged",
            "network, addresses, volumes, launch template, hosts: only with the stack's tag",
            [f"ec2:{maker}" for maker in MAKERS if not maker.startswith("Authorize")],
            scope.ec2(*(kind for kind in TAGGED if kind != "security-group-rule")),
            scope.new,
        ),
        Grant(
            "TagWhatIsMade",
            "tags can only be set in the call that creates the resource",
            ["ec2:CreateTags"],
            scope.ec2(*TAGGED),
            {"StringEquals": {"ec2:CreateAction": list(MAKERS), "aws:RequestTag/stack": scope.stack}},
        ),
        Grant(
            "TagDefaultGroup",
            "a VPC's default security group exists without tags until the stack adopts it",
            ["ec2:CreateTags"],
            scope.ec2("security-group"),
            {**scope.new, "Null": {"aws:ResourceTag/stack": "true"}},
        ),
        Grant(
            "InOwnNetwork",
            "only resources with the stack's tag can be changed or get new resources",
            [
                f"ec2:{action}"
                for action in (
                    "AssociateIamInstanceProfile",
                    "AssociateRouteTable",
                    "AttachInternetGateway",
                    "AttachVolume",
                    "AuthorizeSecurityGroupEgress",
                    "AuthorizeSecurityGroupIngress",
                    "CreateFlowLogs",
                    "CreateLaunchTemplateVersion",
                    "CreateNatGateway",
                    "CreateRoute",
                    "CreateRouteTable",
                    "CreateSecurityGroup",
                    "CreateSubnet",
                    "CreateTags",
                    "CreateVpcEndpoint",
                    "DeleteTags",
                    "ModifyLaunchTemplate",
                    "ModifyInstanceCreditSpecification",
                    "ModifySecurityGroupRules",
                    "ModifySubnetAttribute",
                    "ModifyVolume",
                    "ModifyVpcAttribute",
                    "ModifyVpcEndpoint",
                    "ReplaceIamInstanceProfileAssociation",
                    "ReplaceRoute",
                    "ReplaceRouteTableAssociation",
                    "RunInstances",
                    "StartInstances",
                    "UpdateSecurityGroupRuleDescriptionsEgress",
                    "UpdateSecurityGroupRuleDescriptionsIngress",
                )
            ],
            scope.ec2(*(kind for kind in TAGGED if kind != "network-interface")),
            scope.own,
        ),
        Grant(
            "RulesInClustersGroup",
            "who may reach the nodes: EKS creates their security group, without the stack's tag",
            ["ec2:AuthorizeSecurityGroupIngress", "ec2:ModifySecurityGroupRules", "ec2:RunInstances"],
            scope.ec2("security-group"),
            scope.clusters,
        ),
        Grant(
            "NewRules",
            "a new rule gets the stack's tag; the permission for its security group is separate",
            ["ec2:AuthorizeSecurityGroupEgress", "ec2:AuthorizeSecurityGroupIngress"],
            scope.ec2("security-group-rule"),
            scope.new,
        ),
        Grant(
            "RunFromImages",
            "hosts use Canonical's Ubuntu image, nodes Amazon's EKS image",
            ["ec2:RunInstances"],
            [f"arn:aws:ec2:{scope.settings.region}::image/*"],
            {"StringEquals": {"ec2:Owner": ["amazon", CANONICAL]}},
        ),
    ]


def remove(scope: Scope) -> list[Grant]:
    """Deleting resources with the stack's tag."""
    data = ["ec2:DeleteVolume"] if scope.settings.disposable else []
    return [
        Grant(
            "RemoveOwn",
            "only resources with the stack's tag; volumes hold data, so only those of disposable stacks",
            [
                *data,
                *(
                    f"ec2:{action}"
                    for action in (
                        "DeleteFlowLogs",
                        "DeleteInternetGateway",
                        "DeleteLaunchTemplate",
                        "DeleteLaunchTemplateVersions",
                        "DeleteNatGateway",
                        "DeleteRoute",
                        "DeleteRouteTable",
                        "DeleteSecurityGroup",
                        "DeleteSubnet",
                        "DeleteVpc",
                        "DeleteVpcEndpoints",
                        "DetachInternetGateway",
                        "DetachVolume",
                        "DisassociateAddress",
                        "DisassociateIamInstanceProfile",
                        "DisassociateRouteTable",
                        "ModifyInstanceAttribute",
                        "ReleaseAddress",
                        "RevokeSecurityGroupEgress",
                        "RevokeSecurityGroupIngress",
                        "StopInstances",
                        "TerminateInstances",
                    )
                ),
            ],
            scope.ec2(*(kind for kind in TAGGED if kind not in ("network-interface", "security-group-rule"))),
            scope.own,
        ),
        Grant(
            "RemoveRulesOfCluster",
            "the stack's rules in the security group that EKS creates",
            ["ec2:RevokeSecurityGroupIngress"],
            scope.ec2("security-group"),
            scope.clusters,
        ),
    ]


def sweep(scope: Scope) -> list[Grant]:
    """Deleting what the cluster's controllers may leave behind (infra/leftovers), found by the cluster's tag."""
    return [
        Grant(
            "SweepCluster",
            "security groups and volumes that Kubernetes created for the cluster and didn't delete",
            ["ec2:DeleteSecurityGroup", "ec2:DeleteVolume", "ec2:RevokeSecurityGroupEgress"],
            scope.ec2("security-group", "volume"),
            scope.clusters,
        ),
        Grant(
            "SweepInterfaces",
            "detached network interfaces of the cluster's pods block the deletion of their subnets",
            ["ec2:DeleteNetworkInterface"],
            scope.ec2("network-interface"),
            {"StringEquals": {"aws:ResourceTag/cluster.k8s.amazonaws.com/name": scope.settings.cluster_name}},
        ),
        Grant(
            "SweepOwnInterfaces",
            "detached network interfaces of the stack's nodes",
            ["ec2:DeleteNetworkInterface"],
            scope.ec2("network-interface"),
            scope.own,
        ),
        Grant(
            "SweepLoadBalancers",
            "load balancers that Kubernetes created for the cluster and didn't delete",
            [
                "elasticloadbalancing:DeleteListener",
                "elasticloadbalancing:DeleteLoadBalancer",
                "elasticloadbalancing:DeleteTargetGroup",
            ],
            scope.arn(
                "elasticloadbalancing", "loadbalancer/*", "targetgroup/*/*",
                "listener/net/*/*/*",
            ),
            scope.clusters,
        ),
    ]  # fmt: skip
