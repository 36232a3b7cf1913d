"""Stage 6: the gate. If the candidate passes, it becomes models/bundle and the registry's champion.

This stage runs on every `dvc repro`, because a new tracking store must get its champion even if nothing else changed.
To be fast, it first checks with a few small files whether there is anything to do, before it imports large packages.
"""

import hashlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from ml.bundle import CARD, BundleError, Parts, read_manifest, read_parts, replace_directory
from ml.files import BUNDLE, CANDIDATE, GATE_REPORT, PROCESSED
from ml.logs import stage_logger
from ml.params import Params, ParamsError, load_params
from ml.schema import SchemaError
from ml.tracking import has_champion, register
from ml.tracking_server import (
    Alias,
    TrackingError,
    in_throwaway_folder,
    probe,
    still_there,
    store,
    tags_under,
    tracking_uri,
)

if TYPE_CHECKING:
    from ml.gate import Verdict

MARKER = "registered.json"
"""In the embedded store: what the last run of this stage registered."""

Incumbent = tuple[str, Parts] | Literal["none", "unreadable"]


def base_revision(base: str) -> str | None:
    """The commit of the incumbent: origin's base branch, else the local base branch, else HEAD; None outside git."""
    for name in (f"refs/remotes/origin/{base}", f"refs/heads/{base}", "HEAD"):
        found = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", name], capture_output=True, text=True, check=False
        )
        if found.returncode == 0:
            return found.stdout.strip()
    return None


def locked_hash(lock: str, path: str) -> str | None:
    """DVC's hash of the output at `path`, from the text of a dvc.lock."""
    stages: dict[str, Any] = (yaml.safe_load(lock) or {}).get("stages", {})
    for stage in stages.values():
        for out in stage.get("outs", []):
            if out["path"] == path:
                return str(out["md5"])
    return None


def read_incumbent(base: str, folder: Path, log: logging.Logger) -> Incumbent:
    """The base branch's bundle, fetched from DVC's cache or remote into `folder`."""
    revision = base_revision(base)
    lock = None
    if revision is not None:
        shown = subprocess.run(["git", "show", f"{revision}:dvc.lock"], capture_output=True, text=True, check=False)
        lock = shown.stdout if shown.returncode == 0 else None
    if lock is None or locked_hash(lock, str(BUNDLE)) is None:
        return "none"
    from dvc.api import DVCFileSystem

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    try:
        DVCFileSystem(rev=revision).get(str(BUNDLE), str(folder), recursive=True)
        return read_parts(folder)
    except Exception as error:  # a missing object, remote or credential; each raises another class
        reason = " ".join(str(error).split()) or type(error).__name__
        log.warning("the incumbent (models/bundle of %s) can't be read: %s", (revision or "")[:12], reason[:300])
        return "unreadable"


def unchanged(params: Params, log: logging.Logger) -> bool:
    """Whether the last run of this stage registered this candidate, and the store still has it."""
    try:
        marker = json.loads((store() / MARKER).read_text())
        run_id = marker.pop("run")
        if marker != _marker(params):
            return False
        candidate = marker["candidate"]
        alias: Alias = "champion" if candidate == marker["bundle"] else "challenger"
        return still_there(params.registry.model, alias, candidate, run_id, log)
    except (OSError, ValueError, KeyError, BundleError):
        return False


def _marker(params: Params) -> dict[str, Any]:
    served, candidate = read_manifest(BUNDLE), read_manifest(CANDIDATE)
    return {
        # A hash, because the address of a database may contain a password.
        "store": hashlib.sha256(tracking_uri()[0].encode()).hexdigest(),
        "candidate": candidate.version,
        "bundle": served.version,
        # The version leaves out the card, which shows how the test rows and the evaluation's params changed.
        "cards": [manifest.files.get(CARD) for manifest in (candidate, served)],
        "base": base_revision(params.gate.base) if candidate.version != served.version else "",
        # What the gate reads besides the bundles and the test rows.
        "seed": params.seed,
        "time": params.data.time,
        "evaluation": params.evaluation.model_dump(mode="json"),
        "gate": params.gate.model_dump(mode="json"),
        "registry": params.registry.model_dump(mode="json"),
    }


