"""A monitoring host: an EC2 instance that downloads its configuration from S3; its data is on a separate volume."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pulumi
import pulumi_aws as aws

from infra.components.network import EVERYWHERE
from infra.components.private_bucket import PrivateBucket
from infra.components.trust import policy_document, trusted
from infra.hosts.boot import HostBoot, user_data
from infra.names import COMPONENT_TAG

ROOT_DEVICE = "/dev/sda1"
"""The name of the root disk in Ubuntu's images."""
UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
"""Canonical's public SSM parameter with the id of the newest Ubuntu 24.04 image."""


@dataclass(frozen=True, slots=True)
class HostArgs:
    """The inputs of the component Host."""

    role: Literal["prometheus", "grafana"]
    region: str
    zone: str
    """The full name of its availability zone."""
    vpc_id: pulumi.Input[str]
    subnet_id: pulumi.Input[str]
    address: str
    """Its fixed private IPv4 address."""
    public: bool
    """Whether it also gets a public address."""
    instance_type: str
    disk_gb: int
    ways_out: Sequence[pulumi.Resource]
    """Routes that it needs for downloads."""
    bucket: PrivateBucket
    """The bucket of its configuration, which is below the prefix `role`."""
    files: Mapping[str, pulumi.Input[str]]
    """Its configuration: relative path -> text."""
    disposable: bool
    tags: Mapping[str, str]
    statements: Sequence[Mapping[str, Any]] = ()
    """Further permissions of its role, besides its configuration and SSM; values may be outputs."""
    data_disk_gb: int | None = None
    """Size of its data volume, which is kept when the host is replaced."""
    cluster: str | None = None
    """The cluster whose kubelets it scrapes."""
    secret_arn: pulumi.Input[str] | None = None
    """The secret that it reads at its start."""
    mirror: str | None = None
    """A mirror for downloads, instead of the official addresses."""


