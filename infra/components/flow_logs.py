"""Flow logs of the VPC: who connected to whom, and what was refused, kept for a limited time."""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.trust import policy_document, trusted
from infra.names import COMPONENT_TAG


@dataclass(frozen=True, slots=True)
class FlowLogsArgs:
    """The inputs of the component FlowLogs."""

    vpc_id: pulumi.Input[str]
    group: str
    """The name of the log group."""
    retention_days: int
    tags: Mapping[str, str]


class FlowLogs(pulumi.ComponentResource):
    """Flow log, log group, and the role with which EC2 writes into it."""

    def __init__(self, name: str, args: FlowLogsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("atlas:aws:FlowLogs", name, None, opts)
        here = pulumi.ResourceOptions(parent=self)
        tags = {**args.tags, COMPONENT_TAG: "network", "Name": name}

        group = aws.cloudwatch.LogGroup(
            name, name=args.group, retention_in_days=args.retention_days, tags=tags, opts=here
        )
        role = aws.iam.Role(
            f"{name}-role", assume_role_policy=trusted("vpc-flow-logs.amazonaws.com"), tags=tags, opts=here
        )
        streams = pulumi.Output.concat(group.arn, ":log-stream:*")
        policy = aws.iam.RolePolicy(
            f"{name}-policy",
            role=role.name,
            policy=pulumi.Output.json_dumps(
                policy_document(
                    {
                        "Sid": "WriteFlowLogs",
                        "Effect": "Allow",
                        # Without CreateLogGroup: records that arrive during a destroy can't create the group again.
                        "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                        "Resource": streams,
                    },
                    {
                        "Sid": "LookForStreams",
                        "Effect": "Allow",
                        "Action": "logs:DescribeLogStreams",
                        # IAM's reference of actions names the group, but the service's denials name `:log-stream:`.
                        "Resource": [group.arn, streams],
                    },
                )
            ),
            opts=here,
        )
        aws.ec2.FlowLog(
            name,
            vpc_id=args.vpc_id,
            traffic_type="ALL",
            log_destination=group.arn,
            iam_role_arn=role.arn,
            max_aggregation_interval=600,  # seconds; with 60, the other choice, AWS writes and charges more records
            tags=tags,
            # EC2 tests neither the role nor its policy: without the policy the records would be lost.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )
        self.register_outputs({})
