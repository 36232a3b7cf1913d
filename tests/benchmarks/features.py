"""The feature store on all flights of November and December: is what is looked up what training saw, what does it cost?

    PYTHONPATH=. .venv/bin/python tests/benchmarks/features.py      # after `make repro`; takes some minutes

1. Materialises the two months into an empty store, as fast as it can.
2. Sends every test row to a service as a request of schedule fields and the tail number only. Its model is the one that
   never saw these rows (models/bundle/evaluated), so the figures are comparable with reports/metrics.json.
3. Compares all looked up values with those of the test table, bit for bit, and the scores and figures of both.
4. Measures /predict, one row a request on one connection, by turns: whole rows without a store, whole rows with it, and
   requests that need every look-up.
"""

import http.client
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from sklearn.metrics import average_precision_score, roc_auc_score

from ml.bundle import EVALUATED, Bundle, bundle_of, read_parts
from ml.files import BUNDLE
from ml.params import load_params
from ml.reference import as_request
from ml.rows import rows_of
from ml.sources import flights
from tests.peers.compare import free_port, server

FIELDS = ["scheduled_departure", "carrier", "origin", "dest"]
MODEL = BUNDLE / EVALUATED
BATCH = 1000
SINGLE, TURNS = 2000, 5
"""Requests of one row in each turn, and turns of each kind."""


def main() -> None:
    bundle = bundle_of(*read_parts(MODEL))
    table = pd.read_parquet("data/processed/test.parquet")
    requests = with_tail_numbers(table)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        store = Path(folder) / "features.db"
        materialize(store)
        looking_up = servers.enter_context(serving(store))
        begun = time.perf_counter()
        answers = [
            answer
            for first in range(0, len(requests), BATCH)
            for answer in looking_up.ask(requests[first : first + BATCH])
        ]
        print(f"{len(answers):,} rows predicted in {time.perf_counter() - begun:.1f} s, {BATCH} a request")
        compare_values(bundle, table, answers)
        compare_figures(bundle, table, answers)
        measure(bundle, table, requests, looking_up, servers.enter_context(serving(None)))
        print(f"memory of the worker: {looking_up.megabytes():.0f} MB")


def materialize(store: Path) -> None:
    """An empty store gets what was known from the first of November on."""
    command = [sys.executable, "-m", "ml.materialize", "--since", "2013-10-31", "--until", "2014-01-01", "--keep", "70"]
    begun = time.perf_counter()
    subprocess.run([*command, "--store", str(store)], check=True)
    seconds, size = time.perf_counter() - begun, store.stat().st_size
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # of the first process that this one started
    print(f"two months materialised in {seconds:.1f} s, {most / 1e6:.0f} MB of memory, {size / 1e6:.0f} MB of file")


