"""Leftovers of every kind, made in an account, for one stack and the like for its neighbour."""

import json
from typing import Any

import boto3


def client(service: str) -> Any:
    return boto3.client(service, region_name="us-east-1")


def tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def specification(kind: str, tags: dict[str, str]) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": tag_list(tags)}]


class Estate:
    """What one stack has in the account: kind -> id, made as asked."""

    def __init__(self, stack: str, cluster: str, cidr: str) -> None:
        self.stack, self.cluster = stack, cluster
        self.own = {"project": "atlas", "stack": stack, "managed-by": "pulumi"}
        self.of_cluster = {f"kubernetes.io/cluster/{cluster}": "owned"}
        self.ec2 = client("ec2")
        self.made: dict[str, str] = {}
        self.vpc = self.ec2.create_vpc(CidrBlock=cidr, TagSpecifications=specification("vpc", self.own))["Vpc"]["VpcId"]
        base = cidr.split(".")[1]
        self.subnet = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.{base}.1.0/24")["Subnet"]["SubnetId"]

    def sweepable(self) -> dict[str, str]:
        """What EKS and Kubernetes leave; kind -> id."""
        elb, logs = client("elbv2"), client("logs")
        made = {}
        balancer = elb.create_load_balancer(
            Name=f"a-{self.stack}", Subnets=[self.subnet], Type="network", Tags=tag_list(self.of_cluster)
        )
        made["load balancer"] = balancer["LoadBalancers"][0]["LoadBalancerArn"]
        group = elb.create_target_group(
            Name=f"k8s-{self.stack}", Protocol="TCP", Port=5000, VpcId=self.vpc, Tags=tag_list(self.of_cluster)
        )
        made["target group"] = group["TargetGroups"][0]["TargetGroupArn"]
        client("elb").create_load_balancer(
            LoadBalancerName=f"classic-{self.stack}", Subnets=[self.subnet], Tags=tag_list(self.of_cluster),
            Listeners=[{"Protocol": "TCP", "LoadBalancerPort": 80, "InstancePort": 80}],
        )  # fmt: skip
        made["classic load balancer"] = f"classic-{self.stack}"
        name = f"k8s-elb-a-{self.stack}"
        elb_group = self._group(name)
        nodes = self._group(f"eks-cluster-sg-{self.cluster}")
        for one, other in ((elb_group, nodes), (nodes, elb_group)):
            self.ec2.authorize_security_group_ingress(
                GroupId=one, IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": other}]}]
            )
        made["security group"] = elb_group
        made["network interface"] = self.interface({"cluster.k8s.amazonaws.com/name": self.cluster})
        logs.create_log_group(logGroupName=f"/aws/eks/{self.cluster}/cluster")
        made["log group"] = f"/aws/eks/{self.cluster}/cluster"
        made["EBS volume"] = self.volume(self.of_cluster)
        return made

    def interface(self, tags: dict[str, str]) -> str:
        made = self.ec2.create_network_interface(
            SubnetId=self.subnet, TagSpecifications=specification("network-interface", tags)
        )
        return str(made["NetworkInterface"]["NetworkInterfaceId"])

    def volume(self, tags: dict[str, str]) -> str:
        made = self.ec2.create_volume(
            AvailabilityZone="us-east-1a", Size=1, TagSpecifications=specification("volume", tags)
        )
        return str(made["VolumeId"])

    def namable(self) -> dict[str, str]:
        """What nobody sweeps, as a failed or half-noted run leaves it: kind -> id."""
        made = {"VPC": self.vpc, "subnet": self.subnet}
        made["Elastic IP"] = self.ec2.allocate_address(
            Domain="vpc", TagSpecifications=specification("elastic-ip", self.own)
        )["AllocationId"]
        made["EBS volume"] = self.volume(self.own)
        made["EBS snapshot"] = self.ec2.create_snapshot(
            VolumeId=made["EBS volume"], TagSpecifications=specification("snapshot", self.own)
        )["SnapshotId"]
        made["instance"] = self.instance()
        made["launch template"] = self.ec2.create_launch_template(
            LaunchTemplateName=f"nodes-{self.stack}", LaunchTemplateData={"InstanceType": "t3.small"},
            TagSpecifications=specification("launch-template", self.own),
        )["LaunchTemplate"]["LaunchTemplateId"]  # fmt: skip
        iam, trust = client("iam"), json.dumps({"Version": "2012-10-17", "Statement": []})
        path = f"/atlas/{self.stack}/"
        iam.create_role(RoleName=f"role-{self.stack}", Path=path, AssumeRolePolicyDocument=trust)
        made["role"] = f"role-{self.stack}"
        iam.create_instance_profile(InstanceProfileName=f"profile-{self.stack}", Path=path)
        made["instance profile"] = f"profile-{self.stack}"
        host = f"oidc.eks.us-east-1.amazonaws.com/id/{self.stack}"
        made["identity provider of a cluster"] = iam.create_open_id_connect_provider(
            Url=f"https://{host}", ThumbprintList=["0" * 40], Tags=tag_list(self.own)
        )["OpenIDConnectProviderArn"]
        client("ecr").create_repository(repositoryName=f"atlas-{self.stack}/flask-app", tags=tag_list(self.own))
        made["ECR repository"] = f"atlas-{self.stack}/flask-app"
        s3 = client("s3")
        bucket = f"atlas-{self.stack}-data-bucket-0a1b2c3"
        s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tag_list(self.own)})
        for text in (b"one", b"two"):
            s3.put_object(Bucket=bucket, Key="dvc/a", Body=text)
        s3.delete_object(Bucket=bucket, Key="dvc/a")
        made["bucket"] = bucket
        secret = f"atlas-{self.stack}/grafana-admin-1"
        client("secretsmanager").create_secret(Name=secret, SecretString="x", Tags=tag_list(self.own))
        made["secret"] = secret
        made["topic"] = client("sns").create_topic(Name=f"atlas-{self.stack}-topic-1", Tags=tag_list(self.own))[
            "TopicArn"
        ]
        made["KMS key"] = client("kms").create_key(
            Tags=[{"TagKey": key, "TagValue": value} for key, value in self.own.items()]
        )["KeyMetadata"]["Arn"]
        return made

    def instance(self) -> str:
        image = self.ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        return str(
            self.ec2.run_instances(
                ImageId=image, MinCount=1, MaxCount=1, SubnetId=self.subnet,
                TagSpecifications=specification("instance", self.own),
            )["Instances"][0]["InstanceId"]
        )  # fmt: skip

    def vanish(self) -> None:
        """What the engine would have removed is gone: the network, once nothing is in it."""
        self.ec2.delete_subnet(SubnetId=self.subnet)
        self.ec2.delete_vpc(VpcId=self.vpc)

    def _group(self, name: str) -> str:
        made = self.ec2.create_security_group(
            GroupName=name, Description=name, VpcId=self.vpc,
            TagSpecifications=specification("security-group", self.of_cluster),
        )  # fmt: skip
        return str(made["GroupId"])
