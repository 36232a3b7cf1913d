"""The permissions boundary of a stack's own roles: their maximum permissions, for cluster, hosts and pods."""

from infra.names import VIEW_FILES, flow_logs
from infra.permissions.grant import EVERYTHING, Grant, Scope


def boundary(scope: Scope) -> list[Grant]:
    """No IAM action except a service-linked role, no other stack's data, no state, no other region."""
    ec2 = scope.ec2(
        "instance", "network-interface", "route-table", "security-group", "security-group-rule", "subnet", "volume",
        "vpc",
    )  # fmt: skip
    use_key = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey", "kms:ListGrants"]
    balancing = scope.arn("elasticloadbalancing", "loadbalancer/*", "targetgroup/*/*", "listener/net/*/*/*")
    return [
        Grant(
            "See",
            "EKS, its network plug-in and the load balancers' controller list resources; no finer resource",
            [
                "autoscaling:DescribeAutoScalingGroups", "ecr:GetAuthorizationToken",
                *(
                    f"ec2:Describe{what}"
                    for what in (
                        "AccountAttributes", "Addresses", "AvailabilityZones", "DhcpOptions", "InstanceTopology",
                        "InstanceTypes", "Instances", "InternetGateways", "NetworkInterfaces", "RouteTables",
                        "SecurityGroups", "Subnets", "Tags", "Volumes", "VolumesModifications", "Vpcs",
                    )
                ),
                *(
                    f"elasticloadbalancing:Describe{what}"
                    for what in (
                        "Listeners", "LoadBalancerAttributes", "LoadBalancerPolicies", "LoadBalancers",
                        "TargetGroupAttributes", "TargetGroups", "TargetHealth",
                    )
                ),
            ],
            EVERYTHING,
            scope.here,
        ),
        Grant(
            "Ec2",
            "addresses of nodes and pods, security groups of load balancers, Kubernetes' volumes",
            [
                f"ec2:{action}"
                for action in (
                    "AssignPrivateIpAddresses", "AttachNetworkInterface", "AttachVolume",
                    "AuthorizeSecurityGroupIngress", "CreateNetworkInterface", "CreateRoute", "CreateSecurityGroup",
                    "CreateTags", "CreateVolume", "DeleteNetworkInterface", "DeleteRoute", "DeleteSecurityGroup",
                    "DeleteVolume", "DetachNetworkInterface", "DetachVolume", "ModifyInstanceAttribute",
                    "ModifyNetworkInterfaceAttribute", "ModifyVolume", "RevokeSecurityGroupIngress",
                    "UnassignPrivateIpAddresses",
                )
            ],
            ec2,
        ),
        Grant(
            "LoadBalancers",
            "for Services of type LoadBalancer",
            [
                f"elasticloadbalancing:{action}"
                for action in (
                    "AddTags", "CreateListener", "CreateLoadBalancer", "CreateTargetGroup", "DeleteListener",
                    "DeleteLoadBalancer", "DeleteTargetGroup", "DeregisterTargets", "ModifyListener",
                    "ModifyLoadBalancerAttributes", "ModifyTargetGroup", "ModifyTargetGroupAttributes",
                    "RegisterTargets",
                )
            ],
            balancing,
        ),
        Grant(
            "LinkBalancing",
            "the first load balancer of an account needs this role; AWS defines its permissions",
            ["iam:CreateServiceLinkedRole"],
            [
                f"arn:aws:iam::{scope.home.account_id}:role/aws-service-role/elasticloadbalancing.amazonaws.com/"
                "AWSServiceRoleForElasticLoadBalancing"
            ],
        ),
        Grant(
            "Key",
            "the cluster's role uses the key of the cluster's secrets, and looks at its grants",
            use_key,
            scope.arn("kms", "key/*"),
            scope.own,
        ),
        Grant(
            "NewKey",
            "the cluster is created right after its key, some minutes before KMS authorises by the key's tags",
            use_key,
            scope.arn("kms", "key/*"),
            scope.new_key,
        ),
        Grant(
            "ServiceKeys",
            "AWS's key for Grafana's password, the stack's for alerts; hosts use them through these services only",
            ["kms:Decrypt", "kms:GenerateDataKey"],
            scope.arn("kms", "key/*"),
            {
                "StringEquals": {
                    "kms:ViaService": [
                        f"{service}.{scope.settings.region}.amazonaws.com" for service in ("secretsmanager", "sns")
                    ]
                }
            },
        ),
        Grant(
            "Pull",
            "the service's image, and the add-ons' images, which are in AWS's own accounts",
            ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
            [f"arn:aws:ecr:{scope.settings.region}:*:repository/*"],
        ),
        Grant(
            "Agent",
            "logging in to hosts with Session Manager; the channels of its agent have no finer resource",
            [
                *(
                    f"ssmmessages:{action}"
                    for action in (
                        "CreateControlChannel", "CreateDataChannel", "OpenControlChannel", "OpenDataChannel",
                    )
                ),
                *(
                    f"ec2messages:{action}"
                    for action in (
                        "AcknowledgeMessage", "DeleteMessage", "FailMessage", "GetEndpoint", "GetMessages", "SendReply",
                    )
                ),
                *(
                    f"ssm:{action}"
                    for action in (
                        "GetDeployablePatchSnapshotForInstance", "GetManifest", "ListAssociations",
                        "PutConfigurePackageResult", "PutInventory",
                    )
                ),
            ],
            EVERYTHING,
            scope.here,
        ),
        Grant(
            "AgentOfHost",
            "the Session Manager agent registers its instance",
            ["ssm:ListInstanceAssociations", "ssm:PutComplianceItems", "ssm:UpdateInstanceInformation"],
            scope.ec2("instance"),
        ),
        Grant(
            "Config",
            "hosts read their configuration; the service reads its files, the materialiser those of views",
            ["s3:GetObject", "s3:ListBucket"],
            [
                *scope.buckets, f"arn:aws:s3:::{scope.prefix}-config-bucket-*/*",
                f"arn:aws:s3:::{scope.prefix}-data-bucket-*/service/*",
                f"arn:aws:s3:::{scope.prefix}-data-bucket-*/{VIEW_FILES}/*",
            ],
        ),
        Grant(
            # A statement for each would exceed IAM's limit of a policy's size. An action applies only to resources of
            # its own service, so that the union allows no more than its parts.
            "OwnParts",
            "nodes give pods the credentials of their roles; the service looks features up, and the materialiser "
            "writes them; Alertmanager notifies the people on call; EC2 writes the VPC's flow logs; Grafana's host "
            "reads its password at boot; the service logs its predictions",
            [
                "dynamodb:BatchGetItem", "dynamodb:BatchWriteItem", "dynamodb:GetItem", "dynamodb:UpdateItem",
                "eks-auth:AssumeRoleForPodIdentity",
                "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents",
                "s3:PutObject", "secretsmanager:GetSecretValue", "sns:Publish",
            ],
            [
                *scope.tables,
                f"arn:aws:s3:::{scope.prefix}-data-bucket-*/predictions/*",
                *scope.arn("eks", f"cluster/{scope.settings.cluster_name}"),
                *scope.arn("logs", *(f"log-group:{flow_logs(scope.stack)}{of}" for of in ("", ":log-stream:*"))),
                *scope.arn("secretsmanager", f"secret:{scope.prefix}/*"),
                *scope.arn("sns", f"{scope.prefix}-topic-*"),
            ],
        ),
    ]  # fmt: skip


