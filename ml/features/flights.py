"""The rows of the default data's views (flight_views.py).

Each view's rows are a pure function of events: flights as scheduled, their departures and landings as they become
known, and weather observations. A cancelled flight looks like a waiting flight, because the source has no time for
cancellations.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.features.changes import newest, sums, versions
from ml.features.flight_views import AROUND_CARRIER, AROUND_ORIGIN, LANDINGS_WINDOW, WEATHER, WINDOWS, views
from ml.features.offline import TIMESTAMP
from ml.features.views import DAY, EARLIEST, HOUR, LATEST, MINUTE

PRESSURE_BEFORE = 3 * HOUR


class Events(NamedTuple):
    """What happened, as far as it is known; times in microseconds since 1970 in UTC.

    Reports of the same thing may repeat or come in any order; of a corrected one, each counts from its `known` on.
    """

    flights: pd.DataFrame
    """As scheduled: flight (an id), origin, dest, carrier, tailnum, scheduled, clock (the local time of `scheduled`),
    distance, minutes, shift (views.TRANSFORMS, timetable)."""
    departures: pd.DataFrame
    """flight, departed, known."""
    landings: pd.DataFrame
    """flight, landed, delay (minutes), known."""
    weather: pd.DataFrame
    """origin, observed, known, and WEATHER."""
    planes: pd.DataFrame
    """tailnum, year, seats; known always."""
    holidays: pd.DataFrame
    """date (local midnight in UTC), distance (days to the nearest holiday); known always."""

    def known(self, now: int) -> "Events":
        """What is known at a time; the timetable always is."""
        reports = {name: getattr(self, name) for name in REPORTS}
        return self._replace(**{name: report[report["known"] <= now] for name, report in reports.items()})

    def between(self, first: int, last: int) -> "Events":
        """What is about flights that are scheduled, and weather that was observed, from the first to the last time."""
        flights = self.flights[self.flights["scheduled"].between(first, last)]
        return self._replace(
            flights=flights,
            departures=self.departures[self.departures["flight"].isin(flights["flight"])],
            landings=self.landings[self.landings["flight"].isin(flights["flight"])],
            weather=self.weather[self.weather["observed"].between(first, last)],
        )

    def reports(self) -> pd.DataFrame:
        """What was reported, as `hash` of the report and when it became `known`."""
        found = [getattr(self, name) for name in REPORTS]
        hashes = [pd.util.hash_pandas_object(report, index=False) + np.uint64(n) for n, report in enumerate(found)]
        return pd.DataFrame({"hash": pd.concat(hashes), "known": pd.concat([report["known"] for report in found])})


REPORTS = ("departures", "landings", "weather")
"""The parts of Events that become known one by one."""


REACH = DAY + 12 * HOUR
"""Rows depend on no event that is older than this."""


def rows(events: Events, horizon: int) -> dict[str, pd.DataFrame]:
    """The rows of each view by its name: keys, event_timestamp, values."""
    return {view.name: ROWS[view.name](events, horizon) for view in views(horizon).views}


def _weather(events: Events, _: int) -> pd.DataFrame:
    """The newest observation, and the pressure's change since three hours before it."""
    observed = events.weather.assign(place=events.weather["origin"] + "@" + events.weather["observed"].astype(str))
    reports = versions(observed, "place")
    before = reports[["origin", "observed", "known", "until", "pressure"]].assign(
        observed=reports["observed"] + PRESSURE_BEFORE
    )
    both = reports.merge(before, on=["origin", "observed"], suffixes=("", "_before"))
    # From when on an observation and the earlier one are both known; until then the observation has no change.
    both["known"] = both[["known", "known_before"]].max(axis=1)
    joined = both[both["known"] < both[["until", "until_before"]].min(axis=1)]
    joined = joined.assign(change=joined["pressure"] - joined["pressure_before"])
    alone = reports.assign(change=float("nan"))
    found = pd.concat([alone, joined], ignore_index=True)
    found = found.rename(columns={"known": TIMESTAMP, "change": "pressure_change"})
    # An older observation that is reported late doesn't replace a newer one.
    found = found.sort_values([TIMESTAMP, "observed"], kind="stable")
    late = found.groupby("origin")["observed"].cummax() > found["observed"]
    return newest(found.loc[~late, ["origin", TIMESTAMP, *WEATHER, "pressure_change"]], ["origin"])


