"""Real flights of ten days with a storm among them, their events, and the table that training gets of them."""

from dataclasses import replace

import pandas as pd
import pytest

from ml.features.flights import Events
from ml.features.views import HOUR, MINUTE, View, Views
from ml.sources import flights
from ml.sources.flights import Tables

HORIZON = 2 * HOUR
NOON = int(pd.Timestamp("2013-02-08T17:00Z").timestamp()) * 1_000_000
"""The day of the storm, in microseconds since 1970."""

SHOP_IN_UTC = Views(
    time="bought",
    horizon=HOUR,
    max_lag=10 * MINUTE,
    views=(
        View(name="shop", keys=("shop",), ttl=2 * HOUR, values=("queue", "mood"), features=("queue", "mood")),
        View(name="person", keys=("person",), ttl=None, values=("age",), features=("age",)),
    ),
)
"""Views without a transform: of shops, whose rows expire, and of people, whose rows don't."""


@pytest.fixture(scope="session")
def tables() -> Tables:
    everything = flights.load()
    found = everything.flights
    days = found[(found["month"] == 2) & found["day"].between(4, 13)]
    weather = everything.weather
    return replace(everything, flights=days, weather=weather[(weather["month"] == 2) & (weather["day"] < 15)])


@pytest.fixture(scope="session")
def timed(tables: Tables) -> pd.DataFrame:
    return flights._with_times(tables.flights, tables.airports)


@pytest.fixture(scope="session")
def events(tables: Tables, timed: pd.DataFrame) -> Events:
    return flights.events(timed, tables)


@pytest.fixture(scope="session")
def table(tables: Tables) -> pd.DataFrame:
    return flights.build(tables, pd.Timedelta("2h"))
