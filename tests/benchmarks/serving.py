"""Atlas's service beside other ways to serve a scikit-learn model: rates, latency, batches, start, memory.

    PYTHONPATH=. .venv/bin/python tests/benchmarks/serving.py [--servers atlas,mlflow] [--seconds 3] [--part workers]

Needs Linux, two cores, `wrk` (apt install wrk) and models/bundle. The parts, by default all of them in turn:

    one      a table in Markdown: each server with one worker, alone on the first core; wrk runs on the second
    workers  the same with two workers; they and wrk have all cores
    faults   what stalled callers, overload and a killed worker do to the service (serving_faults.py)

The script makes an environment for each server: the peers' packages with the pinned versions below, Atlas's with those
of its image. All parts take half an hour, ten minutes of it for the environments; --short tries the script in two
minutes: three servers, a second for each figure. The processor time of a request depends less on what else runs than
rates do.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.benchmarks.serving_servers import FOLDER, HERE, SERVERS, Server, body_of, environment, installed, rows_of

CONNECTIONS = (1, 8, 32, 256)
BATCHES = (1000, 10_000)


def post(port: int, path: str, body: bytes) -> int:
    """The status of a request; 0 if nobody listens yet."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@contextmanager
def started(
    name: str, server: Server, bundle: Path, workers: int = 1, **variables: str
) -> Iterator[tuple[psutil.Process, int, float]]:
    """The server's process, its port, and the seconds from its start to its first prediction.

    A single worker has the first core for itself.
    """
    folder = environment(name, server, bundle)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = server.command.format(bin=folder / "environment/bin", port=port, workers=workers).split()
    body = body_of(server, rows_of(bundle, 1))
    ours = {
        "PORT": str(port),
        "WORKERS": str(workers),
        "MODEL_URI": str(bundle),
        "MAX_ROWS": "10000",
        "FOLDER": str(folder),
    }
    ours["PATH"] = f"{folder / 'environment/bin'}:{os.environ['PATH']}"  # MLflow starts uvicorn by its name
    ours |= {
        "MLSERVER_HTTP_PORT": str(port),
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_PARALLEL_WORKERS": str(workers if workers > 1 else 0),
    }
    ours |= {"MLSERVER_GRPC_PORT": "0", "MLSERVER_METRICS_PORT": "0"}
    ours |= {"MAX_BODY_BYTES": str(64 << 20), "OMP_NUM_THREADS": "1", **variables}
    cores = {0} if workers == 1 else every_core()
    begun = time.perf_counter()
    process = psutil.Popen(
        command,
        cwd=HERE.parents[1] if server.requirements else folder,
        env={name: value for name, value in {**os.environ, **ours}.items() if name != "PYTHONDONTWRITEBYTECODE"},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        process_group=0,
    )
    try:
        while post(port, server.path, body) != 200:
            if process.poll() is not None or time.perf_counter() - begun > 120:
                sys.exit(f"serving: {name} doesn't answer: {' '.join(command)}")
            time.sleep(0.01)  # the time until the first answer is what is measured: so often it is asked for
        yield process, port, time.perf_counter() - begun
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except psutil.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def every_core() -> set[int]:
    """Also where this process itself is limited to some of them."""
    return set(range(os.cpu_count() or 1))


def tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def processor_seconds(process: psutil.Process) -> float:
    """User and system time of a server's processes."""
    return sum(sum(each.cpu_times()[:2]) for each in tree(process))


