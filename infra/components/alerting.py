"""Receivers of alerts and budget warnings: an SNS topic with its key, and optionally a mail address."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.trust import policy_document
from infra.names import COMPONENT_TAG


@dataclass(frozen=True, slots=True)
class AlertingArgs:
    """The inputs of the component Alerting."""

    stack: str
    email: str | None
    budget_usd: int | None
    """US dollars a month; a budget needs a receiver, so it is created only if `email` is set."""
    tags: Mapping[str, str]


class Alerting(pulumi.ComponentResource):
    """Topic, key, subscription, budget.

    Outputs:
        topic_arn: for Alertmanager and CloudWatch's alarms.
        key_arn: its publishers must be allowed to use this key.
    """

    topic_arn: pulumi.Output[str]
    key_arn: pulumi.Output[str]

    def __init__(self, name: str, args: AlertingArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("atlas:aws:Alerting", name, None, opts)
        here = pulumi.ResourceOptions(parent=self)
        tags = {**args.tags, COMPONENT_TAG: "alerting"}

        account = aws.get_caller_identity_output(opts=pulumi.InvokeOutputOptions(parent=self)).account_id
        key = aws.kms.Key(
            f"{name}-alerts",
            description=f"Alerts of {args.stack}",
            enable_key_rotation=True,
            deletion_window_in_days=7,
            policy=account.apply(_key_policy),
            tags=tags,
            opts=here,
        )
        topic = aws.sns.Topic(f"{name}-topic", kms_master_key_id=key.arn, tags=tags, opts=here)
        if args.email is not None:
            aws.sns.TopicSubscription(f"{name}-mail", topic=topic.arn, protocol="email", endpoint=args.email, opts=here)
            if args.budget_usd is not None:
                aws.budgets.Budget(
                    f"{name}-budget",
                    budget_type="COST",
                    time_unit="MONTHLY",
                    limit_amount=str(args.budget_usd),
                    limit_unit="USD",
                    # The filter works only after the tag is activated for cost allocation in the billing console.
                    cost_filters=[{"name": "TagKeyValue", "values": [f"user:stack${args.stack}"]}],
                    # By mail, so that the key's policy needs no further service.
                    notifications=[
                        {
                            "comparison_operator": "GREATER_THAN",
                            "threshold": threshold,
                            "threshold_type": "PERCENTAGE",
                            "notification_type": kind,
                            "subscriber_email_addresses": [args.email],
                        }
                        for kind, threshold in (("ACTUAL", 80), ("FORECASTED", 100))
                    ],
                    tags=tags,
                    opts=here,
                )

        self.topic_arn = topic.arn
        self.key_arn = key.arn
        self.register_outputs({"topic_arn": self.topic_arn})


def _key_policy(account: str) -> str:
    """The policy of the topic's key: the account's administrators, and CloudWatch for alarms of this account.

    CloudWatch can't publish to a topic that is encrypted with AWS's own key for SNS, whose policy can't be changed.
    """
    return json.dumps(
        policy_document(
            {
                "Sid": "AllowByIam",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
                "Action": "kms:*",
                "Resource": "*",
            },
            {
                "Sid": "PublishAlarms",
                "Effect": "Allow",
                "Principal": {"Service": "cloudwatch.amazonaws.com"},
                "Action": ["kms:Decrypt", "kms:GenerateDataKey*"],
                "Resource": "*",
                "Condition": {"StringEquals": {"aws:SourceAccount": account}},
            },
        )
    )
