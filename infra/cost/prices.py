"""AWS's prices from prices.yml, each with its source."""

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

PRICES = Path(__file__).with_name("prices.yml")


class Price(BaseModel):
    """A price in infra/cost/prices.yml."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    usd: float
    per: Literal["hour", "month", "GB", "GB-month", "NLCU-hour", "million"]
    source: str
    confirmed: str


class Instances(BaseModel):
    """On-demand prices of instance types, by the hour."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: str
    confirmed: str
    usd: dict[str, float]


class Prices(BaseModel):
    """The content of infra/cost/prices.yml."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    date: str
    region: str
    hours: int
    prices: dict[str, Price]
    instances: Instances


@cache
def prices() -> Prices:
    """Read infra/cost/prices.yml."""
    document = yaml.load(PRICES.read_text(), yaml.BaseLoader)  # noqa: S506 - BaseLoader creates only text
    return Prices.model_validate(document)
