"""Seconds of an `atlas up --stack local` that has nothing to do.

    .venv/bin/python tests/benchmarks/noop_up.py [--runs 5]

On the stack that is up (`make up` first). Prints a Markdown table.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ATLAS = [sys.executable, "-m", "infra.cli"]


def measure() -> float:
    """Seconds of a run; raises RuntimeError if it fails, or if it changed something."""
    begun = time.monotonic()
    done = subprocess.run(
        [*ATLAS, "up", "--stack", "local", "--json"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - begun
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    changes = json.loads(done.stdout)["changes"]
    if changes:
        raise RuntimeError(f"the stack was not as its settings say ({', '.join(changes)} changed): run this again")
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    if subprocess.run([*ATLAS, "status"], cwd=REPOSITORY, capture_output=True, check=False).returncode:
        print("noop_up: the stack is not up and healthy: `make up` first", file=sys.stderr)
        return 1
    try:
        seconds = [measure() for _ in range(runs)]
    except RuntimeError as error:
        print(f"noop_up: {error}", file=sys.stderr)
        return 1
    print("| no-op `atlas up --stack local` | seconds |\n| --- | --- |")
    print(f"| median of {runs} | {statistics.median(seconds):.1f} |\n| slowest | {max(seconds):.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