WITHHELD = {
    # Actions that AWS's managed policies for these roles allow, but that nothing here needs.
    "autoscaling:UpdateAutoScalingGroup": "the group belongs to the managed node group, which EKS scales itself",
    **{
        f"elasticloadbalancing:{action}": "only for classic load balancers; the Service has a network load balancer"
        for action in (
            "ApplySecurityGroupsToLoadBalancer", "AttachLoadBalancerToSubnets", "ConfigureHealthCheck",
            "CreateLoadBalancerListeners", "CreateLoadBalancerPolicy", "DeleteLoadBalancerListeners",
            "DeregisterInstancesFromLoadBalancer", "DetachLoadBalancerFromSubnets", "RegisterInstancesWithLoadBalancer",
            "SetLoadBalancerPoliciesForBackendServer", "SetLoadBalancerPoliciesOfListener",
        )
    },
    "ecr:BatchImportUpstreamImage": "there is no pull-through cache",
    "ssm:DescribeAssociation": "State Manager isn't used",
    "ssm:DescribeDocument": "State Manager isn't used",
    "ssm:GetDocument": "State Manager isn't used; sessions don't need it",
    "ssm:GetParameter": "would allow reading other stacks' parameters; the hosts read no parameters",
    "ssm:GetParameters": "would allow reading other stacks' parameters; the hosts read no parameters",
    "ssm:UpdateAssociationStatus": "State Manager isn't used",
    "ssm:UpdateInstanceAssociationStatus": "State Manager isn't used",
}  # fmt: skip
"""Action -> the reason why the boundary doesn't allow it."""