def promote(candidate: Path, served: Path) -> None:
    """Copy the candidate to the bundle that is served and deployed; readers see the old or the new bundle."""
    served.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{served.name}-", dir=served.parent))
    try:
        shutil.copytree(candidate, fresh, dirs_exist_ok=True)
        replace_directory(fresh, served)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def run(params: Params, log: logging.Logger) -> int:
    """Judge the candidate, promote it or keep the incumbent, register; returns the exit status."""
    from ml.gate import Verdict, judge
    from ml.tables import read_parquet

    version, parts = read_parts(CANDIDATE)
    with tempfile.TemporaryDirectory() as folder:
        if _same_as_base(params.gate.base):
            verdict = Verdict(decision="same", candidate=version, incumbent=version)
            incumbent: Incumbent = (version, parts)
        else:
            incumbent = read_incumbent(params.gate.base, Path(folder, "incumbent"), log)
            verdict = judge((version, parts), incumbent, read_parquet(PROCESSED / "test.parquet"), params)
        GATE_REPORT.parent.mkdir(parents=True, exist_ok=True)
        GATE_REPORT.write_text(verdict.model_dump_json(indent=1) + "\n")
        if verdict.decision != "challenger":
            promote(CANDIDATE, BUNDLE)
        elif isinstance(incumbent, tuple) and _version_at(BUNDLE) != incumbent[0]:
            promote(Path(folder, "incumbent"), BUNDLE)
    log.info("gate: %s %s (incumbent: %s)", verdict.decision, version[:12], verdict.incumbent[:12])
    for reason in verdict.reasons:
        log.warning("gate: %s", reason)
    if verdict.incumbent == "unreadable":
        log.warning("gate: promoted without a comparison, because the incumbent can't be read")
    if verdict.accepted:
        log.warning("gate: %s is served all the same, because params.yaml says so (gate.accept)", version[:12])
    if verdict.decision == "challenger" and not BUNDLE.exists():
        instead = "the incumbent can't be read" if verdict.incumbent == "unreadable" else "there is no incumbent"
        print(
            f"register_model: the candidate did not pass the gate and {instead}, so there is no bundle to serve: "
            "improve the model, change gate.minimum and gate.maximum in params.yaml, or serve it all the same with "
            f"gate.accept: {version[:12]}",
            file=sys.stderr,
        )
        return 1
    return _register((version, parts), verdict, incumbent, params, log)


def _register(
    candidate: tuple[str, Parts], verdict: "Verdict", incumbent: Incumbent, params: Params, log: logging.Logger
) -> int:
    version, parts = candidate
    decision = verdict.decision
    of_base = incumbent[0] if isinstance(incumbent, tuple) else incumbent
    # A queued or temporary experiment changes models/bundle in a folder that DVC deletes. If it passes the gate, it
    # becomes champion by `dvc exp apply` and `dvc repro`.
    tried = decision == "champion" and in_throwaway_folder()
    alias: Alias = "challenger" if decision == "challenger" or tried else "champion"
    try:
        server = probe(log)
        if server.registry and server.uri.startswith("http"):
            tags = tags_under(server, params.registry.model, "champion")
            registered = tags.get("bundle_version")
            if registered is not None and registered not in (version, of_base):
                log.warning(
                    "the registry's champion is %s, but the base branch's bundle is %s; the latter counts",
                    registered[:12],
                    of_base[:12],
                )
            same_card = tags.get("card") == read_manifest(CANDIDATE).files[CARD]
            if alias == "champion" and registered == version and same_card:
                log.info("%s is already champion in the registry", version[:12])
                _remember(params, "")
                return 0
        run_id = register(server, CANDIDATE, version, parts, alias, params, accepted=verdict.accepted)
        if decision == "challenger" and isinstance(incumbent, tuple) and server.registry and not has_champion(params):
            register(server, BUNDLE, *incumbent, "champion", params, made_here=False)
    except TrackingError as error:
        done = "models/bundle is updated" if decision != "challenger" else "models/bundle is unchanged"
        print(
            f"register_model: {error}; {done}, only the registration is missing: run `dvc repro` again", file=sys.stderr
        )
        return 1
    log.info("run %s in %s, %s of %s", run_id, server.shown, alias, params.registry.model)
    if tried:
        log.info("it passed the gate: `dvc exp apply` and `dvc repro` make it champion")
    _remember(params, run_id)
    return 0


def _remember(params: Params, run_id: str) -> None:
    if in_throwaway_folder():
        return
    store().mkdir(parents=True, exist_ok=True)
    (store() / MARKER).write_text(json.dumps(_marker(params) | {"run": run_id}))


def _same_as_base(base: str) -> bool:
    """Whether the candidate has the same DVC hash as the base branch's bundle; doesn't read the bundles' files."""
    revision = base_revision(base)
    if revision is None:
        return False
    shown = subprocess.run(["git", "show", f"{revision}:dvc.lock"], capture_output=True, text=True, check=False)
    try:
        mine = locked_hash(Path("dvc.lock").read_text(), str(CANDIDATE))
    except FileNotFoundError:
        return False
    return shown.returncode == 0 and mine is not None and mine == locked_hash(shown.stdout, str(BUNDLE))


def _version_at(path: Path) -> str | None:
    try:
        return read_manifest(path).version
    except BundleError:
        return None


def main() -> int:
    log = stage_logger("register_model")
    try:
        params = load_params(check_estimators=False)  # the earlier stages did
        if unchanged(params, log):
            served, candidate = read_manifest(BUNDLE).version, read_manifest(CANDIDATE).version
            refused = "" if served == candidate else f"; the candidate {candidate[:12]} was refused ({GATE_REPORT})"
            log.info("nothing changed: %s is served%s", served[:12], refused)
            return 0
        return run(params, log)
    except (ParamsError, SchemaError, BundleError, TrackingError, FileNotFoundError) as error:
        print(f"register_model: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
