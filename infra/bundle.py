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
