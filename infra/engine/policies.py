"""The policy pack beside a run of the engine."""

import os
from pathlib import Path
from typing import TypedDict

from pulumi import automation as auto

PACK = Path(__file__).parents[1] / "policy"


class PolicyOptions(TypedDict):
    """Options of `up` and `preview`."""

    policy_packs: list[str]


def with_policies(stack: auto.Stack) -> PolicyOptions:
    """What makes a run of this stack ask the policy pack; an engine without a Python host finds its starter on PATH."""
    given = stack.workspace.env_vars
    # Last: the starter of an official CLI goes first.
    path = os.pathsep.join([given.get("PATH", os.environ["PATH"]), str(PACK)])
    stack.workspace.env_vars = {**given, "PATH": path}
    return {"policy_packs": [str(PACK)]}
