"""The pipeline as a commit has it: its outputs fetched, its lock held to the code, its stages run again."""

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
"""In what DVC says when the remote, or what it should hold, isn't there yet."""
MISSING = frozenset({"deleted", "not in cache"})
"""States of what isn't on this machine; whether it would be the same says the lock."""
EXACT = ("data/raw", "data/processed")
"""Outputs that no floating-point arithmetic goes into: a rerun must give the same bytes."""
TOLERANCE = 0.01
"""How far, as a share of itself, a figure may move by another machine's arithmetic. Trees grown on another machine's
sums may split elsewhere; of what is reported, one per cent is well within the figures' own intervals."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What a rerun came to."""

    differs: Sequence[str]
    """Outputs that are not, byte for byte, what dvc.lock has."""
    figures: Mapping[str, tuple[float, float]]
    """Metric -> (as committed, here), of those that moved."""


def dvc(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """DVC's result; what it says goes to standard error as it comes, but what is asked for as JSON."""
    quiet = "--json" in arguments or arguments[0] in ("pull", "push")
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        # Stages run as `python -m …`: by this Python.
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE if quiet else sys.stderr,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        check=False,
    )


def pull(root: Path) -> str:
    """Fetch what the commit's lock names; a sentence on how that went.

    A remote that isn't there, or lacks some of it, is no error: the pipeline makes it again.
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
    """Send what dvc.lock names to DVC's default remote; a sentence on how that went.

    Raises StepError when the remote refuses, or can't be reached.
    """
    done = dvc(root, "push")
    if done.returncode != 0:
        raise StepError(f"dvc push: {_error_in(done)}")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return lines[-1] if lines else "everything is there"


def base_of(root: Path, asked: str | None) -> str | None:
    """The commit to compare with: the one asked for, the pull request's base, or the one before; None if there is none.

    Raises StepError when git has no such revision.
    """
    of_request = os.environ.get("GITHUB_BASE_REF")
    named = asked or (f"origin/{of_request}" if of_request else None)
    found = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", f"{named or 'HEAD^'}^{{commit}}"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if found.returncode != 0 and named:
        raise StepError(f"git has no {named} here: `git fetch origin`, or a checkout with fetch-depth: 0")
    return found.stdout.strip() or None


def check_lock(root: Path) -> None:
    """Raise StepError unless dvc.lock is of this commit's code, parameters and data."""
    done = dvc(root, "status", "--json")
    if done.returncode != 0:
        raise StepError(f"dvc status: {one_line(done.stderr)}")
    stale = stale_stages(json.loads(done.stdout))
    if stale:
        told = "; ".join(f"{stage}: {', '.join(reasons)}" for stage, reasons in stale.items())
        raise StepError(
            f"the commit lacks its dvc.lock ({told}). This mends it: "
            "`make repro && git add dvc.lock reports && git commit`"
        )


def stale_stages(status: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
    """Stage -> what changed since its lock was written, of `dvc status --json`.

    Outputs that are only missing, and stages that always run, are no change.
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
        raise StepError("dvc repro failed: its own lines above say why")
    after = locked(root)
    differs = sorted(path for path in before | after if before.get(path) != after.get(path))
    # Metrics stand in git, their files' hashes are of no use.
    figures = moved(metrics_since(root, "HEAD"))
    exact = [path for path in differs if path in EXACT or path.startswith(tuple(f"{one}/" for one in EXACT))]
    far = {name: values for name, values in figures.items() if not near(*values)}
    if exact or far:
        wrong = [*exact, *(f"{name} is {here:g}, committed as {there:g}" for name, (there, here) in far.items())]
        raise StepError(
            f"a rerun gives something else than the commit has: {'; '.join(wrong)}. Either a stage depends on more "
            "than dvc.yaml says (time, order, a seed), or the commit was made on something else: `make repro` and "
            "commit dvc.lock and reports"
        )
    return Reproduction(differs, figures)


def locked(root: Path) -> dict[str, str]:
    """Output -> hash, as dvc.lock has them."""
    document = yaml.safe_load((root / "dvc.lock").read_text())
    return {out["path"]: str(out.get("md5")) for stage in document["stages"].values() for out in stage.get("outs", ())}


def metrics_since(root: Path, revision: str) -> dict[str, dict[str, Any]]:
    """`dvc metrics diff --json`: file -> metric -> {old, new, diff}, of those that changed; {} where there are none.

    Raises StepError when git has no such revision.
    """
    done = dvc(root, "metrics", "diff", "--json", revision)
    if done.returncode != 0:
        raise StepError(f"dvc metrics diff {revision}: {one_line(done.stderr)}")
    found: dict[str, dict[str, Any]] = json.loads(done.stdout or "{}")
    return found


def plots_since(root: Path, revision: str | None) -> dict[str, Any]:
    """`dvc plots diff --json`, with the revision's curves where its outputs can be had; others are left out."""
    done = dvc(root, "plots", "diff", "--json", *([revision] if revision else []))
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise StepError(f"dvc plots diff: {_error_in(done)}") from None
    return found


def moved(difference: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, tuple[float, float]]:
    """Metric -> (before, now), of numbers that both have and that differ; one that only one has counts as infinite."""
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
    """Whether they differ by no more than arithmetic."""
    return math.isclose(one, other, rel_tol=TOLERANCE)
