"""Time and memory of `dvc repro` on the default data: cold, with nothing to do, and on the data repeated ten times.

    .venv/bin/python tests/benchmarks/pipeline.py [--times 10]

Runs in a temporary clone with an empty cache and prints a Markdown table. Memory is the peak of the summed proportional
set sizes (PSS) of DVC and its stages, sampled ten times a second.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import yaml

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Run:
    """The measurements of a command."""

    seconds: float
    peak_mib: float
    slowest: dict[str, float]
    """Seconds by stage, from the starts of stages in DVC's output."""


def measure(command: list[str], cwd: Path) -> Run:
    """Run the command to its end; raises RuntimeError with its last lines when it fails."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{cwd}/.atlas/mlflow/mlflow.db",
        "DVC_NO_ANALYTICS": "1",
    }
    begun = time.monotonic()
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    peak = 0.0

    def watch() -> None:
        nonlocal peak
        root = psutil.Process(process.pid)
        while process.poll() is None:
            total = 0
            for member in [root, *_children(root)]:
                try:
                    total += member.memory_full_info().pss
                except psutil.Error:
                    continue
            peak = max(peak, total / 2**20)
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begins: list[tuple[str, float]] = []
    lines: list[str] = []
    for line in process.stdout or ():
        lines.append(line)
        if line.startswith(("Running stage", "Stage ")):
            begins.append((line.split("'")[1], time.monotonic() - begun))
    process.wait()
    watcher.join()
    seconds = time.monotonic() - begun
    print(f"{cwd.name}: {seconds:.1f} s, {peak:.0f} MiB", file=sys.stderr, flush=True)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{''.join(lines[-30:])}")
    ends = [at for _, at in begins[1:]] + [seconds]
    return Run(seconds, peak, {name: end - at for (name, at), end in zip(begins, ends, strict=True)})


def _children(root: psutil.Process) -> list[psutil.Process]:
    try:
        return root.children(recursive=True)
    except psutil.Error:
        return []


def clone(to: Path, trees: int | None) -> Path:
    """A copy of the working tree's tracked files, in a separate git repository."""
    files = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    for name in files.splitlines():
        if name == "dvc.lock" or not (REPOSITORY / name).is_file():
            continue
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes((REPOSITORY / name).read_bytes())
    if trees is not None:
        params = yaml.safe_load((to / "params.yaml").read_text())
        for estimator in params["model"]["estimators"].values():
            estimator["max_iter"] = trees
        (to / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    git = ["git", "-c", "user.name=benchmark", "-c", "user.email=benchmark@example.invalid"]
    for arguments in (["init", "--quiet", "--initial-branch=main"], ["add", "-A"], ["commit", "--quiet", "-m", "copy"]):
        subprocess.run([*git, *arguments], cwd=to, check=True)
    return to


def repeat_table(cold: Path, wide: Path, times: int) -> int:
    """Let `wide` use `times` copies of the raw table of `cold`, with distinct ids; returns the number of rows."""
    table = pd.read_parquet(cold / "data/raw/table.parquet")
    params = yaml.safe_load((wide / "params.yaml").read_text())
    key = params["data"]["id"]
    many = pd.concat([table.assign(**{key: table[key].astype(str) + f"-{n}"}) for n in range(times)])
    (wide / "many").mkdir()
    many.to_parquet(wide / "many/table.parquet", index=False)
    params["data"] |= {"source": "table", "uri": "many/table.parquet"}
    (wide / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return len(many)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10, help="how often the data is repeated; 0 leaves that out")
    parser.add_argument("--trees", type=int, help="fewer trees than params.yaml says: memory and scaling in less time")
    arguments = parser.parse_args()
    times = arguments.times
    repro = [sys.executable, "-m", "dvc", "repro"]
    with tempfile.TemporaryDirectory(prefix="atlas-benchmark-") as folder:
        cold_clone = clone(Path(folder, "cold"), arguments.trees)
        runs = {"cold": measure(repro, cold_clone), "nothing to do": measure(repro, cold_clone)}
        rows = len(pd.read_parquet(cold_clone / "data/raw/table.parquet", columns=["flight_id"]))
        counts = {"cold": rows, "nothing to do": rows}
        if times:
            wide_clone = clone(Path(folder, "wide"), arguments.trees)
            name = f"repeated {times} times"
            counts[name] = repeat_table(cold_clone, wide_clone, times)
            runs[name] = measure(repro, wide_clone)
    print("| `dvc repro` | rows | seconds | µs/row | peak MiB | KiB/row |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, run in runs.items():
        count = counts[name]
        print(
            f"| {name} | {count:,} | {run.seconds:.1f} | {run.seconds / count * 1e6:.0f} "
            f"| {run.peak_mib:.0f} | {run.peak_mib * 1024 / count:.2f} |"
        )
    print(json.dumps({name: {k: round(v, 1) for k, v in run.slowest.items()} for name, run in runs.items()}, indent=1))


if __name__ == "__main__":
    main()
