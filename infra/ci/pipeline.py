"""The pipeline of a commit: fetches its outputs, compares its lock with the code, runs its stages again."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from infra.errors import StepError, one_line

ABSENT = ("missing-files", "does not exist", "NoSuchBucket", "no such bucket", "no remote")
"""Parts of DVC's messages when the remote, or an output in it, doesn't exist yet."""
MISSING = frozenset({"deleted", "not in cache"})
"""States of outputs that aren't on this machine; they don't mean that the lock is stale."""
EXACT = ("data/raw", "data/processed")
"""Outputs that don't depend on floating-point arithmetic: a rerun must give the same bytes."""
TOLERANCE = 0.01
"""Relative difference of a figure that another machine's floating-point arithmetic may cause: with slightly different
sums, trees may split differently. 1 % is much smaller than the figures' confidence intervals."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The result of a rerun."""

    differs: Sequence[str]
    """Outputs whose hash differs from dvc.lock."""
    figures: Mapping[str, tuple[float, float]]
    """Metric -> (committed, here), for metrics that differ."""


def dvc(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run DVC. Its output goes to standard error, except JSON output and that of pull and push, which are captured."""
    quiet = "--json" in arguments or arguments[0] in ("pull", "push")
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        # Stages run as `python -m …`, with this Python.
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE if quiet else sys.stderr,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        check=False,
    )


def pull(root: Path) -> str:
    """Fetch the outputs that the commit's lock names, and return a sentence about the result.

    A missing remote, or missing outputs in it, are no error: the pipeline makes them again.
    Raises StepError when the remote refuses, or can't be reached.
    """
    done = dvc(root, "pull")
    if done.returncode == 0:
        return "all outputs came from the remote"
    said = done.stdout + done.stderr
    if any(text in said for text in ABSENT):
        return "the remote isn't there yet, or lacks some outputs: `dvc repro` makes them again"
    raise StepError(f"dvc pull: {_error_in(done)}")


def _error_in(done: "subprocess.CompletedProcess[str]") -> str:
    said = done.stdout + done.stderr
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR")]
    return errors[0] if errors else one_line(said)[-300:]


def push(root: Path) -> str:
    """Send the outputs that dvc.lock names to DVC's default remote, and return a sentence about the result.

    Raises StepError when the remote refuses, or can't be reached.
    """
    done = dvc(root, "push")
    if done.returncode != 0:
        raise StepError(f"dvc push: {_error_in(done)}")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return lines[-1] if lines else "everything is there"


def base_of(root: Path, asked: str | None) -> str | None:
    """The commit to compare with: `asked`, the pull request's base, or the previous commit; None if there is none.

    Raises StepError when git has no such revision.
    """
    of_request = os.environ.get("GITHUB_BASE_REF")
    named = asked or (f"origin/{of_request}" if of_request else None)
    found = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", f"{named or 'HEAD^'}^{{commit}}"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if found.returncode != 0 and named:
        raise StepError(f"git has no {named} here: run `git fetch origin`, or use a checkout with fetch-depth: 0")
    return found.stdout.strip() or None


def check_lock(root: Path) -> None:
    """Raise StepError unless dvc.lock belongs to this commit's code, parameters and data."""
    done = dvc(root, "status", "--json")
    if done.returncode != 0:
        raise StepError(f"dvc status: {one_line(done.stderr)}")
    stale = stale_stages(json.loads(done.stdout))
    if stale:
        told = "; ".join(f"{stage}: {', '.join(reasons)}" for stage, reasons in stale.items())
        raise StepError(
            f"the commit lacks its dvc.lock ({told}). To fix this, run "
            "`make repro && git add dvc.lock reports && git commit`"
        )


def stale_stages(status: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
    """Stage -> what changed since its lock was written, from `dvc status --json`.

    Missing outputs, and stages that always run, don't count as changes.
    """
    made = {path for entries in status.values() for entry in entries for path in _of(entry, "changed outs")}
    stale: dict[str, list[str]] = {}
    for stage, entries in status.items():
        reasons = []
        for entry in entries:
            if entry == "changed command":
                reasons.append("its command")
            reasons += [path for path, state in _of(entry, "changed outs").items() if state not in MISSING]
            for path, state in _of(entry, "changed deps").items():
                if isinstance(state, dict):
                    reasons += [f"{path}: {name}" for name in state]
                elif state not in MISSING or path not in made:
                    reasons.append(path)
        if reasons:
            stale[stage] = sorted(reasons)
    return stale


def _of(entry: Any, key: str) -> dict[str, Any]:
    found = entry.get(key, {}) if isinstance(entry, dict) else {}
    return found if isinstance(found, dict) else {}


def reproduce(root: Path) -> Reproduction:
    """Run what must be run, and compare with what is committed.

    Raises StepError when a stage fails, or the outcome differs by more than another machine's arithmetic.
    """
    before = locked(root)
    if dvc(root, "repro").returncode != 0:
        raise StepError("dvc repro failed: see its messages above")
    after = locked(root)
    differs = sorted(path for path in before | after if before.get(path) != after.get(path))
    # Metrics are in git, so their values are compared instead of their files' hashes.
    figures = moved(metrics_since(root, "HEAD"))
    exact = [path for path in differs if path in EXACT or path.startswith(tuple(f"{one}/" for one in EXACT))]
    far = {name: values for name, values in figures.items() if not near(*values)}
    if exact or far:
        wrong = [*exact, *(f"{name} is {here:g}, committed as {there:g}" for name, (there, here) in far.items())]
        raise StepError(
            f"a rerun differs from the commit: {'; '.join(wrong)}. Either a stage depends on something that dvc.yaml "
            "doesn't name (time, order, a seed), or dvc.lock and reports belong to another state of the code: run "
            "`make repro` and commit dvc.lock and reports"
        )
    return Reproduction(differs, figures)


def locked(root: Path) -> dict[str, str]:
    """Output -> hash, from dvc.lock."""
    document = yaml.safe_load((root / "dvc.lock").read_text())
    return {out["path"]: str(out.get("md5")) for stage in document["stages"].values() for out in stage.get("outs", ())}


def metrics_since(root: Path, revision: str) -> dict[str, dict[str, Any]]:
    """`dvc metrics diff --json`: file -> metric -> {old, new, diff}, for changed metrics; {} if there are none.

    Raises StepError when git has no such revision.
    """
    done = dvc(root, "metrics", "diff", "--json", revision)
    if done.returncode != 0:
        raise StepError(f"dvc metrics diff {revision}: {one_line(done.stderr)}")
    found: dict[str, dict[str, Any]] = json.loads(done.stdout or "{}")
    return found


def plots_since(root: Path, revision: str | None) -> dict[str, Any]:
    """`dvc plots diff --json`, with the revision's curves if its outputs are available."""
    done = dvc(root, "plots", "diff", "--json", *([revision] if revision else []))
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise StepError(f"dvc plots diff: {_error_in(done)}") from None
    return found


def moved(difference: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, tuple[float, float]]:
    """Metric -> (before, now), for metrics that differ; a missing value is infinity."""
    nothing = float("inf")
    return {
        name: (
            value["old"] if isinstance(value.get("old"), int | float) else nothing,
            value["new"] if isinstance(value.get("new"), int | float) else nothing,
        )
        for metrics in difference.values()
        for name, value in metrics.items()
        if value.get("old") != value.get("new")
    }


def near(one: float, other: float) -> bool:
    """Whether they differ by no more than TOLERANCE."""
    return math.isclose(one, other, rel_tol=TOLERANCE)
