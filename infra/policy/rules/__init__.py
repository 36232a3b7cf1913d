"""The rules, a module per subject: pure functions from a resource's inputs to messages about violations."""

from infra.policy.rule import Rule, StackRule
from infra.policy.rules import cluster, iam, kubernetes, network, plain_text, storage, tags

RULES = tuple(
    value
    for module in (storage, network, cluster, iam, kubernetes, plain_text, tags)
    for value in vars(module).values()
    if isinstance(value, Rule | StackRule)
)
