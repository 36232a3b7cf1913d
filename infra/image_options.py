"""`python -m infra.image_options`: how the image of a bundle is built, as options of `docker buildx build`."""

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from infra.bundle import bundle_manifest, has_views
from infra.errors import SettingsError, one_line


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """The Dockerfile's target for a bundle, and the arguments that the target needs."""

    target: Literal["slim", "full", "features"]
    arguments: dict[str, str]


def image_options(repository: Path, bundle: Path) -> ImageOptions:
    """The options for a bundle; one with feature views also gets the materialiser, and `data` of params.yaml.

    Raises SettingsError with the remedy when there is no bundle, or params.yaml can't be read.
    """
    manifest = bundle_manifest(bundle)
    # The slim image can't run a model that wasn't compiled (ml/bundle.py).
    runtime: Literal["slim", "full"] = "full" if manifest.get("runtime") == "sklearn" else "slim"
    arguments = {"BUNDLE_VERSION": manifest["version"]}
    if not has_views(manifest):
        return ImageOptions(runtime, arguments)
    # As an argument and not as a file, so that the image changes with this section, and with no other.
    section = json.dumps(data_section(repository), sort_keys=True, ensure_ascii=False, default=str)
    return ImageOptions("features", {**arguments, "RUNTIME": runtime, "DATA_PARAMS": section})


def data_section(repository: Path) -> dict[str, Any]:
    """The section `data` of params.yaml; raises SettingsError when it can't be read."""
    path = repository / "params.yaml"
    try:
        section = yaml.safe_load(path.read_text())["data"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise SettingsError(f"{path} has no readable section `data` ({one_line(error)})") from None
    if not isinstance(section, dict):
        raise SettingsError(f"{path}: `data` must have keys")
    return section


def check_views(repository: Path) -> None:
    """Refuse files of views that no pod can read; relative paths are looked for in the stack's bucket.

    Raises SettingsError, a line for each.
    """
    views = data_section(repository).get("views") or {}
    told = [
        f"data.views.{name}.uri in params.yaml is {uri}, which the materialiser's pod can't read: {remedy}"
        for name, view in views.items()
        if (remedy := _unreachable(uri := str(view.get("uri"))))
    ]
    if told:
        raise SettingsError("\n".join(told))


def _unreachable(uri: str) -> str | None:
    """The remedy for an address that no pod can read; None if it can."""
    scheme, found, _ = uri.partition("://")
    if found:
        return None if scheme in ("s3", "https") else "use an s3:// or https:// address"
    path = Path(uri)
    if path.is_absolute() or ".." in path.parts:
        return (
            "use an s3:// or https:// address, or a path inside the repository, which is looked for in the stack's "
            "bucket; or set atlas:featureStore: false"
        )
    return None


def main() -> None:
    """Print the options for models/bundle, quoted for a shell."""
    try:
        options = image_options(Path(), Path("models/bundle"))
    except SettingsError as error:
        sys.exit(str(error))
    arguments = [part for pair in options.arguments.items() for part in ("--build-arg", "=".join(pair))]
    print(shlex.join(["--target", options.target, *arguments]))


if __name__ == "__main__":
    main()
