"""Atlas's service beside other ways to serve a scikit-learn model: rates, latency, batches, start, memory.

    PYTHONPATH=. .venv/bin/python tests/benchmarks/serving.py [--servers atlas,mlflow] [--seconds 5] [--faults]

Needs Linux, two cores, `wrk` (apt install wrk) and models/bundle. Each server has one worker, alone on the first core;
wrk runs on the second. The script makes the peers' environments with the pinned versions below. It prints a table in
Markdown: rates, and the processor time of a request, which depends less on what else runs. --faults measures
instead what stalled callers, overload and a killed worker do to the service (serving_faults.py).
"""

import argparse
import csv
import json
import os
import random
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ml.bundle import read_parts
from ml.schema import Feature

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / ".atlas/benchmarks/serving"
SCIKIT = ("scikit-learn==1.9.1", "pandas==3.1.1", "joblib==1.6.0")
CONNECTIONS = (1, 8, 32, 256)
BATCHES = (1000, 10_000)
TRAINING_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Server:
    """A way to serve; `{port}` and `{bin}` stand in its command."""

    title: str
    packages: tuple[str, ...]
    command: str
    path: str = "/predict"
    document: str = "rows"
    """rows: {"rows": [{…}]}; split: MLflow's {"dataframe_split": …}; tensors: a tensor a column, for MLServer."""
    model: bool = True


GUNICORN = "{bin}/gunicorn --worker-class gthread --threads 4 --bind 127.0.0.1:{port} --log-level error"
SERVERS = {
    "bare": Server("bare Flask route, gunicorn gthread", ("flask==3.1.3", "gunicorn==26.2.0"),
                   GUNICORN + " serving_peers:bare()", model=False),
    "bare-granian": Server("bare Flask route, granian", ("flask==3.1.3", "granian==2.8.9"),
                           "{bin}/granian --interface wsgi --port {port} --no-ws --log-level error --factory "
                           "serving_peers:bare",
                           model=False),
    "atlas": Server("Atlas", (), sys.executable + " -m service"),
    "mlflow": Server("`mlflow models serve`", ("mlflow==3.17.2", *SCIKIT),
                     "{bin}/mlflow models serve -m mlflow --env-manager local --workers 1 --port {port}",
                     path="/invocations", document="split"),
    "mlserver": Server("MLServer", ("mlserver==1.7.1", "mlserver-sklearn==1.7.1", *SCIKIT), "{bin}/mlserver start .",
                       path="/v2/models/peer/infer", document="tensors"),
    "bentoml": Server("BentoML", ("bentoml==1.4.40", *SCIKIT),
                      "{bin}/bentoml serve bento:Peer --host 127.0.0.1 --port {port}"),
    "fastapi": Server("FastAPI, pandas", ("fastapi==0.165.0", "uvicorn[standard]==0.54.0", *SCIKIT),
                      "{bin}/uvicorn --factory serving_peers:fastapi_pandas --port {port} --log-level error"),
    "flask": Server("Flask on gunicorn, pandas", ("flask==3.1.3", "gunicorn==26.2.0", *SCIKIT),
                    GUNICORN + " serving_peers:flask_pandas()"),
}  # fmt: skip


def value_of(feature: Feature, draw: random.Random) -> Any:
    """A plausible value."""
    if feature.categories:
        return draw.choice(feature.categories)
    if feature.type == "numeric" and feature.low is not None and feature.high is not None:
        value = draw.uniform(feature.low, feature.high)
        return round(value) if feature.integer else round(value, 2)
    return feature.example


def rows_of(bundle: Path, number: int) -> list[dict[str, Any]]:
    """Rows of a request, with all inputs."""
    draw = random.Random(7)
    features = read_parts(bundle)[1].schema.features
    return [{feature.name: value_of(feature, draw) for feature in features} for _ in range(number)]


def body_of(server: Server, rows: list[dict[str, Any]]) -> bytes:
    """The request's document in the server's protocol."""
    if server.document == "split":
        columns = list(rows[0])
        return json.dumps(
            {"dataframe_split": {"columns": columns, "data": [[row[name] for name in columns] for row in rows]}}
        ).encode()
    if server.document == "tensors":
        inputs = [tensor(name, [row[name] for row in rows]) for name in rows[0]]
        wanted = [{"name": "predict_proba"}]
        return json.dumps({"parameters": {"content_type": "pd"}, "inputs": inputs, "outputs": wanted}).encode()
    return json.dumps({"rows": rows}).encode()


def tensor(name: str, values: list[Any]) -> dict[str, Any]:
    """A column as a tensor of numbers or texts."""
    kind: dict[str, Any] = {"datatype": "FP64"}
    if isinstance(values[0], str):
        kind = {"datatype": "BYTES", "parameters": {"content_type": "str"}}
    return {"name": name, "shape": [len(values)], "data": values, **kind}


