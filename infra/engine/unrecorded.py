"""Adopts resources that a killed run created, but didn't record in the state."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from pulumi import automation as auto

NAMED: Mapping[str, tuple[str, ...]] = {
    "aws:cloudwatch/logGroup:LogGroup": ("name",),
    "aws:cloudwatch/metricAlarm:MetricAlarm": ("name",),
    "aws:dynamodb/table:Table": ("name",),
    "aws:ecr/repository:Repository": ("name",),
    "aws:eks/accessEntry:AccessEntry": ("clusterName", "principalArn"),
    "aws:eks/addon:Addon": ("clusterName", "addonName"),
    "aws:eks/cluster:Cluster": ("name",),
    "aws:eks/nodeGroup:NodeGroup": ("clusterName", "nodeGroupName"),
    "aws:iam/instanceProfile:InstanceProfile": ("name",),
    "aws:iam/role:Role": ("name",),
    "aws:kms/alias:Alias": ("name",),
    "aws:s3/bucket:Bucket": ("bucket",),
}
"""Types that are imported by inputs, joined by colons (see the AWS provider's import documentation)."""
Found = tuple[str, Mapping[str, Any]]
"""A resource's id, and outputs. Without outputs the provider imports it, which needs an id that can be imported; with
outputs it reads what these name."""
Find = Callable[[str, Mapping[str, Any], Collection[str]], Found | None]
"""Looks in AWS for a resource: type, inputs, ids in the state -> what it found, or None."""


def take_up(stack: auto.Stack, before: auto.Deployment, say: Callable[[str], None], find: Find | None = None) -> bool:
    """Adopt resources that a killed run was creating, if they exist; otherwise `up` would fail because they exist.

    This needs their ids. Where the id consists of names, it is in the inputs, also if the engine generated the name.
    `find` looks for the others. What isn't found was reported by `unfinished`; import and refresh drop its pending
    creation, and `up` creates it. `before`: the state of the stack. Returns whether it was changed.
    """
    deployment = before.deployment or {}
    resources = deployment.get("resources") or []
    noted = {resource["urn"] for resource in resources}
    ids = {str(resource["id"]) for resource in resources if resource.get("id")}
    found = []
    for operation in deployment.get("pending_operations") or []:
        made = operation["resource"]
        if operation["type"] != "creating" or made["urn"] in noted:
            continue
        inputs = made.get("inputs") or {}
        named = _id(made["type"], inputs)
        there = (named, {}) if named else find(made["type"], inputs, ids) if find is not None else None
        if there is not None:
            found.append({**made, "id": there[0], "outputs": dict(there[1])})
    if not found:
        return False
    say(f"  checking whether it created {', '.join(sorted(made['urn'].rsplit('::', 1)[-1] for made in found))}")
    after = {**deployment, "resources": [*resources, *found], "pending_operations": []}
    try:
        stack.import_stack(auto.Deployment(version=before.version, deployment=after))
        # The refresh removes resources that don't exist from the state again.
        stack.refresh(target=[made["urn"] for made in found], suppress_outputs=True, color="never")
    except (auto.CommandError, KeyboardInterrupt):
        stack.import_stack(before)
        raise
    return True


def _id(kind: str, inputs: Mapping[str, Any]) -> str | None:
    """The id that such a resource has once it exists, if the id consists of names; None otherwise."""
    if kind.startswith("kubernetes:"):
        metadata = inputs.get("metadata") or {}
        parts = [metadata.get("namespace"), metadata.get("name")]
        return "/".join(str(part) for part in parts if part) or None
    parts = [inputs.get(key) for key in NAMED.get(kind, ())]
    return ":".join(map(str, parts)) if parts and all(isinstance(part, str) for part in parts) else None
