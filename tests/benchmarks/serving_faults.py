"""What stalled callers, overload, a killed worker and a stop do to the service: `serving.py --part faults`."""

import asyncio
import http.client
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.benchmarks.serving import load, started
from tests.benchmarks.serving_overload import offer
from tests.benchmarks.serving_servers import SERVERS, body_of, rows_of

STALLED = 2000
STALLS = ("nothing", "half a request line", "half the headers", "half a body", "a byte every two seconds")
OVERLOAD = 2000
"""Connections that send their next request at once: more than wait for a thread, so some are refused."""
CLIENTS = 40
BATCH, TIMES = 100, 4
"""Rows of a request, and times the sustainable rate: single rows would need more requests than a client can offer."""


def beginnings(body: bytes) -> dict[str, bytes]:
    """What each kind of staller sends at once."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    sent = (b"", head[:8], head[: len(head) // 2], head + body[: len(body) // 2], head[:1])
    return dict(zip(STALLS, sent, strict=True))


@contextmanager
def stalling(port: int, kinds: list[str], body: bytes) -> Iterator[None]:
    """STALLED connections of these kinds; a caller who is cut off comes again."""
    ready, stop = threading.Event(), threading.Event()

    async def caller(kind: str) -> None:
        while not stop.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(beginnings(body)[kind])
                if kind == STALLS[-1]:
                    for byte in b"OST /predict HTTP/1.1\r\n":
                        await asyncio.sleep(2)
                        writer.write(bytes([byte]))
                        await writer.drain()
                await reader.read()
                writer.close()
            except OSError:
                await asyncio.sleep(0.1)

    async def run() -> None:
        callers = [asyncio.ensure_future(caller(kinds[number % len(kinds)])) for number in range(STALLED)]
        await asyncio.sleep(3)
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.1)
        for each in callers:
            each.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    ready.wait()
    yield
    stop.set()
    thread.join()


class Probing(threading.Thread):
    """Asks for readiness every 50 ms, on a new connection each time."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port, self.slowest, self.failed, self.asked, self.over = port, 0.0, 0, 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            begun = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                connection.request("GET", "/health/ready")
                self.failed += connection.getresponse().status != 200
            except OSError:
                self.failed += 1
            connection.close()
            self.asked += 1
            self.slowest = max(self.slowest, time.perf_counter() - begun)

    def end(self) -> str:
        self.over.set()
        self.join()
        return f"{self.asked} probes, {self.failed} failed, slowest {self.slowest * 1000:.0f} ms"


def clients(port: int, body: bytes, answered: Counter[str], stop: threading.Event) -> list[threading.Thread]:
    """CLIENTS that keep their connections and pause between requests; what they get is counted."""

    def call(number: int) -> None:
        while not stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                connection.connect()
            except ConnectionRefusedError:
                return
            try:
                while not stop.is_set():
                    connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
                    response = connection.getresponse()
                    response.read()
                    answered[str(response.status)] += 1
                    if response.headers["Connection"] == "close":
                        break
                    time.sleep(0.01 * (number % 30))  # callers who pause, each for another time
            except OSError:
                answered["lost"] += 1
            connection.close()

    threads = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    return threads


def report(bundle: Path, seconds: float, *, short: bool) -> None:
    """Print a line for each fault; `short`: less of what takes long."""
    server = SERVERS["atlas"]
    body = body_of(server, rows_of(bundle, 1))
    os.sched_setaffinity(0, {1})
    limit = 20_000
    subprocess.run(["prlimit", f"--nofile={limit}:{limit}", f"--pid={os.getpid()}"], check=True)
    with started("atlas", server, bundle) as (process, port, _):
        url = f"http://127.0.0.1:{port}/predict"
        load(process, url, body, 8, 1)
        usual = load(process, url, body, 32, seconds)
        print(f"usual: {usual['rate']:,.0f} requests/s, p99 {usual['p99']:.1f} ms")
        for kind in STALLS:
            with stalling(port, [kind], body):
                probing = Probing(port)
                probing.start()
                now = load(process, url, body, 32, seconds)
                print(f"{STALLED} callers who send {kind}: {now['rate'] / usual['rate']:.2f} of the usual rate, "
                      f"p99 {now['p99']:.1f} ms, {now['failed']:.0f} failed; {probing.end()}", flush=True)  # fmt: skip
        probing = Probing(port)
        probing.start()
        now = load(process, url, body, OVERLOAD, seconds)
        answered = now["rate"] - now["failed"] / seconds
        print(f"{OVERLOAD} connections without a pause: {answered / usual['rate']:.2f} of the usual rate answered, "
              f"{now['failed'] / seconds:,.0f} a second refused; {probing.end()}", flush=True)  # fmt: skip
        before = memory(process)
        requests = 0.0
        while requests < (2_000 if short else 100_000):
            requests += load(process, url, body, 32, seconds)["rate"] * seconds
        print(f"{requests:,.0f} requests later: {before:.1f} MB became {memory(process):.1f} MB", flush=True)
    overload(bundle, seconds, 5 if short else 60)
    with started("atlas", server, bundle, 2) as (process, port, _):
        answered_, stop = Counter[str](), threading.Event()
        threads = clients(port, body, answered_, stop)
        time.sleep(2)  # a load of two seconds before, and of three after
        process.children()[0].kill()
        time.sleep(3)
        print(f"a worker of two killed under load: {dict(answered_)}", flush=True)
        stop.set()
        for thread in threads:
            thread.join()
        answered_.clear()
        stop.clear()
        threads = clients(port, body, answered_, stop)
        time.sleep(2)  # a load of two seconds before
        os.kill(process.pid, signal.SIGTERM)
        for thread in threads:
            thread.join()
        print(f"SIGTERM under load, {CLIENTS} clients: {dict(answered_)}", flush=True)


def overload(bundle: Path, seconds: float, duration: float) -> None:
    """Print what happens when TIMES the sustainable number of batches come, whether they are answered or not."""
    server = SERVERS["atlas"]
    body = body_of(server, rows_of(bundle, BATCH))
    with started("atlas", server, bundle) as (process, port, _):
        url = f"http://127.0.0.1:{port}/predict"
        load(process, url, body, 8, 1)
        sustainable = load(process, url, body, 8, seconds)["rate"]
        before, probing = memory(process), Probing(port)
        probing.start()
        found = asyncio.run(offer(port, body, TIMES * sustainable, duration))
        probes = probing.end()
        print(
            f"{TIMES} x {sustainable:,.0f} requests/s of {BATCH} rows, {duration:.0f} s: {found.offered:,} offered, "
            f"{found.answered / found.seconds / sustainable:.2f} of the sustainable rate answered, "
            f"p50 {found.percentile(50):,.0f} ms, p99 {found.percentile(99):,.0f} ms; "
            f"other outcomes {dict(found.others)}; {probes}; {before:.1f} MB became {memory(process):.1f} MB",
            flush=True,
        )
        after = load(process, url, body, 8, seconds)
        print(f"afterwards: {after['rate'] / sustainable:.2f} of the sustainable rate, {after['failed']:.0f} failed")


def memory(process: psutil.Process) -> float:
    """MB of a service's processes."""
    return sum(each.memory_full_info().pss for each in (process, *process.children(recursive=True))) / 1e6
