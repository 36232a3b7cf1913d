"""The file of the service's API keys as deployments know it: names and hashes (service/access/keys.py reads it)."""

from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from infra.errors import SettingsError

FILE_NAME = "keys.json"
"""The file's name where it is mounted."""
STRICT = ConfigDict(extra="forbid", strict=True)


class _Entry(BaseModel):
    model_config = STRICT

    name: Annotated[str, Field(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\z")]
    sha256: Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
    expires: AwareDatetime | None = None
    per_second: Annotated[float, Field(gt=0, le=1e6)] | None = None
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class _Document(BaseModel):
    model_config = STRICT

    keys: Annotated[list[_Entry], Field(max_length=1000)]


def read_api_keys(path: Path) -> str:
    """The file's content, which the service can use.

    Raises SettingsError when it can't: pods that start with such a file would fail, long after it was deployed.
    """
    try:
        content = path.read_text()
        entries = _Document.model_validate_json(content).keys
    except OSError as error:
        remedy = f"`atlas key new NAME --file {path}` makes it" if isinstance(error, FileNotFoundError) else "read it"
        raise SettingsError(f"apiKeysFile: {path}: {error.strerror}: {remedy}") from None
    except ValueError as error:
        found = error.errors()[0] if isinstance(error, ValidationError) else None
        place = ".".join(map(str, found["loc"])) if found else ""
        raise SettingsError(f"apiKeysFile: {path}: {place}: {found['msg'] if found else error}") from None
    hashes = [entry.sha256 for entry in entries]
    for number, entry in enumerate(entries):
        if hashes.index(entry.sha256) != number:
            raise SettingsError(f"apiKeysFile: {path}: keys.{number}, {entry.name}: another entry has the same hash")
        if entry.burst is not None and entry.per_second is None:
            raise SettingsError(f"apiKeysFile: {path}: keys.{number}, {entry.name}: burst needs per_second")
    return content
