"""EC2: network, hosts, volumes, the nodes' launch template. Whose a thing is says its tag `stack`."""

from infra.permissions.grant import EVERYTHING, Grant, Scope

TAGGED = (
    "vpc", "subnet", "route-table", "internet-gateway", "natgateway", "elastic-ip", "security-group",
    "security-group-rule", "vpc-endpoint", "volume", "launch-template", "instance", "network-interface",
)  # fmt: skip
"""Kinds that the stack makes, each with its tag."""
MAKERS = (
    "CreateVpc", "CreateSubnet", "CreateRouteTable", "CreateInternetGateway", "CreateNatGateway", "AllocateAddress",
    "CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress", "CreateVpcEndpoint",
    "CreateVolume", "CreateLaunchTemplate", "RunInstances",
)  # fmt: skip
"""Calls that make something and tag it at once."""
CANONICAL = "099720109477"
"""Canonical's account, whose Ubuntu the hosts run; the nodes' images are Amazon's."""


def read(scope: Scope) -> list[Grant]:
    """What there is."""
    return [
        Grant(
            "SeeEc2",
            "what is there, and what a stack left; EC2's Describe calls have no finer resource",
            [
                f"ec2:Describe{what}"
                for what in (
                    "AccountAttributes",
                    "Addresses",
                    "AddressesAttribute",
                    "AvailabilityZones",
                    "IamInstanceProfileAssociations",
                    "Images",
                    "InstanceCreditSpecifications",
                    "InstanceStatus",
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
                    "VpcEndpoints",
                    "Vpcs",
                )
            ],
            EVERYTHING,
            scope.here,
        ),
        Grant("SeeVpc", "whether it resolves names", ["ec2:DescribeVpcAttribute"], scope.ec2("vpc")),
        Grant(
            "SeeInstance",
            "its user data, and whether it may be terminated",
            ["ec2:DescribeInstanceAttribute"],
            scope.ec2("instance"),
            scope.own,
        ),
        Grant(
            "SeeVolume",
            "whether its I/O is on",
            ["ec2:DescribeVolumeAttribute"],
            scope.ec2("volume"),
            scope.own,
        ),
    ]


def change(scope: Scope) -> list[Grant]:
    """Make the network and the hosts, and change what has the stack's tag."""
    return [
        Grant(
            "MakeTagged",
            "network, addresses, volumes, launch template, hosts: nothing without the stack's tag",
            [f"ec2:{maker}" for maker in MAKERS if not maker.startswith("Authorize")],
            scope.ec2(*(kind for kind in TAGGED if kind not in ("network-interface", "security-group-rule"))),
            scope.new,
        ),
        Grant(
            "TagWhatIsMade",
            "tags come with the call that makes a thing",
            ["ec2:CreateTags"],
            scope.ec2(*TAGGED),
            {"StringEquals": {"ec2:CreateAction": list(MAKERS), "aws:RequestTag/stack": scope.stack}},
        ),
        Grant(
            "TagDefaultGroup",
            "a VPC's default security group is there without tags, until the stack takes and empties it",
            ["ec2:CreateTags"],
            scope.ec2("security-group"),
            {**scope.new, "Null": {"aws:ResourceTag/stack": "true"}},
        ),
        Grant(
            "InOwnNetwork",
            "where new things go, and what is changed: only what has the stack's tag",
            [
                f"ec2:{action}"
                for action in (
                    "AssociateIamInstanceProfile",
                    "AssociateRouteTable",
                    "AttachInternetGateway",
                    "AttachVolume",
                    "AuthorizeSecurityGroupEgress",
                    "AuthorizeSecurityGroupIngress",
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
            "who reaches the nodes: EKS makes their group, without the stack's tag",
            ["ec2:AuthorizeSecurityGroupIngress", "ec2:ModifySecurityGroupRules", "ec2:RunInstances"],
            scope.ec2("security-group"),
            scope.clusters,
        ),
        Grant(
            "NewRules",
            "a new rule has no tag of its own yet; whose the group is decides",
            ["ec2:AuthorizeSecurityGroupEgress", "ec2:AuthorizeSecurityGroupIngress"],
            scope.ec2("security-group-rule"),
            scope.new,
        ),
        Grant(
            "RunFromImages",
            "hosts run Canonical's Ubuntu, nodes Amazon's EKS image",
            ["ec2:RunInstances"],
            [f"arn:aws:ec2:{scope.settings.region}::image/*"],
            {"StringEquals": {"ec2:Owner": ["amazon", CANONICAL]}},
        ),
        Grant(
            "RunWithInterface",
            "an instance's interface is made with it; a host's has no tags",
            ["ec2:RunInstances"],
            scope.ec2("network-interface"),
        ),
    ]


def remove(scope: Scope) -> list[Grant]:
    """Delete what has the stack's tag."""
    data = ["ec2:DeleteVolume"] if scope.settings.disposable else []
    return [
        Grant(
            "RemoveOwn",
            "only what has the stack's tag; volumes hold data and go with disposable stacks only",
            [
                *data,
                *(
                    f"ec2:{action}"
                    for action in (
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
            "the stack's rules in the group that EKS makes",
            ["ec2:RevokeSecurityGroupIngress"],
            scope.ec2("security-group"),
            scope.clusters,
        ),
    ]


def sweep(scope: Scope) -> list[Grant]:
    """What the cluster's controllers may leave behind (infra/leftovers): found by the cluster's tag."""
    return [
        Grant(
            "SweepCluster",
            "groups and volumes that Kubernetes made for the cluster and could not take down",
            ["ec2:DeleteSecurityGroup", "ec2:DeleteVolume", "ec2:RevokeSecurityGroupEgress"],
            scope.ec2("security-group", "volume"),
            scope.clusters,
        ),
        Grant(
            "SweepInterfaces",
            "detached interfaces of the cluster's pods hold their subnets",
            ["ec2:DeleteNetworkInterface"],
            scope.ec2("network-interface"),
            {"StringEquals": {"aws:ResourceTag/cluster.k8s.amazonaws.com/name": scope.settings.cluster_name}},
        ),
        Grant(
            "SweepOwnInterfaces",
            "detached interfaces of the stack's nodes",
            ["ec2:DeleteNetworkInterface"],
            scope.ec2("network-interface"),
            scope.own,
        ),
        Grant(
            "SweepLoadBalancers",
            "load balancers that Kubernetes made for the cluster and could not take down",
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
