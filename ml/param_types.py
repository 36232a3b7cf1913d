"""Types of values in params.yaml that several of its sections have."""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ml.values import spell


def _duration(value: Any) -> Any:
    """`90m`, `2h`, `7d` -> timedelta."""
    if isinstance(value, str) and value[:-1].replace(".", "", 1).isdigit() and value[-1:] in "smhd":
        return timedelta(**{{"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[value[-1]]: float(value[:-1])})
    if isinstance(value, timedelta):
        return value
    raise ValueError("a duration is a number and a unit, such as 90m, 2h or 7d")


def _spelling(value: Any) -> Any:
    """YAML reads -999 as a number and yes as a truth value; a label or a cell is the text that training has for it."""
    return spell(value) if isinstance(value, int | float) else value


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Share = Annotated[float, Field(ge=0, le=1)]
Spelling = Annotated[str, BeforeValidator(_spelling)]