def load(
    process: psutil.Process, url: str, body: bytes, connections: int, seconds: float, *, alone: bool = True
) -> dict[str, float]:
    """Requests per second, p50 and p99 in ms, failures, and the processor's µs per request.

    `alone`: wrk has the second core for itself; otherwise it may use all of them.
    """
    script = FOLDER / "wrk.lua"
    (FOLDER / "body.json").write_bytes(body)
    script.write_text(
        'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
        f'wrk.body = io.open("{FOLDER / "body.json"}"):read("*all")\n'
        "function done(s, l, r)\n"
        '  io.write(string.format("figures %f %f %f %d %d\\n", s.requests / s.duration * 1e6, l:percentile(50) / 1e3, '
        "l:percentile(99) / 1e3, s.requests, "
        "s.errors.status + s.errors.connect + s.errors.read + s.errors.timeout))\nend\n"
    )
    before = processor_seconds(process)
    wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script), url]
    cores = {1} if alone else every_core()
    done = subprocess.run(
        wrk, check=True, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )
    found = re.search(r"^figures (.*)$", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout
    rate, median, late, requests, failed = map(float, found[1].split())
    used = (processor_seconds(process) - before) / max(requests, 1) * 1e6
    return {"rate": rate, "p50": median, "p99": late, "failed": failed, "micros": used}


def address(server: Server, port: int) -> str:
    """Where the server predicts."""
    return f"http://127.0.0.1:{port}{server.path}"


def measure(name: str, bundle: Path, seconds: float, workers: int) -> str:
    """A server's line of the table."""
    server, alone = SERVERS[name], workers == 1
    with started(name, server, bundle, workers):
        pass  # a first start writes bytecode
    with started(name, server, bundle, workers) as (process, port, start):
        url = address(server, port)
        body = body_of(server, rows_of(bundle, 1))
        load(process, url, body, 8, 1, alone=alone)
        single = [load(process, url, body, number, seconds, alone=alone) for number in CONNECTIONS]
        memory = sum(each.memory_full_info().pss for each in tree(process)) / 1e6
    batches = []
    for rows in BATCHES if server.model else ():
        # A server of its own: another may still be working through the requests of 256 connections, which wrk has left.
        with started(name, server, bundle, workers) as (process, port, _):
            batch = body_of(server, rows_of(bundle, rows))
            post(port, server.path, batch)
            figures = load(process, address(server, port), batch, workers, seconds, alone=alone)
        batches.append(f"{figures['rate'] * rows:,.0f}")
        single.append(figures)
    failed = sum(figures["failed"] for figures in single)
    single = single[: len(CONNECTIONS)]
    cells = [
        " / ".join(f"{figures['rate']:,.0f}" for figures in single),
        " / ".join(f"{figures['p50']:.1f}" for figures in single),
        " / ".join(f"{figures['p99']:.1f}" for figures in single),
        " / ".join(f"{figures['micros']:,.0f}" for figures in single),
        " / ".join(batches) or "-",
        f"{start:.2f}",
        f"{memory:.0f}",
        f"{installed(FOLDER / name):.0f}",
    ]
    return f"| {server.title} | {' | '.join(cells)} |" + (f" {failed:.0f} requests failed" if failed else "")


def table(servers: list[str], bundle: Path, seconds: float, workers: int) -> None:
    """Print a table in Markdown, a line for each server."""
    single = "/".join(map(str, CONNECTIONS))
    heads = ["server", f"requests/s at {single} connections", "p50, ms", "p99, ms", "processor µs a request",
             "rows/s in batches of " + "/".join(f"{rows:,}" for rows in BATCHES), "start, s", "memory, MB",
             "installed, MB"]  # fmt: skip
    print(f"{workers} worker{'s' * (workers > 1)}\n\n| {' | '.join(heads)} |\n|{' --- |' * len(heads)}", flush=True)
    for name in servers:
        print(measure(name, bundle, seconds, workers), flush=True)
    print(flush=True)


def main() -> None:
    from tests.benchmarks.serving_faults import report

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--servers", default=",".join(SERVERS))
    parser.add_argument("--seconds", type=int, default=3, help="seconds for each figure")
    parser.add_argument("--bundle", type=Path, default=HERE.parents[1] / "models/bundle")
    parser.add_argument("--part", choices=("one", "workers", "faults"), action="append")
    parser.add_argument("--short", action="store_true", help="try the script")
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("serving: wrk isn't installed: apt install wrk")
    FOLDER.mkdir(parents=True, exist_ok=True)
    bundle, parts = given.bundle.resolve(), given.part or ["one", "workers", "faults"]
    servers, seconds = given.servers.split(","), given.seconds
    if given.short:
        servers, seconds = ["bare", "atlas", "flask"], 1
    for name in servers:
        environment(name, SERVERS[name], bundle)
    if "one" in parts:
        table(servers, bundle, seconds, 1)
    if "workers" in parts:
        table(servers, bundle, seconds, 2)
    if "faults" in parts:
        report(bundle, seconds, short=given.short)


if __name__ == "__main__":
    main()