def _delays_so_far(key: str) -> Callable[[Events, int], pd.DataFrame]:
    def make(events: Events, _: int) -> pd.DataFrame:
        window = WINDOWS[key]
        flights = events.flights
        keys = [key] if key else []
        # Each flight waits until its departure is known.
        waiting = flights[["flight"]].assign(known=EARLIEST, departed=np.nan)
        reports = versions(pd.concat([waiting, events.departures[["flight", "known", "departed"]]]), "flight")
        states = reports.merge(flights[["flight", "scheduled", *keys]], on="flight")
        scheduled = states["scheduled"].to_numpy(dtype=np.int64)
        left = states["departed"].notna().to_numpy()
        minutes = (states["departed"].to_numpy(dtype=np.float64) - scheduled) / MINUTE
        return sums(
            states[keys],
            np.maximum(scheduled, states["known"].to_numpy(dtype=np.int64)),
            np.minimum(scheduled + window, states["until"].to_numpy(dtype=np.int64)),
            {
                "count": np.ones(len(states)),
                "waiting": (~left).astype(np.float64),
                "ended": np.where(left, minutes, 0.0),
                "begun": np.where(left, 0.0, scheduled / MINUTE),
            },
        )

    return make


def _landings(events: Events, _: int) -> pd.DataFrame:
    states = versions(events.landings, "flight").merge(events.flights[["flight", "dest"]], on="flight")
    landed = states["landed"].to_numpy(dtype=np.int64)
    return sums(
        states[["dest"]],
        np.maximum(landed, states["known"].to_numpy(dtype=np.int64)),
        np.minimum(landed + LANDINGS_WINDOW, states["until"].to_numpy(dtype=np.int64)),
        {"count": np.ones(len(states)), "total": states["delay"].to_numpy(dtype=np.float64)},
    )


def _aircraft(events: Events, horizon: int) -> pd.DataFrame:
    """What is known of the aircraft's newest flight that is scheduled before the one that can be predicted then."""
    flights = events.flights[events.flights["tailnum"].notna()]
    flights = flights.sort_values(["tailnum", "scheduled", "flight"]).drop_duplicates(
        ["tailnum", "scheduled"], keep="last"
    )
    start = flights["scheduled"] - horizon + 1  # a later flight, so the next microsecond
    stop = start.groupby(flights["tailnum"]).shift(-1, fill_value=LATEST)
    flights = flights.assign(start=start, stop=np.minimum(stop, start + DAY))
    reports = pd.concat(
        [
            flights[["flight"]].assign(known=EARLIEST),
            events.departures[["flight", "known", "departed"]],
            events.landings[["flight", "known", "landed"]],
        ],
        ignore_index=True,
    ).sort_values(["flight", "known", "departed", "landed"], kind="stable")
    reports[["departed", "landed"]] = reports.groupby("flight")[["departed", "landed"]].ffill()
    reports = reports.drop_duplicates(["flight", "known"], keep="last")
    states = flights.merge(reports[["flight", "known", "departed", "landed"]], on="flight")
    states[TIMESTAMP] = np.maximum(states["known"], states["start"])
    states = states[states[TIMESTAMP] < states["stop"]].sort_values([TIMESTAMP, "known"], kind="stable")
    for name in ("scheduled", "departed", "landed"):
        states[name] = states[name] / MINUTE
    columns = ["tailnum", TIMESTAMP, "scheduled", "departed", "landed", "minutes"]
    return newest(states[columns], ["tailnum"])


def _register(events: Events, _: int) -> pd.DataFrame:
    return events.planes[["tailnum", "year", "seats"]].assign(**{TIMESTAMP: 0})


def _timetable(events: Events, _: int) -> pd.DataFrame:
    keys = ["carrier", "origin", "dest"]
    flights = events.flights.assign(**{TIMESTAMP: events.flights["scheduled"]}).sort_values("flight")
    return newest(flights[[*keys, TIMESTAMP, "distance", "minutes", "shift"]], keys)


def _congestion(keys: Sequence[str], around: int, feature: str) -> Callable[[Events, int], pd.DataFrame]:
    """Number of departures of the entity that are scheduled within `around` of a time, this one included."""

    def make(events: Events, _: int) -> pd.DataFrame:
        scheduled = events.flights["scheduled"].to_numpy(dtype=np.int64)
        one: NDArray[np.float64] = np.ones(len(scheduled))
        return sums(events.flights[[*keys]], scheduled - around, scheduled + around + 1, {feature: one})

    return make


def _calendar(events: Events, _: int) -> pd.DataFrame:
    return events.holidays.rename(columns={"date": TIMESTAMP, "distance": "holiday_distance"})


ROWS: Mapping[str, Callable[[Events, int], pd.DataFrame]] = {
    "weather": _weather,
    "origin_delays": _delays_so_far("origin"),
    "carrier_delays": _delays_so_far("carrier"),
    "dest_delays": _delays_so_far("dest"),
    "city_delays": _delays_so_far(""),
    "landings": _landings,
    "aircraft": _aircraft,
    "register": _register,
    "timetable": _timetable,
    "origin_congestion": _congestion(("origin",), AROUND_ORIGIN, "origin_departures"),
    "carrier_congestion": _congestion(("origin", "carrier"), AROUND_CARRIER, "carrier_departures"),
    "calendar": _calendar,
}
"""How the rows of each view follow from events and the horizon."""
