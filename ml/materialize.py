"""`python -m ml.materialize`: keeps the online store at what is known now, or replays what was known of the flights.

It can be killed at any moment: what it wrote last is whole, and the next run goes on from there.
"""

import argparse
import logging
import signal
import sys
import time
from datetime import UTC, datetime
from functools import partial
from threading import Event

import numpy as np
import pandas as pd

from ml.data_params import DataParams
from ml.features import flight_views, flights
from ml.features.declared import horizon_of, views_of
from ml.features.flights import Events
from ml.features.materializing import KEEP, Metrics, Writer, batch, when_free
from ml.features.store import Clock, OnlineStore, Progress, StoreError
from ml.features.stores import ADDRESSES, open_store
from ml.features.views import DAY, HOUR, MINUTE, SECOND, View
from ml.file_materializer import FileMaterializer, wall_clock, with_files_at
from ml.logs import stage_logger
from ml.params import ParamsError, load_data
from ml.sources import flights as source
from ml.sources.reading import SourceError

AHEAD = 7 * DAY
"""How far the timetable is materialised beyond the present."""
LONGEST_STEP = 7 * DAY
"""More is materialised in several steps, so that memory stays bounded."""
BEGIN, END = "2013-11-04T08:00", "2014-01-01"
"""Where a replay of the flights begins and ends, if nothing else is said."""


class Materializer:
    """Writes the rows of the flights' views into an online store."""

    def __init__(self, store: OnlineStore, horizon: int, keep: int = KEEP) -> None:
        """`keep`: how long rows are kept after they expired, in microseconds.

        Raises StoreError when the store can't be read.
        """
        self.views = flight_views.views(horizon)
        self._writer, self._horizon = Writer(store, keep), horizon
        self._seen: pd.Series = pd.Series(dtype=np.uint64)
        self._first = True

    @property
    def progress(self) -> Progress | None:
        """How far the store is."""
        return self._writer.progress

    def reload(self) -> None:
        """Go on from what another materialiser has written; raises StoreError."""
        self._writer.reload()
        self._first, self._seen = True, pd.Series(dtype=np.uint64)

    def advance(self, events: Events, now: int, clock: Clock | None = None, begin: int | None = None) -> Progress:
        """Write what changed until `now`.

        `events`: all that were reported so far and aren't older than REACH. What was reported since the last call,
        but became known before it, is seen and changes the rows since then. `begin`: where an empty store begins;
        by default KEEP before now.
        """
        known = events.known(now)
        reports = known.reports()
        since = self._since(reports, now, begin)
        until = now + AHEAD + HOUR  # congestion counts flights that are scheduled within the next hour
        # An empty store also gets the rows from before its beginning that are still valid then.
        still = {view.name: (view.ttl or 0) if self.progress is None else 0 for view in self.views.views}
        found = flights.rows(known.between(since - max(still.values()) - flights.REACH, until), self._horizon)
        batches = []
        for view in self.views.views:
            if view.ttl is None and not self._first:
                continue
            first, last = self._range(view, since - still[view.name], now)
            batches.append(batch(view, found[view.name], first, last))
        fresh = self._writer.write(batches, now, clock)
        # Only now: what a failed write should have written is still to be written by the next.
        self._first, self._seen = False, reports["hash"]
        return fresh

    def _since(self, reports: pd.DataFrame, now: int, begin: int | None) -> int:
        """From when on rows may have changed."""
        fresh = reports[~reports["hash"].isin(self._seen)]
        if self.progress is None:
            return now - self._writer.keep if begin is None else begin
        if self._first:  # what an earlier process saw isn't known
            return self.progress.watermark - flights.REACH
        return min(self.progress.watermark, int(fresh["known"].min()) - 1) if len(fresh) else self.progress.watermark

    def _range(self, view: View, since: int, now: int) -> tuple[int, int]:
        """The event timestamps that a step writes."""
        if view.ttl is None:
            return -1, now
        if view.at == "known":
            return since, now
        return since if self._first else since + AHEAD, now + AHEAD


def _moment(text: str) -> int:
    """A time of the command line, in the views' zone if it has no offset."""
    time = pd.Timestamp(text)
    return int((time if time.tzinfo else time.tz_localize(flight_views.TIMEZONE)).timestamp() * SECOND)


def main(arguments: list[str] | None = None) -> int:
    """Materialise once, or follow a clock until a signal ends it; 1 after one line when that isn't possible."""
    parser = argparse.ArgumentParser(prog="python -m ml.materialize", description=__doc__)
    parser.add_argument("--store", default=".atlas/features.db", help=f"the online store: {ADDRESSES}")
    parser.add_argument("--since", type=_moment, default=BEGIN, help="where an empty store begins, in New York's time")
    parser.add_argument("--until", type=_moment, help="materialise until then, instead of until the end of the data")
    parser.add_argument("--files", help="where relative paths of data.views are looked for, such as s3://BUCKET/FOLDER")
    parser.add_argument("--follow", action="store_true", help="go on from there as time passes")
    parser.add_argument("--speed", type=float, default=1.0, help="seconds that pass in a second")
    parser.add_argument("--port", type=int, help="with --follow: serve metrics and health there")
    parser.add_argument("--address", default="127.0.0.1", help="the address of --port; 0.0.0.0: every address")
    parser.add_argument("--keep", type=float, default=KEEP / DAY, help="days that rows are kept after they expired")
    given = parser.parse_args(arguments)
    log, stopped = stage_logger("materialize"), Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    metrics = Metrics(wall_clock)
    try:
        data = load_data()
        if given.follow and given.port is not None:
            metrics.serve(given.port, given.address)
        if data.source == "table":
            _materialize_files(data, given, metrics, log, stopped)
        else:
            _materialize_flights(data, given, metrics, log, stopped)
    except (ParamsError, StoreError, SourceError, FileNotFoundError) as error:
        print(f"materialize: {error}", file=sys.stderr)
        return 1
    return 0


