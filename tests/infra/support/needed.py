"""What terraform-provider-aws asks of AWS for each type of resource: to make, change, read and delete it.

From Pike's mapping (github.com/JamesWoolfenden/pike, src/mapping/aws/resource, August 2026), less what belongs to
attributes that the program doesn't set, and more where AWS's documentation of an action says so (marked).
"""

from collections.abc import Mapping

TAG = ("ec2:CreateTags", "ec2:DeleteTags")

MAKE: Mapping[str, tuple[str, ...]] = {
    # What changes something; deletes are in REMOVE, reads in READ.
    "budgets/budget:Budget": ("budgets:ModifyBudget", "budgets:TagResource"),
    "cloudwatch/logGroup:LogGroup": ("logs:CreateLogGroup", "logs:PutRetentionPolicy", "logs:TagResource"),
    "cloudwatch/metricAlarm:MetricAlarm": ("cloudwatch:PutMetricAlarm", "cloudwatch:TagResource"),
    "dynamodb/table:Table": (
        "dynamodb:CreateTable", "dynamodb:TagResource", "dynamodb:UntagResource", "dynamodb:UpdateContinuousBackups",
        "dynamodb:UpdateTable", "dynamodb:UpdateTimeToLive",
    ),
    "ebs/volume:Volume": (
        # The provider waits until EC2 has begun a change of the size.
        "ec2:CreateVolume", "ec2:DescribeVolumesModifications", "ec2:ModifyVolume", *TAG,
    ),
    "ec2/defaultSecurityGroup:DefaultSecurityGroup": (
        "ec2:RevokeSecurityGroupEgress", "ec2:RevokeSecurityGroupIngress", *TAG,
    ),
    "ec2/eip:Eip": ("ec2:AllocateAddress", *TAG),
    "ec2/flowLog:FlowLog": ("ec2:CreateFlowLogs", "iam:PassRole", *TAG),
    "ec2/instance:Instance": (
        "ec2:AssociateIamInstanceProfile", "ec2:DescribeVolumesModifications", "ec2:DisassociateIamInstanceProfile",
        "ec2:ModifyInstanceAttribute", "ec2:ModifyVolume", "ec2:ReplaceIamInstanceProfileAssociation",
        "ec2:RunInstances", "ec2:StartInstances", "ec2:StopInstances", "iam:PassRole", *TAG,
    ),
    "ec2/internetGateway:InternetGateway": ("ec2:AttachInternetGateway", "ec2:CreateInternetGateway", *TAG),
    "ec2/launchTemplate:LaunchTemplate": (
        "ec2:CreateLaunchTemplate", "ec2:CreateLaunchTemplateVersion", "ec2:ModifyLaunchTemplate", *TAG,
    ),
    "ec2/natGateway:NatGateway": ("ec2:CreateNatGateway", *TAG),
    "ec2/route:Route": ("ec2:CreateRoute", "ec2:ReplaceRoute"),
    "ec2/routeTable:RouteTable": ("ec2:CreateRouteTable", *TAG),
    "ec2/routeTableAssociation:RouteTableAssociation": (
        "ec2:AssociateRouteTable", "ec2:ReplaceRouteTableAssociation",
    ),
    "ec2/securityGroup:SecurityGroup": (
        # A new group may send everywhere, which the provider takes away.
        "ec2:CreateSecurityGroup", "ec2:RevokeSecurityGroupEgress", *TAG,
    ),
    "ec2/subnet:Subnet": ("ec2:CreateSubnet", "ec2:ModifySubnetAttribute", *TAG),
    "ec2/volumeAttachment:VolumeAttachment": ("ec2:AttachVolume",),
    "ec2/vpc:Vpc": ("ec2:CreateVpc", "ec2:ModifyVpcAttribute", *TAG),
    "ec2/vpcEndpoint:VpcEndpoint": ("ec2:CreateVpcEndpoint", "ec2:ModifyVpcEndpoint", *TAG),
    "ecr/lifecyclePolicy:LifecyclePolicy": ("ecr:PutLifecyclePolicy",),
    "ecr/repository:Repository": ("ecr:CreateRepository", "ecr:PutImageScanningConfiguration", "ecr:TagResource"),
    "eks/accessEntry:AccessEntry": ("eks:CreateAccessEntry", "eks:TagResource", "eks:UpdateAccessEntry"),
    "eks/accessPolicyAssociation:AccessPolicyAssociation": ("eks:AssociateAccessPolicy",),
    "eks/addon:Addon": ("eks:CreateAddon", "eks:TagResource", "eks:UpdateAddon"),
    "eks/cluster:Cluster": (
        "eks:CreateCluster", "eks:TagResource", "eks:UpdateClusterConfig", "eks:UpdateClusterVersion", "iam:PassRole",
        # Its first cluster makes EKS's linked role; the key's grant is in the caller's name.
        "iam:CreateServiceLinkedRole", "kms:CreateGrant", "kms:DescribeKey",
    ),
    "eks/nodeGroup:NodeGroup": (
        "eks:CreateNodegroup", "eks:TagResource", "eks:UpdateNodegroupConfig", "eks:UpdateNodegroupVersion",
        "iam:CreateServiceLinkedRole", "iam:PassRole",
        # With a launch template EKS tries it in the caller's name.
        "ec2:CreateTags", "ec2:RunInstances",
    ),
    "eks/podIdentityAssociation:PodIdentityAssociation": (
        "eks:CreatePodIdentityAssociation", "eks:TagResource", "eks:UpdatePodIdentityAssociation", "iam:PassRole",
    ),
    "iam/instanceProfile:InstanceProfile": (
        "iam:AddRoleToInstanceProfile", "iam:CreateInstanceProfile", "iam:PassRole", "iam:TagInstanceProfile",
    ),
    "iam/role:Role": (
        "iam:CreateRole", "iam:PutRolePermissionsBoundary", "iam:TagRole", "iam:UpdateAssumeRolePolicy",
        "iam:UpdateRole", "iam:UpdateRoleDescription",
    ),
    "iam/rolePolicy:RolePolicy": ("iam:PutRolePolicy",),
    "iam/rolePolicyAttachment:RolePolicyAttachment": ("iam:AttachRolePolicy",),
    "kms/key:Key": (
        "kms:CreateKey", "kms:EnableKeyRotation", "kms:PutKeyPolicy", "kms:TagResource", "kms:UpdateKeyDescription",
    ),
    # The provider tags buckets by S3's newer actions, and by the older action only when these are refused.
    "s3/bucket:Bucket": ("s3:CreateBucket", "s3:PutBucketTagging", "s3:TagResource", "s3:UntagResource"),
    "s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": ("s3:PutLifecycleConfiguration",),
    "s3/bucketObjectv2:BucketObjectv2": ("s3:PutObject", "s3:PutObjectTagging"),
    "s3/bucketOwnershipControls:BucketOwnershipControls": ("s3:PutBucketOwnershipControls",),
    "s3/bucketPolicy:BucketPolicy": ("s3:PutBucketPolicy",),
    "s3/bucketPublicAccessBlock:BucketPublicAccessBlock": ("s3:PutBucketPublicAccessBlock",),
    "s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": (
        "s3:PutEncryptionConfiguration",
    ),
    "s3/bucketVersioning:BucketVersioning": ("s3:PutBucketVersioning",),
    "secretsmanager/secret:Secret": (
        "secretsmanager:CreateSecret", "secretsmanager:TagResource", "secretsmanager:UpdateSecret",
    ),
    "secretsmanager/secretVersion:SecretVersion": ("secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"),
    "sns/topic:Topic": ("sns:CreateTopic", "sns:SetTopicAttributes", "sns:TagResource"),
    "sns/topicSubscription:TopicSubscription": ("sns:Subscribe",),
    "vpc/securityGroupEgressRule:SecurityGroupEgressRule": (
        "ec2:AuthorizeSecurityGroupEgress", "ec2:ModifySecurityGroupRules", *TAG,
    ),
    "vpc/securityGroupIngressRule:SecurityGroupIngressRule": (
        "ec2:AuthorizeSecurityGroupIngress", "ec2:ModifySecurityGroupRules", *TAG,
    ),
}  # fmt: skip
REMOVE: Mapping[str, tuple[str, ...]] = {
    "cloudwatch/metricAlarm:MetricAlarm": ("cloudwatch:DeleteAlarms",),
    "ec2/flowLog:FlowLog": ("ec2:DeleteFlowLogs",),
    "budgets/budget:Budget": ("budgets:ModifyBudget",),
    "cloudwatch/logGroup:LogGroup": ("logs:DeleteLogGroup",),
    "dynamodb/table:Table": ("dynamodb:DeleteTable",),
    "ebs/volume:Volume": ("ec2:DeleteVolume",),
    "ec2/defaultSecurityGroup:DefaultSecurityGroup": (),  # goes with its VPC
    "ec2/eip:Eip": ("ec2:DisassociateAddress", "ec2:ReleaseAddress"),
    "ec2/instance:Instance": ("ec2:ModifyInstanceAttribute", "ec2:TerminateInstances"),
    "ec2/internetGateway:InternetGateway": ("ec2:DeleteInternetGateway", "ec2:DetachInternetGateway"),
    "ec2/launchTemplate:LaunchTemplate": ("ec2:DeleteLaunchTemplate",),
    "ec2/natGateway:NatGateway": ("ec2:DeleteNatGateway",),
    "ec2/route:Route": ("ec2:DeleteRoute",),
    "ec2/routeTable:RouteTable": ("ec2:DeleteRouteTable", "ec2:DisassociateRouteTable"),
    "ec2/routeTableAssociation:RouteTableAssociation": ("ec2:DisassociateRouteTable",),
    "ec2/securityGroup:SecurityGroup": (
        "ec2:DeleteSecurityGroup", "ec2:RevokeSecurityGroupEgress", "ec2:RevokeSecurityGroupIngress",
    ),
    "ec2/subnet:Subnet": ("ec2:DeleteSubnet",),
    "ec2/volumeAttachment:VolumeAttachment": ("ec2:DetachVolume", "ec2:StopInstances"),
    "ec2/vpc:Vpc": ("ec2:DeleteVpc",),
    "ec2/vpcEndpoint:VpcEndpoint": ("ec2:DeleteVpcEndpoints",),
    "ecr/lifecyclePolicy:LifecyclePolicy": ("ecr:DeleteLifecyclePolicy",),
    "ecr/repository:Repository": ("ecr:DeleteRepository",),
    "eks/accessEntry:AccessEntry": ("eks:DeleteAccessEntry",),
    "eks/accessPolicyAssociation:AccessPolicyAssociation": ("eks:DisassociateAccessPolicy",),
    "eks/addon:Addon": ("eks:DeleteAddon",),
    "eks/cluster:Cluster": ("eks:DeleteCluster",),
    "eks/nodeGroup:NodeGroup": ("eks:DeleteNodegroup",),
    "eks/podIdentityAssociation:PodIdentityAssociation": ("eks:DeletePodIdentityAssociation",),
    "iam/instanceProfile:InstanceProfile": ("iam:DeleteInstanceProfile", "iam:RemoveRoleFromInstanceProfile"),
    "iam/role:Role": ("iam:DeleteRole",),
    "iam/rolePolicy:RolePolicy": ("iam:DeleteRolePolicy",),
    "iam/rolePolicyAttachment:RolePolicyAttachment": ("iam:DetachRolePolicy",),
    "kms/key:Key": ("kms:ScheduleKeyDeletion",),
    "s3/bucket:Bucket": ("s3:DeleteBucket", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:ListBucketVersions"),
    "s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": ("s3:PutLifecycleConfiguration",),
    "s3/bucketObjectv2:BucketObjectv2": ("s3:DeleteObject", "s3:DeleteObjectVersion", "s3:ListBucketVersions"),
    "s3/bucketOwnershipControls:BucketOwnershipControls": ("s3:PutBucketOwnershipControls",),
    "s3/bucketPolicy:BucketPolicy": ("s3:DeleteBucketPolicy",),
    "s3/bucketPublicAccessBlock:BucketPublicAccessBlock": ("s3:PutBucketPublicAccessBlock",),
    "s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": (
        "s3:PutEncryptionConfiguration",
    ),
    "s3/bucketVersioning:BucketVersioning": ("s3:PutBucketVersioning",),
    "secretsmanager/secret:Secret": ("secretsmanager:DeleteSecret",),
    "secretsmanager/secretVersion:SecretVersion": (),  # goes with its secret
    "sns/topic:Topic": ("sns:DeleteTopic",),
    "sns/topicSubscription:TopicSubscription": ("sns:Unsubscribe",),
    "vpc/securityGroupEgressRule:SecurityGroupEgressRule": ("ec2:RevokeSecurityGroupEgress",),
    "vpc/securityGroupIngressRule:SecurityGroupIngressRule": ("ec2:RevokeSecurityGroupIngress",),
}  # fmt: skip
READ: Mapping[str, tuple[str, ...]] = {
    "cloudwatch/metricAlarm:MetricAlarm": ("cloudwatch:DescribeAlarms", "cloudwatch:ListTagsForResource"),
    "ec2/flowLog:FlowLog": ("ec2:DescribeFlowLogs",),
    "budgets/budget:Budget": ("budgets:ViewBudget", "budgets:ListTagsForResource"),
    "cloudwatch/logGroup:LogGroup": ("logs:DescribeLogGroups", "logs:ListTagsForResource"),
    "dynamodb/table:Table": (
        "dynamodb:DescribeContinuousBackups", "dynamodb:DescribeTable", "dynamodb:DescribeTimeToLive",
        "dynamodb:ListTagsOfResource",
    ),
    "ebs/volume:Volume": ("ec2:DescribeVolumes",),
    "ec2/defaultSecurityGroup:DefaultSecurityGroup": ("ec2:DescribeSecurityGroups",),
    "ec2/eip:Eip": ("ec2:DescribeAddresses", "ec2:DescribeAddressesAttribute"),
    "ec2/instance:Instance": (
        "ec2:DescribeIamInstanceProfileAssociations", "ec2:DescribeInstanceAttribute",
        "ec2:DescribeInstanceCreditSpecifications", "ec2:DescribeInstances", "ec2:DescribeInstanceTypes",
        "ec2:DescribeTags", "ec2:DescribeVolumes",
    ),
    "ec2/internetGateway:InternetGateway": ("ec2:DescribeInternetGateways",),
    "ec2/launchTemplate:LaunchTemplate": ("ec2:DescribeLaunchTemplates", "ec2:DescribeLaunchTemplateVersions"),
    "ec2/natGateway:NatGateway": ("ec2:DescribeNatGateways",),
    "ec2/route:Route": ("ec2:DescribeRouteTables",),
    "ec2/routeTable:RouteTable": ("ec2:DescribeRouteTables",),
    "ec2/routeTableAssociation:RouteTableAssociation": ("ec2:DescribeRouteTables",),
    "ec2/securityGroup:SecurityGroup": ("ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups"),
    "ec2/subnet:Subnet": ("ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"),
    "ec2/volumeAttachment:VolumeAttachment": ("ec2:DescribeInstances", "ec2:DescribeVolumes"),
    "ec2/vpc:Vpc": (
        "ec2:DescribeNetworkAcls", "ec2:DescribeRouteTables", "ec2:DescribeSecurityGroups", "ec2:DescribeVpcAttribute",
        "ec2:DescribeVpcs",
    ),
    "ec2/vpcEndpoint:VpcEndpoint": ("ec2:DescribePrefixLists", "ec2:DescribeVpcEndpoints"),
    "ecr/lifecyclePolicy:LifecyclePolicy": ("ecr:GetLifecyclePolicy",),
    "ecr/repository:Repository": ("ecr:DescribeRepositories", "ecr:ListTagsForResource"),
    "eks/accessEntry:AccessEntry": ("eks:DescribeAccessEntry",),
    "eks/accessPolicyAssociation:AccessPolicyAssociation": ("eks:ListAssociatedAccessPolicies",),
    "eks/addon:Addon": ("eks:DescribeAddon", "eks:DescribeUpdate"),
    "eks/cluster:Cluster": ("eks:DescribeCluster", "eks:DescribeUpdate"),
    "eks/nodeGroup:NodeGroup": ("eks:DescribeNodegroup", "eks:DescribeUpdate", "iam:GetRole"),
    "eks/podIdentityAssociation:PodIdentityAssociation": ("eks:DescribePodIdentityAssociation",),
    "iam/instanceProfile:InstanceProfile": ("iam:GetInstanceProfile", "iam:GetRole"),
    "iam/role:Role": (
        "iam:GetRole", "iam:ListAttachedRolePolicies", "iam:ListInstanceProfilesForRole", "iam:ListRolePolicies",
    ),
    "iam/rolePolicy:RolePolicy": ("iam:GetRolePolicy",),
    "iam/rolePolicyAttachment:RolePolicyAttachment": ("iam:ListAttachedRolePolicies",),
    "kms/key:Key": ("kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListResourceTags"),
    "s3/bucket:Bucket": (
        "s3:GetAccelerateConfiguration", "s3:GetBucketAcl", "s3:GetBucketCORS", "s3:GetBucketLocation",
        "s3:GetBucketLogging", "s3:GetBucketObjectLockConfiguration", "s3:GetBucketPolicy",
        "s3:GetBucketRequestPayment", "s3:GetBucketTagging", "s3:GetBucketVersioning", "s3:GetBucketWebsite",
        "s3:GetEncryptionConfiguration", "s3:GetLifecycleConfiguration", "s3:GetReplicationConfiguration",
        "s3:ListBucket", "s3:ListTagsForResource",
    ),
    "s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": ("s3:GetLifecycleConfiguration",),
    "s3/bucketObjectv2:BucketObjectv2": ("s3:GetObject", "s3:GetObjectTagging"),
    "s3/bucketOwnershipControls:BucketOwnershipControls": ("s3:GetBucketOwnershipControls",),
    "s3/bucketPolicy:BucketPolicy": ("s3:GetBucketPolicy",),
    "s3/bucketPublicAccessBlock:BucketPublicAccessBlock": ("s3:GetBucketPublicAccessBlock",),
    "s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": (
        "s3:GetEncryptionConfiguration",
    ),
    "s3/bucketVersioning:BucketVersioning": ("s3:GetBucketVersioning",),
    "secretsmanager/secret:Secret": ("secretsmanager:DescribeSecret", "secretsmanager:GetResourcePolicy"),
    "secretsmanager/secretVersion:SecretVersion": (),  # its value: no matter of a role that only looks
    "sns/topic:Topic": ("sns:GetTopicAttributes", "sns:ListTagsForResource"),
    "sns/topicSubscription:TopicSubscription": ("sns:GetSubscriptionAttributes",),
    "vpc/securityGroupEgressRule:SecurityGroupEgressRule": ("ec2:DescribeSecurityGroupRules",),
    "vpc/securityGroupIngressRule:SecurityGroupIngressRule": ("ec2:DescribeSecurityGroupRules",),
}  # fmt: skip
