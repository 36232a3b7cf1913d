"""What is said of settings that can't be used: one line each, with the key, the value and what is allowed."""

from collections.abc import Set

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from infra.names import PROJECT


def problems(kind: type[BaseModel], error: ValidationError, secrets: Set[str]) -> list[str]:
    """One line for each wrong key of the settings `kind`; the values of `secrets` are not shown."""
    known = ", ".join(sorted(to_camel(name) for name in kind.model_fields))
    lines = []
    for detail in error.errors():
        key = ".".join(map(str, detail["loc"]))
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden" and key.startswith("policyExceptions."):
            lines.append(f"{PROJECT}:{key} is no part of an exception; there are rule, reason, until, resources")
        elif detail["type"] == "extra_forbidden":
            lines.append(f"{PROJECT}:{key} is no setting; there are {known}")
        elif detail["type"] == "missing":
            lines.append(f"{PROJECT}:{key} is missing: {_meaning(kind, key)}")
        elif not key:
            lines.append(f"{PROJECT}: {message}")
        else:
            shown = "a secret" if key in secrets else repr(detail["input"])
            lines.append(f"{PROJECT}:{key}: {message} (got {shown})")
    return lines


def _meaning(kind: type[BaseModel], key: str) -> str:
    """What a setting without a default asks for."""
    return {
        "rule": "what may be broken, by its name in docs/policy.md",
        "reason": "why the rule may be broken",
        "until": 'the last day on which it may be, such as "2026-12-31"',
        "disposable": "say whether `destroy` may delete data too (true or false)",
        "apiAccessCidrs": "who reaches the Kubernetes API from outside: [203.0.113.0/24], say, or [] for the VPC only",
        "adminPrincipals": "IAM roles or users who administer the cluster, you among them",
        "accountId": "the account's twelve digits (`aws sts get-caller-identity`)",
        "repository": "how GitHub's tokens name the repository: repo:OWNER/REPO, or repo:OWNER@ID/REPO@ID",
        "serviceCidrs": "who may call the service, such as [203.0.113.0/24]; [0.0.0.0/0] for everyone",
    }.get(key.rsplit(".", 1)[-1], f"see {kind.__name__} in infra/settings.py")
