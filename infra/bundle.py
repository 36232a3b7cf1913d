"""The model bundle as deployments know it: a folder with a manifest (ml/bundle.py makes it)."""

import json
from pathlib import Path
from typing import Any

from infra.errors import SettingsError


def bundle_manifest(bundle: Path) -> dict[str, Any]:
    """The bundle's manifest, which has a version.

    Raises SettingsError with the remedy when there is none.
    """
    try:
        manifest: dict[str, Any] = json.loads((bundle / "bundle.json").read_text())
        return {**manifest, "version": str(manifest["version"])}
    except FileNotFoundError:
        raise SettingsError(
            f"no model bundle at {bundle}: make one with `make repro`, or fetch it with `dvc pull`"
        ) from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise SettingsError(f"{bundle}/bundle.json can't be read ({error}): run `make repro`") from None


def has_views(manifest: dict[str, Any]) -> bool:
    """Whether the bundle's model can look features up in a feature store."""
    return "views.json" in manifest.get("files", {})


def refusal(repository: Path, bundle: Path) -> list[str]:
    """Lines for a person: the gate refused the newest candidate, why, what is served instead; empty if it did not.

    `bundle`: the bundle that is deployed. Read from the gate's report (ml/register_model.py writes it).
    """
    try:
        report = json.loads((repository / "reports/gate.json").read_text())
        candidate = bundle_manifest(repository / "models/candidate")["version"]
        served = bundle_manifest(bundle)["version"]
        if report["decision"] != "challenger" or report["candidate"] != candidate or served == candidate:
            return []
        reasons = [f"  {reason}" for reason in report["reasons"]]
    except (OSError, ValueError, KeyError, TypeError, SettingsError):
        return []  # there is no report of this candidate, for example after `dvc pull`
    return [
        f"The gate refused the new model {candidate[:7]}, so {served[:7]} is still served:",
        *reasons,
        # In quotes: seven digits without a letter would be a number.
        f'To serve it all the same, set `accept: "{candidate[:7]}"` under `gate` in params.yaml, then `make up`.',
    ]
