"""Types of the settings' values, such as ports, networks, ARNs and durations; other values are refused."""

import ipaddress
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel


def _network(value: str) -> str:
    try:
        return str(ipaddress.IPv4Network(value))
    except ValueError as error:
        raise ValueError(f"not an IPv4 network such as 203.0.113.0/24 ({error})") from None


def _retention(days: int) -> int:
    allowed = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827)
    if days not in allowed:
        raise ValueError(f"CloudWatch allows only these numbers of days: {', '.join(map(str, allowed))}")
    return days


def _day(value: object) -> object:
    """Accept a date without quotation marks, too: YAML reads it as a date, and the engine passes it with a time."""
    return value.removesuffix(" 00:00:00 +0000 UTC") if isinstance(value, str) else value


ReplaySpeed = Annotated[float, Field(gt=0, le=10_000)]
Port = Annotated[int, Field(ge=1024, le=65535)]
Duration = Annotated[str, Field(pattern=r"^[1-9][0-9]*[smhd]$")]
Cidr = Annotated[str, AfterValidator(_network)]
Account = Annotated[str, Field(pattern=r"^[0-9]{12}$")]
Region = Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")]
Zone = Annotated[str, Field(pattern=r"^[a-z]$")]
InstanceType = Annotated[str, Field(pattern=r"^[a-z0-9-]+\.[a-z0-9]+$")]
Policy = Annotated[str, Field(pattern=r"^arn:aws[\w-]*:iam::[0-9]{12}:policy/[\w+=,.@/-]+$")]
Principal = Annotated[str, Field(pattern=r"^arn:aws[\w-]*:iam::[0-9]{12}:(role|user)/[\w+=,.@/-]+$")]
Certificate = Annotated[str, Field(pattern=r"^arn:aws[\w-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/[\w-]+$")]
KubernetesName = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,48}[a-z0-9])?$")]
Mirror = Annotated[str, Field(pattern=r"^https?://\S+[^/]$")]
LogLevel = Literal["debug", "info", "warning", "error"]
RetentionDays = Annotated[int, AfterValidator(_retention)]
Day = Annotated[date, BeforeValidator(_day)]

STRICT = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class PolicyException(BaseModel):
    """A temporary exception from a rule of the policy pack."""

    model_config = STRICT

    rule: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    """The rule's name in docs/policy.md."""
    reason: Annotated[str, Field(min_length=10)]
    """Why the rule may be broken; each run prints it. At least ten characters."""
    until: Day
    """The last day of the exception, such as "2026-12-31"."""
    resources: Annotated[str, Field(min_length=1)] = "*"
    """Names of the resources that may break the rule; * stands for any characters."""