def environment(name: str, server: Server, bundle: Path) -> Path:
    """The folder of the server's environment, made and with a fitted model if it isn't there."""
    folder = FOLDER / name
    python = folder / "environment/bin/python"
    if not server.packages or (folder / "made").exists():
        return folder
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, python.parents[1]], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *server.packages], check=True)
    shutil.copy(HERE / "serving_peers.py", folder)
    if server.model:
        rows = rows_of(bundle, TRAINING_ROWS)
        with (folder / "rows.csv").open("w") as file:
            writer = csv.writer(file)
            writer.writerow([*rows[0], "target"])
            writer.writerows([*row.values(), random.Random(number).random() < 0.3] for number, row in enumerate(rows))
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # on a busy machine, threads wait for each other
        subprocess.run([python, "serving_peers.py", "."], cwd=folder, env=alone, check=True, stdout=subprocess.DEVNULL)
    (folder / "made").touch()
    return folder


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
def started(name: str, server: Server, bundle: Path, **variables: str) -> Iterator[tuple[psutil.Process, int, float]]:
    """The server's process, its port, and the seconds from its start to its first prediction."""
    folder = environment(name, server, bundle)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = server.command.format(bin=folder / "environment/bin", port=port).split()
    body = body_of(server, rows_of(bundle, 1))
    ours = {"PORT": str(port), "WORKERS": "1", "MODEL_URI": str(bundle), "MAX_ROWS": "10000", "FOLDER": str(folder)}
    ours["PATH"] = f"{folder / 'environment/bin'}:{os.environ['PATH']}"  # MLflow starts uvicorn by its name
    ours |= {"MLSERVER_HTTP_PORT": str(port), "MLSERVER_HOST": "127.0.0.1", "MLSERVER_PARALLEL_WORKERS": "0"}
    ours |= {"MLSERVER_GRPC_PORT": "0", "MLSERVER_METRICS_PORT": "0"}
    ours |= {"MAX_BODY_BYTES": str(64 << 20), "OMP_NUM_THREADS": "1", **variables}
    begun = time.perf_counter()
    process = psutil.Popen(
        command,
        cwd=folder if server.packages else HERE.parents[1],
        env={**os.environ, **ours},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {0}),
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


def tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def processor_seconds(process: psutil.Process) -> float:
    """User and system time of a server's processes."""
    return sum(sum(each.cpu_times()[:2]) for each in tree(process))


def load(process: psutil.Process, url: str, body: bytes, connections: int, seconds: float) -> dict[str, float]:
    """Requests per second, p50 and p99 in ms, failures, and the processor's µs per request."""
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
    done = subprocess.run(
        wrk, check=True, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {1})
    )
    found = re.search(r"^figures (.*)$", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout
    rate, median, late, requests, failed = map(float, found[1].split())
    used = (processor_seconds(process) - before) / max(requests, 1) * 1e6
    return {"rate": rate, "p50": median, "p99": late, "failed": failed, "micros": used}


def measure(name: str, bundle: Path, seconds: float) -> str:
    """A server's line of the table."""
    server = SERVERS[name]
    with started(name, server, bundle) as (process, port, start):
        url = f"http://127.0.0.1:{port}{server.path}"
        body = body_of(server, rows_of(bundle, 1))
        load(process, url, body, 8, 1)
        single = [load(process, url, body, number, seconds) for number in CONNECTIONS]
        memory = sum(each.memory_full_info().pss for each in tree(process)) / 1e6
        batches = []
        for rows in BATCHES if server.model else ():
            figures = load(process, url, body_of(server, rows_of(bundle, rows)), 1, seconds)
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
    ]
    return f"| {server.title} | {' | '.join(cells)} |" + (f" {failed:.0f} requests failed" if failed else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--servers", default=",".join(SERVERS))
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--bundle", type=Path, default=HERE.parents[1] / "models/bundle")
    parser.add_argument("--faults", action="store_true")
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("serving: wrk isn't installed: apt install wrk")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if given.faults:
        from tests.benchmarks.serving_faults import report

        report(given.bundle.resolve(), given.seconds)
        return
    single = "/".join(map(str, CONNECTIONS))
    heads = ["server", f"requests/s at {single} connections", "p50, ms", "p99, ms", "processor µs a request",
             "rows/s in batches of " + "/".join(f"{rows:,}" for rows in BATCHES), "start, s", "memory, MB"]  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}", flush=True)
    for name in given.servers.split(","):
        print(measure(name, given.bundle.resolve(), given.seconds), flush=True)


if __name__ == "__main__":
    main()