def _materialize_flights(
    data: DataParams, given: argparse.Namespace, metrics: Metrics, log: logging.Logger, stopped: Event
) -> None:
    """As main, for the default data, which is replayed; raises StoreError or FileNotFoundError."""
    horizon = horizon_of(data)
    store = open_store(given.store, flight_views.views(horizon), write=True)
    materializer = Materializer(store, horizon, int(given.keep * DAY))
    events = source.read_events()
    begun, since = time.monotonic(), given.since
    until = given.until or (since if given.follow else _moment(END))

    def catch_up() -> Progress:
        return _catch_up(materializer, events, since, until, stopped, metrics)

    progress = when_free(catch_up, materializer.reload, stopped, log) if given.follow else catch_up()
    if progress is None:
        return
    log.info("materialised until %s in %.1f s", _shown(progress.watermark), time.monotonic() - begun)
    if given.follow and not stopped.is_set():
        _follow(materializer, events, _clock(progress, given.speed), metrics, log, stopped)


def _materialize_files(
    data: DataParams, given: argparse.Namespace, metrics: Metrics, log: logging.Logger, stopped: Event
) -> None:
    """As main, for a table with views of its own; raises ParamsError, SourceError or StoreError."""
    views = views_of(data)
    if views is None:
        raise ParamsError("params.yaml: data.views: the table has no views, so there is nothing to materialise")
    if given.files is not None:
        data = with_files_at(data, given.files)
    store = open_store(given.store, views, write=True)
    materializer = FileMaterializer(data, store, int(given.keep * DAY), log)

    def first() -> Progress:
        return materializer.advance(wall_clock())

    progress = when_free(first, materializer.reload, stopped, log) if given.follow else first()
    if progress is None:
        return
    log.info("materialised until %s", _shown(progress.watermark))
    metrics.written(progress)
    if given.follow:
        materializer.follow(metrics, stopped)


def _catch_up(
    materializer: Materializer, events: Events, since: int, until: int, stopped: Event, metrics: Metrics
) -> Progress:
    """Materialise until the wanted time, in steps that fit in memory; an empty store begins at `since`."""
    progress = materializer.progress or materializer.advance(events, min(until, since + LONGEST_STEP), begin=since)
    while progress.watermark < until and not stopped.is_set():
        metrics.begin()
        progress = materializer.advance(events, min(until, progress.watermark + LONGEST_STEP))
    return progress


def _clock(progress: Progress, speed: float) -> Clock:
    """The clock of a replay that goes on from there."""
    if progress.clock is not None and progress.clock.speed == speed:
        return progress.clock
    real = wall_clock()
    return Clock(progress.clock.at(real) if progress.clock else progress.watermark, real, speed)


def _follow(
    materializer: Materializer, events: Events, clock: Clock, metrics: Metrics, log: logging.Logger, stopped: Event
) -> None:
    """Materialise each minute of the replay as it passes; a step that fails is tried again."""
    end = int(events.flights["scheduled"].max()) + DAY
    metrics.now = lambda: clock.at(wall_clock())
    log.info("replaying from %s, %g times as fast as real time", _shown(clock.at(wall_clock())), clock.speed)

    def until(now: int) -> None:
        before = materializer.progress
        while not stopped.is_set() and (before is None or before.watermark < now or before.clock != clock):
            metrics.begin()
            step = now if before is None else min(max(now, before.watermark), before.watermark + LONGEST_STEP)
            before = materializer.advance(events, step, clock)
        if before is not None:
            metrics.written(before)

    while not stopped.is_set():
        metrics.begin()
        if clock.speed and clock.at(wall_clock()) > end:
            log.warning("the data ends at %s: the replay stands still", _shown(end))
            clock = Clock(end, wall_clock(), 0.0)
        now = min(clock.at(wall_clock()), end) // MINUTE * MINUTE
        try:
            when_free(partial(until, now), materializer.reload, stopped, log)
        except StoreError as error:
            metrics.failures.inc()
            log.error("%s", error)
        stopped.wait(max(1.0, MINUTE / SECOND / clock.speed - 1.0) if clock.speed else 60.0)


def _shown(moment: int) -> str:
    return datetime.fromtimestamp(moment / SECOND, UTC).isoformat(timespec="minutes")


if __name__ == "__main__":
    sys.exit(main())
