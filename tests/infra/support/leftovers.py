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

    def interface(self, tags: dict[str, str], description: str = "", *, instance: str | None = None) -> str:
        """A network interface, in use by the instance if one is given."""
        made = self.ec2.create_network_interface(
            SubnetId=self.subnet, Description=description, TagSpecifications=specification("network-interface", tags)
        )["NetworkInterface"]["NetworkInterfaceId"]
        if instance is not None:
            self.ec2.attach_network_interface(NetworkInterfaceId=made, InstanceId=instance, DeviceIndex=1)
        return str(made)

    def volume(self, tags: dict[str, str]) -> str:
        made = self.ec2.create_volume(
            AvailabilityZone="us-east-1a", Size=1, TagSpecifications=specification("volume", tags)
        )
        return str(made["VolumeId"])

    def namable(self) -> dict[str, str]:
        """What nobody sweeps, as a failed or half-noted run leaves it: kind -> id."""
        made = {"VPC": self.vpc, "subnet": self.subnet, **self.ways_out()}
        made["EBS volume"] = self.volume(self.own)
        made["EBS snapshot"] = self.ec2.create_snapshot(
            VolumeId=made["EBS volume"], TagSpecifications=specification("snapshot", self.own)
        )["SnapshotId"]
        made["instance"] = self.instance()
        made["machine image"] = self.ec2.create_image(
            InstanceId=made["instance"], Name=f"image-{self.stack}", TagSpecifications=specification("image", self.own)
        )["ImageId"]
        made["launch template"] = self.ec2.create_launch_template(
            LaunchTemplateName=f"nodes-{self.stack}", LaunchTemplateData={"InstanceType": "t3.small"},
            TagSpecifications=specification("launch-template", self.own),
        )["LaunchTemplate"]["LaunchTemplateId"]  # fmt: skip
        made["flow log"] = self.ec2.create_flow_logs(
            ResourceIds=[self.vpc], ResourceType="VPC", TrafficType="ALL",
            LogGroupName=f"/atlas/{self.stack}/flow-logs",
            DeliverLogsPermissionArn="arn:aws:iam::123456789012:role/flow-logs",
            TagSpecifications=specification("vpc-flow-log", self.own),
        )["FlowLogIds"][0]  # fmt: skip
        made["alarm"] = f"atlas-{self.stack}-grafana-status-0a1b2c3"
        client("cloudwatch").put_metric_alarm(
            AlarmName=made["alarm"], Namespace="AWS/EC2", MetricName="StatusCheckFailed", Period=60, Threshold=1,
            EvaluationPeriods=5, Statistic="Maximum", ComparisonOperator="GreaterThanOrEqualToThreshold",
            Tags=tag_list(self.own),
        )  # fmt: skip
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
        made["ECR repository"] = self.repository(images=2)
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
        made["DynamoDB table"] = self.table(f"atlas-{self.stack}-features-0a1b2c3")
        # Of a kind that Atlas never makes.
        queue = client("sqs").create_queue(QueueName=f"queue-{self.stack}", tags=self.own)["QueueUrl"]
        attributes = client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
        made["tagged resource"] = attributes["QueueArn"]
        return made

    def table(self, name: str) -> str:
        """A DynamoDB table with the stack's tags; returns its name."""
        client("dynamodb").create_table(
            TableName=name, BillingMode="PAY_PER_REQUEST", Tags=tag_list(self.own),
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        )  # fmt: skip
        return name

    def ways_out(self) -> dict[str, str]:
        """What leads out of the network: kind -> id."""
        made = {}
        gateway = self.ec2.create_internet_gateway(TagSpecifications=specification("internet-gateway", self.own))
        made["internet gateway"] = gateway["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=made["internet gateway"], VpcId=self.vpc)
        table = self.ec2.create_route_table(VpcId=self.vpc, TagSpecifications=specification("route-table", self.own))
        made["route table"] = table["RouteTable"]["RouteTableId"]
        made["Elastic IP"] = self.ec2.allocate_address(
            Domain="vpc", TagSpecifications=specification("elastic-ip", self.own)
        )["AllocationId"]
        made["NAT gateway"] = self.ec2.create_nat_gateway(
            SubnetId=self.subnet, AllocationId=made["Elastic IP"],
            TagSpecifications=specification("natgateway", self.own),
        )["NatGateway"]["NatGatewayId"]  # fmt: skip
        made["VPC endpoint"] = self.ec2.create_vpc_endpoint(
            VpcId=self.vpc, ServiceName="com.amazonaws.us-east-1.s3", RouteTableIds=[made["route table"]],
            TagSpecifications=specification("vpc-endpoint", self.own),
        )["VpcEndpoint"]["VpcEndpointId"]  # fmt: skip
        return made

    def repository(self, *, images: int) -> str:
        name, ecr = f"atlas-{self.stack}/flask-app", client("ecr")
        ecr.create_repository(repositoryName=name, tags=tag_list(self.own))
        for number in range(images):
            manifest = {
                "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "config": {"size": 1}, "layers": [{"digest": f"sha256:{number:064x}"}],
            }  # fmt: skip
            ecr.put_image(repositoryName=name, imageManifest=json.dumps(manifest), imageTag=f"build-{number}")
        return name

    def living_cluster(self) -> dict[str, str]:
        """The cluster itself, with its nodes: kind -> name."""
        trust = json.dumps({"Version": "2012-10-17", "Statement": []})
        role = client("iam").create_role(RoleName=f"eks-{self.stack}", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        eks, tags = client("eks"), {"project": "atlas", "stack": self.stack}
        eks.create_cluster(name=self.cluster, roleArn=role, resourcesVpcConfig={"subnetIds": [self.subnet]}, tags=tags)
        eks.create_nodegroup(
            clusterName=self.cluster, nodegroupName="flask-app-nodes", subnets=[self.subnet], nodeRole=role, tags=tags
        )
        return {"EKS cluster": self.cluster, "EKS node group": "flask-app-nodes"}

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