class Host(pulumi.ComponentResource):
    """Instance with its launch template, role, security group, configuration objects.

    Outputs:
        instance_id: for `aws ssm start-session`.
        public_ip: empty on a private host.
        security_group_id: its security group; infra/components/monitoring_access.py adds the ingress rules.
    """

    instance_id: pulumi.Output[str]
    public_ip: pulumi.Output[str]
    security_group_id: pulumi.Output[str]

    def __init__(
        self, name: str, args: HostArgs, role: aws.iam.Role, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("atlas:aws:Host", name, None, opts)
        here = pulumi.ResourceOptions(parent=self)
        tags = {**args.tags, COMPONENT_TAG: args.role, "Name": name}

        group = aws.ec2.SecurityGroup(
            f"{name}-sg",
            vpc_id=args.vpc_id,
            description=f"The {args.role} host",
            tags=tags,
            # No inline rules: they would conflict with the rules that are separate resources.
            opts=here,
        )
        for label, port in (("http", 80), ("https", 443)):
            aws.vpc.SecurityGroupEgressRule(
                f"{name}-out-{label}",
                security_group_id=group.id,
                description="Packages, releases and AWS itself",
                cidr_ipv4=EVERYWHERE,
                ip_protocol="tcp",
                from_port=port,
                to_port=port,
                tags=tags,
                opts=here,
            )
        aws.iam.RolePolicyAttachment(
            f"{name}-ssm",
            role=role.name,
            policy_arn="arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore",
            opts=here,
        )
        policy = aws.iam.RolePolicy(
            f"{name}-policy",
            role=role.name,
            policy=pulumi.Output.json_dumps(
                policy_document(
                    {
                        "Sid": "ListOwnConfiguration",
                        "Effect": "Allow",
                        "Action": "s3:ListBucket",
                        "Resource": args.bucket.arn,
                        "Condition": {"StringLike": {"s3:prefix": f"{args.role}/*"}},
                    },
                    {
                        "Sid": "ReadOwnConfiguration",
                        "Effect": "Allow",
                        "Action": "s3:GetObject",
                        "Resource": pulumi.Output.concat(args.bucket.arn, f"/{args.role}/*"),
                    },
                    *args.statements,
                )
            ),
            opts=here,
        )
        profile = aws.iam.InstanceProfile(f"{name}-profile", role=role.name, tags=tags, opts=here)
        for path, content in args.files.items():
            aws.s3.BucketObjectv2(
                f"{name}-{path}",
                bucket=args.bucket.bucket,
                key=f"{args.role}/{path}",
                content=content,
                tags={**args.tags, COMPONENT_TAG: args.role},
                opts=here,
            )
        volume = None
        if args.data_disk_gb is not None:
            volume = aws.ebs.Volume(
                f"{name}-data",
                availability_zone=args.zone,
                size=args.data_disk_gb,
                type="gp3",
                encrypted=True,
                tags={**tags, "Name": f"{name}-data"},
                opts=pulumi.ResourceOptions(parent=self, protect=not args.disposable),
            )

        def rendered(values: Mapping[str, Any]) -> str:
            return user_data(
                HostBoot(
                    role=args.role,
                    region=args.region,
                    cluster=args.cluster,
                    config_uri=f"s3://{values['bucket']}/{args.role}",
                    volume_id=values["volume"],
                    secret_arn=values["secret"],
                    mirror=args.mirror,
                )
            )

        image = aws.ssm.get_parameter_output(name=UBUNTU, opts=pulumi.InvokeOutputOptions(parent=self))
        root_tags = {**tags, "Name": f"{name}-root"}
        # The deploy role may only create disks and network interfaces with the stack's tag, and the provider tags the
        # root disk in a later call (its issue 41653). EC2 applies the tags of a launch template in the call itself.
        template = aws.ec2.LaunchTemplate(
            f"{name}-template",
            metadata_options={"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 1},
            block_device_mappings=[
                {"device_name": ROOT_DEVICE, "ebs": {"encrypted": "true", "volume_type": "gp3"}},
            ],
            tag_specifications=[
                {"resource_type": "instance", "tags": tags},
                {"resource_type": "volume", "tags": root_tags},
                {"resource_type": "network-interface", "tags": tags},
            ],
            tags=tags,
            opts=here,
        )
        instance = aws.ec2.Instance(
            f"{name}-instance",
            # Without a version this is the template's first version: its changes don't replace a running host, whose
            # tags are changed in place.
            launch_template={"id": template.id},
            ami=image.insecure_value,
            instance_type=args.instance_type,
            subnet_id=args.subnet_id,
            private_ip=args.address,
            associate_public_ip_address=args.public,
            vpc_security_group_ids=[group.id],
            iam_instance_profile=profile.name,
            metadata_options={"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 1},
            root_block_device={
                "encrypted": True,
                "volume_type": "gp3",
                "volume_size": args.disk_gb,
                "tags": root_tags,
            },
            ebs_optimized=True,
            user_data=pulumi.Output.all(
                bucket=args.bucket.bucket, volume=volume.id if volume else None, secret=args.secret_arn
            ).apply(rendered),
            # cloud-init reads user data only at the first start: without this, a change would only restart the host.
            user_data_replace_on_change=True,
            tags=tags,
            opts=pulumi.ResourceOptions(
                parent=self,
                # Its first start needs a route to the internet for downloads, and the policy to read its configuration.
                depends_on=[*args.ways_out, policy],
                # A newer image doesn't replace a host; `pulumi up --replace` does.
                ignore_changes=["ami"],
                # The old and the new instance can't have the same fixed address at the same time.
                delete_before_replace=True,
            ),
        )
        if volume is not None:
            aws.ec2.VolumeAttachment(
                f"{name}-data",
                device_name="/dev/sdf",
                volume_id=volume.id,
                instance_id=instance.id,
                stop_instance_before_detaching=True,  # so that Prometheus closes its files
                opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
            )

        self.instance_id = instance.id
        self.public_ip = instance.public_ip
        self.security_group_id = group.id
        self.register_outputs({"instance_id": self.instance_id})


def host_role(name: str, tags: Mapping[str, str], opts: pulumi.ResourceOptions | None = None) -> aws.iam.Role:
    """The role of a host; separate from the component, because the cluster needs it before the host exists."""
    return aws.iam.Role(
        f"{name}-role",
        assume_role_policy=trusted("ec2.amazonaws.com"),
        tags={**tags, COMPONENT_TAG: name},
        opts=opts,
    )
