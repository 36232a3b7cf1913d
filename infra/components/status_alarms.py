"""Alarms on the status checks of the monitoring hosts: without them, nobody would notice that a host is dead."""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.names import COMPONENT_TAG


@dataclass(frozen=True, slots=True)
class StatusAlarmsArgs:
    """The inputs of the component StatusAlarms."""

    stack: str
    hosts: Mapping[str, pulumi.Input[str]]
    """Role of the host -> id of its instance."""
    topic_arn: pulumi.Input[str]
    tags: Mapping[str, str]


class StatusAlarms(pulumi.ComponentResource):
    """An alarm for each host."""

    def __init__(self, name: str, args: StatusAlarmsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("atlas:aws:StatusAlarms", name, None, opts)
        for role, instance in args.hosts.items():
            aws.cloudwatch.MetricAlarm(
                f"{name}-{role}-status",
                alarm_description=(
                    f"The {role} host of the stack {args.stack} fails EC2's status checks, or doesn't run: its alerts "
                    'and dashboards are missing. First steps: "CloudWatch\'s mail about a host" in docs/runbook.md.'
                ),
                namespace="AWS/EC2",
                metric_name="StatusCheckFailed",
                dimensions={"InstanceId": instance},
                statistic="Maximum",
                comparison_operator="GreaterThanOrEqualToThreshold",
                threshold=1,
                period=60,
                evaluation_periods=5,
                # A host that is stopped sends no data. A new alarm has no data either, but notifies only about changes
                # of its state, so the start of a host isn't reported.
                treat_missing_data="missing",
                alarm_actions=[args.topic_arn],
                insufficient_data_actions=[args.topic_arn],
                ok_actions=[args.topic_arn],
                tags={**args.tags, COMPONENT_TAG: role},
                # An alarm of a replaced host would report the old instance: it is deleted before that instance.
                opts=pulumi.ResourceOptions(parent=self, replace_on_changes=["dimensions"], delete_before_replace=True),
            )
        self.register_outputs({})
