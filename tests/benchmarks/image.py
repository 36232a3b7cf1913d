"""Measures the service's image with the real bundle: size, start, memory and CPU, with one worker and with two.

    .venv/bin/python -m tests.benchmarks.image [--target full]      # after `make repro` or `dvc pull`

Builds the image and runs it with a read-only root; prints Markdown tables. Memory is the working set, as kubelet
counts it. The load comes from four callers at a fixed pace, on this machine: its rate is no limit of the service.
"""

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ml.bundle import read_parts
from tests.image.containers import (
    REPOSITORY,
    Container,
    FailedError,
    MissingError,
    base_image,
    build,
    docker,
    inspect,
    lay_out,
    running,
)

HARD = ("--read-only", "--tmpfs", "/tmp")
CALLERS, PAUSE, SECONDS = 4, 0.05, 15
STEP = 16
"""Steps between tested memory limits, in MiB."""


@dataclass(frozen=True, slots=True)
class Use:
    """The measurements for a number of workers."""

    workers: int
    start_seconds: float
    start_cpu_seconds: float
    rest_mib: float
    load_mib: float
    requests_per_second: float
    cpu_milliseconds: float
    """Of a request."""
    least_mib: int
    """The smallest memory limit, in steps of 16 MiB, that a start and fifty requests survive."""


def used(container: Container) -> tuple[float, float]:
    """Memory that can't be reclaimed (MiB), and CPU seconds since the start; from control groups version 1 or 2."""
    read = "cat memory/memory.usage_in_bytes memory/memory.stat cpuacct/cpuacct.usage"
    found = container.execute(
        "sh", "-c", f"cd /sys/fs/cgroup; {read} 2>/dev/null || cat memory.current memory.stat cpu.stat"
    )
    lines = found.splitlines()
    named = dict(line.split() for line in lines if " " in line)
    cache = int(named.get("total_inactive_file", named["inactive_file"]))
    seconds = int(named["usage_usec"]) / 1e6 if "usage_usec" in named else int(lines[-1]) / 1e9
    return (int(lines[0]) - cache) / 2**20, seconds


def settled(container: Container) -> tuple[float, float]:
    """The same, after every worker has loaded its model and memory no longer grows."""
    before = -1.0
    while True:
        mib, seconds = used(container)
        if abs(mib - before) < 1:
            return mib, seconds
        before = mib
        time.sleep(2)


def load(container: Container, image: str, body: str) -> int:
    """Number of requests answered in SECONDS. Raises FailedError if a request fails."""
    options = ("--rm", "--interactive", "--network", f"container:{container.id}", "--env", f"BODY={body}")
    numbers = (str(CALLERS), str(PAUSE), str(SECONDS))
    script = (REPOSITORY / "tests" / "image" / "load.py").read_text()
    outcome = json.loads(docker("run", *options, image, "python3", "-", *numbers, given=script))
    if outcome["lost"] or outcome["refused"]:
        raise FailedError(f"under load: {outcome}")
    return int(outcome["answered"])


def survives(image: str, workers: int, limit: int, body: str) -> bool:
    """Whether this memory limit is enough, so that no process is killed."""
    bound = (f"--memory={limit}m", f"--memory-swap={limit}m")
    with running(image, *HARD, *bound, WORKERS=workers) as container:
        try:
            container.wait_ready()
            for _ in range(50):
                container.request("POST", "/predict", json.loads(body))
        except (FailedError, OSError):
            return False
        return not container.state()["OOMKilled"] and container.log().count("Booting worker") == workers


def measure(image: str, workers: int, body: str, runs: int) -> Use:
    starts = []
    for _ in range(runs - 1):
        with running(image, *HARD, WORKERS=workers) as container:
            starts.append(container.wait_ready())
    with running(image, *HARD, WORKERS=workers) as container:
        starts.append(container.wait_ready())
        rest, spent = settled(container)
        peaks = [rest]
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                peaks.append(used(container)[0])
                time.sleep(0.5)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            answered = load(container, image, body)
            busy = used(container)[1] - spent
        finally:
            done.set()
            watcher.join()
    low, high = 0, STEP * 32  # not enough, enough
    while high - low > STEP:
        middle = (low + high) // 2 // STEP * STEP
        low, high = (low, middle) if survives(image, workers, middle, body) else (middle, high)
    return Use(
        workers, statistics.median(starts), spent, rest, max(peaks), answered / SECONDS, busy / answered * 1000, high
    )


@contextmanager
def built(bundle: Path, target: str) -> Iterator[str]:
    """The image, removed at the end."""
    tag = f"atlas-benchmark:{os.getpid()}"
    with TemporaryDirectory() as folder:
        build(lay_out(Path(folder) / "context", bundle), "--load", "--tag", tag, target=target)
    try:
        yield tag
    finally:
        docker("image", "rm", "--force", tag)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="slim", choices=("slim", "full"))
    parser.add_argument("--bundle", type=Path, default=REPOSITORY / "models" / "bundle")
    parser.add_argument("--runs", type=int, default=3, help="starts to take the median of")
    arguments = parser.parse_args()
    try:
        version, parts = read_parts(arguments.bundle)
        base_image()
        body = json.dumps({"rows": parts.reference.sample[:1]})
        with built(arguments.bundle, arguments.target) as image:
            report(image, version, [measure(image, workers, body, arguments.runs) for workers in (1, 2)])
    except (MissingError, FailedError, ValueError) as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    return 0


def report(image: str, version: str, uses: list[Use]) -> None:
    print(f"Base {base_image()}, bundle {version[:12]}\n")
    print("| layer | size |\n| --- | --- |")
    lines = docker("history", "--format", "{{.CreatedBy}}\t{{.Size}}", image).splitlines()
    for what, size in (line.split("\t") for line in reversed(lines)):
        if what.startswith("COPY"):
            print(f"| {what.split()[2]} | {size} |")
    print(f"| all, with the base | {inspect(image)['Size'] / 1e6:.0f}MB |\n")
    rows = (
        ("seconds until ready, median", [f"{use.start_seconds:.1f}" for use in uses]),
        ("CPU seconds until all workers are up", [f"{use.start_cpu_seconds:.1f}" for use in uses]),
        ("MiB at rest", [f"{use.rest_mib:.0f}" for use in uses]),
        ("MiB under load, most", [f"{use.load_mib:.0f}" for use in uses]),
        ("requests per second of that load", [f"{use.requests_per_second:.0f}" for use in uses]),
        ("CPU milliseconds per request", [f"{use.cpu_milliseconds:.1f}" for use in uses]),
        ("least memory limit, MiB", [str(use.least_mib) for use in uses]),
    )
    print("| " + " | ".join(["workers", *(str(use.workers) for use in uses)]) + " |")
    print("|" + " --- |" * (len(uses) + 1))
    for name, values in rows:
        print("| " + " | ".join([name, *values]) + " |")


if __name__ == "__main__":
    sys.exit(main())
