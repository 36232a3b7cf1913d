"""Types of values in params.yaml that several of its sections have."""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def _duration(value: Any) -> Any:
    """`90m`, `2h`, `7d` -> timedelta."""
    if isinstance(value, str) and value[:-1].replace(".", "", 1).isdigit() and value[-1:] in "smhd":
        return timedelta(**{{"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[value[-1]]: float(value[:-1])})
    if isinstance(value, timedelta):
        return value
    raise ValueError("a duration is a number and a unit, such as 90m, 2h or 7d")


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Share = Annotated[float, Field(ge=0, le=1)]