def with_tail_numbers(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The test rows as a caller sends them; the table itself has no tail numbers."""
    tables = flights.load()
    timed = flights._with_times(tables.flights, tables.airports)
    tails = pd.Series(timed["tailnum"].to_numpy(), index=flights._schedule(timed)["flight_id"])
    rows = table[FIELDS].assign(tailnum=table["flight_id"].map(tails))
    rows["scheduled_departure"] = rows["scheduled_departure"].dt.strftime("%Y-%m-%dT%H:%M")
    return [{str(k): v for k, v in row.items() if not pd.isna(v)} for row in rows.to_dict("records")]


class Server:
    """A service with one worker."""

    def __init__(self, port: int, pid: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._pid = pid

    def ask(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The predictions for rows in one request."""
        return list(json.loads(self.post(json.dumps({"rows": rows}).encode()))["predictions"])

    def post(self, body: bytes) -> bytes:
        """The body of the answer."""
        try:
            self._connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        except ConnectionError:  # a connection that wasn't used for a while was closed
            self._connection.close()
            self._connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        content = response.read()
        if response.status != 200:
            sys.exit(f"the service answered {response.status}: {content[:500]!r}")
        return content

    def megabytes(self) -> float:
        """The memory of its worker."""
        [worker] = psutil.Process(self._pid).children()
        return float(worker.memory_info().rss / 1e6)


@contextmanager
def serving(store: Path | None) -> Iterator[Server]:
    """The service with that store, or without one."""
    port = free_port()
    settings = {"MODEL_URI": str(MODEL), "PORT": str(port), "WORKERS": "1", "LOG_LEVEL": "warning"}
    settings |= {"MAX_BODY_BYTES": "10000000", "FEATURE_STORE_TIMEOUT": "10"}  # values that are late would differ
    settings |= {"FEATURE_STORE": str(store)} if store else {}
    ready = f"http://127.0.0.1:{port}/health/ready"
    with server([sys.executable, "-m", "service"], ready, **settings) as process:
        yield Server(port, process.pid)


def compare_values(bundle: Bundle, table: pd.DataFrame, answers: Sequence[dict[str, Any]]) -> None:
    """Every feature of every row: the same in the answer and in the table?"""
    assert bundle.parts.views is not None
    names = [name for view in bundle.parts.views.views for name in view.features]
    trouble = [answer["features"]["trouble"] for answer in answers]
    compared = differing = 0
    for name in names:
        given = table[name].to_numpy(dtype=np.float64)
        found = np.array([answer["features"]["looked_up"].get(name, {}).get("value", np.nan) for answer in answers])
        differs = ~((given == found) | (np.isnan(given) & np.isnan(found)))
        compared, differing = compared + len(given), differing + int(differs.sum())
        if differs.any():
            print(f"  {name}: {differs.sum()} differ")
    print(f"{compared:,} values of {len(names)} features compared, {differing} differ; trouble: {set(trouble)}")


def compare_figures(bundle: Bundle, table: pd.DataFrame, answers: Sequence[dict[str, Any]]) -> None:
    """The scores from the table and from the schedule alone."""
    rows = rows_of(table, bundle.schema, load_params())
    offline = bundle.scores(rows.columns)[:, 1]
    online = np.array([answer["probabilities"][bundle.schema.classes[1]] for answer in answers])
    print(f"{int((offline != online).sum())} of {len(online):,} probabilities differ")
    for title, scores in (("from the table", offline), ("from the schedule", online)):
        roc, pr = roc_auc_score(rows.target, scores), average_precision_score(rows.target, scores)
        print(f"  {title}: ROC-AUC {roc:.5f}, PR-AUC {pr:.5f}")


def measure(
    bundle: Bundle, table: pd.DataFrame, requests: Sequence[dict[str, Any]], with_store: Server, without: Server
) -> None:
    """Times of single requests, by turns, because machines are noisy."""
    columns = rows_of(table, bundle.schema, load_params()).columns
    chosen = range(len(table) - SINGLE, len(table))  # of a week, so that the rows are in memory after the first turn
    whole = [
        json.dumps({"rows": [{f.name: as_request(columns[f.name][row], f) for f in bundle.schema.features}]}).encode()
        for row in chosen
    ]
    short = [json.dumps({"rows": [requests[row]]}).encode() for row in chosen]
    kinds = {
        "whole rows, no store": (without, whole),
        "whole rows, with a store": (with_store, whole),
        "schedule alone, looked up": (with_store, short),
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(TURNS + 1):
        for kind, (asked, bodies) in kinds.items():
            for body in bodies:
                begun = time.perf_counter()
                asked.post(body)
                if turn:  # the first turn reads from the file
                    times[kind].append(time.perf_counter() - begun)
    base = statistics.median(times["whole rows, no store"])
    for kind, seconds in times.items():
        p99 = statistics.quantiles(seconds, n=100)[98]
        middle = statistics.median(seconds)
        print(f"  {kind}: p50 {middle * 1e6:.0f} us ({middle / base:.2f}), p99 {p99 * 1e6:.0f} us")


if __name__ == "__main__":
    main()
