"""Messages for invalid settings: a line for each, with the key, the value and what is allowed."""

from collections.abc import Set

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from infra.names import PROJECT


def problems(kind: type[BaseModel], error: ValidationError, secrets: Set[str]) -> list[str]:
    """A line for each invalid setting of the class `kind`; the values of `secrets` aren't shown."""
    known = ", ".join(sorted(to_camel(name) for name in kind.model_fields))
    lines = []
    for detail in error.errors():
        key = ".".join(map(str, detail["loc"]))
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden" and key.startswith("policyExceptions."):
            lines.append(f"{PROJECT}:{key} is not a key of an exception; its keys are rule, reason, until, resources")
        elif detail["type"] == "extra_forbidden":
            lines.append(f"{PROJECT}:{key} is not a setting; the settings are {known}")
        elif detail["type"] == "missing":
            lines.append(f"{PROJECT}:{key} is missing: {_meaning(kind, key)}")
        elif not key:
            lines.append(f"{PROJECT}: {message}")
        else:
            shown = "a secret" if key in secrets else repr(detail["input"])
            lines.append(f"{PROJECT}:{key}: {message} (got {shown})")
    return lines


def _meaning(kind: type[BaseModel], key: str) -> str:
    """The meaning of a setting that has no default."""
    return {
        "rule": "the rule's name in docs/policy.md",
        "reason": "why the rule may be broken",
        "until": 'the last day of the exception, such as "2026-12-31"',
        "disposable": "whether `destroy` may delete data too (true or false)",
        "apiAccessCidrs": "networks that may reach the Kubernetes API, such as [203.0.113.0/24]; [] for the VPC only",
        "adminPrincipals": "IAM roles and users who administer the cluster, including you",
        "accountId": "the account's twelve digits (`aws sts get-caller-identity`)",
        "repository": "how GitHub's tokens name the repository: repo:OWNER/REPO, or repo:OWNER@ID/REPO@ID",
        "serviceCidrs": "networks that may call the service, such as [203.0.113.0/24]; [0.0.0.0/0] for everyone",
    }.get(key.rsplit(".", 1)[-1], f"see {kind.__name__} in infra/settings.py")
