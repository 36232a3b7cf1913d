"""Delays that were known at prediction time: mean delays around the airports, and delays of the flight's aircraft."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.sources.windows import by_group, windows

TURNAROUND = pd.Timedelta("45min")
"""Assumed minimum time on the ground between two flights of the same aircraft."""


def delays(flights: pd.DataFrame, known_at: pd.Series) -> pd.DataFrame:
    """Mean delays that were known at prediction time, over windows of earlier scheduled departures and landings."""
    hours = np.timedelta64(1, "h")
    origin = _delay_so_far(flights, flights["origin"], known_at, 2 * hours)
    carrier = _delay_so_far(flights, flights["carrier"], known_at, 3 * hours)
    dest = _delay_so_far(flights, flights["dest"], known_at, 6 * hours)
    city = _delay_so_far(flights, pd.Series("NYC", index=flights.index), known_at, hours)
    landed = flights[flights["landed"].notna()].sort_values("landed", kind="stable")
    start, stop = windows(landed["dest"], landed["landed"], flights["dest"], known_at, 6 * hours)
    sums = np.concatenate([[0.0], by_group(landed["dest"], landed["landed"], landed["arr_delay"]).cumsum()])
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
    """Mean delay so far and share still waiting, of flights of the row's group scheduled in the window before
    `known_at`.

    A flight that has left counts with its delay, a flight that hasn't left with its waiting time. In minutes; NaN if
    there are no flights.
    """
    asked = pd.DataFrame({"group": group, "known_at": known_at}).drop_duplicates()
    start, stop = windows(group, flights["scheduled"], asked["group"], asked["known_at"], window)
    order = np.lexsort((flights["scheduled"].to_numpy(), group.to_numpy(dtype=str)))
    scheduled = flights["scheduled"].to_numpy()[order]
    departed = flights["departed"].to_numpy()[order]
    moments = asked["known_at"].to_numpy()
    delay, waiting = np.full(len(asked), np.nan), np.full(len(asked), np.nan)
    # Pairs of (question, flight in its window), for 20,000 questions at a time, to limit memory.
    for first in range(0, len(asked), 20_000):
        rows = slice(first, first + 20_000)
        lengths = stop[rows] - start[rows]
        question = np.repeat(np.arange(len(lengths)), lengths)
        flight = (
            np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths) + np.repeat(start[rows], lengths)
        )
        moment = moments[rows][question]
        left = departed[flight] <= moment  # NaT compares as false, so a cancelled flight counts as waiting
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


def previous_flight(flights: pd.DataFrame, known_at: pd.Series) -> pd.DataFrame:
    """The delay so far of the aircraft's previous flight from New York (within a day), and the slack after its return.

    The earliest return assumes that the return flight takes as long as the outbound flight, with a turnaround at both
    ends.
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
