"""API keys: a file with the names and hashes of keys, which is read again while the service runs.

The file contains SHA-256 hashes, without salt and without a slow hash function. That is right for these keys alone: a
key is 256 random bits, so nobody can guess it, neither with a table nor in a lifetime of trying. A password is no such
secret; that is why only keys in the form that `new_token` makes are accepted.
"""

import hmac
import logging
import math
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from service.access.limits import Limit
from service.settings import Settings

LOG = logging.getLogger("service")
PREFIX = "atlas_"
"""The beginning of every key, by which people and secret scanners recognise it."""
TOKEN = re.compile(PREFIX + r"[A-Za-z0-9_-]{43}")
MOST = 1000
"""Keys in a file. Names are labels of metrics, so their number must be bounded."""
LARGEST = 1024 * 1024
"""Bytes of a file."""
AGE = 1.0
"""Seconds after which the file is read again, when a request arrives."""


class KeysError(ValueError):
    """A key file that can't be used; the message names the file and the reason."""


class Entry(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A key in the file. Several keys may have the same name: while a caller changes its key, both are valid."""

    name: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")]
    """The caller, as logs and metrics name it."""
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    expires: Annotated[datetime, Meta(tz=True)] | None = None
    per_second: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    """Requests per second, in the long run; a limit of all keys of that name together."""
    burst: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Requests at once after a pause; None: as many as in a second."""


class Document(Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    keys: Annotated[list[Entry], Meta(max_length=MOST)]


@dataclass(frozen=True, slots=True)
class Key:
    """A key that the service knows by its hash."""

    name: str
    digest: bytes
    expires: float = math.inf
    """Seconds since 1970."""
    limit: Limit | None = None


NOBODY = Key("", bytes(32))


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a file."""

    by_digest: dict[bytes, Key] = field(default_factory=dict)

    def find(self, token: str) -> Key | None:
        """The key, also if it has expired; None if nobody has it.

        Time tells nothing: who tries keys can't choose their hashes, so how long it takes to find a hash says nothing
        about the hashes in the file; and the only comparison of a whole hash takes the same time whatever it finds.
        """
        digest = sha256(token.encode()).digest()
        found = self.by_digest.get(digest, NOBODY)
        return found if hmac.compare_digest(found.digest, digest) else None


def usual_limit(settings: Settings) -> Limit | None:
    """The limit of keys whose entry has none."""
    return None if settings.api_key_per_second is None else Limit.of(settings.api_key_per_second)


def new_token() -> str:
    """A new key, of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def hashed(token: str) -> str:
    """What a file contains of a key."""
    return sha256(token.encode()).hexdigest()


def parse_entries(content: bytes) -> list[Entry]:
    """The entries of a file's content; raises KeysError with the place and the reason, never with a value."""
    try:
        entries = msgspec.json.decode(content, type=Document).keys
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise KeysError(str(error)) from None
    hashes: set[str] = set()
    for number, entry in enumerate(entries):
        if entry.sha256 in hashes:
            raise KeysError(f"keys[{number}], {entry.name}: another entry has the same hash")
        if entry.burst is not None and entry.per_second is None:
            raise KeysError(f"keys[{number}], {entry.name}: burst needs per_second")
        hashes.add(entry.sha256)
    return entries


def parse_keys(content: bytes, usual: Limit | None = None) -> Keys:
    """The keys of a file's content; those without a limit of their own get the `usual` one."""
    found = [
        Key(
            entry.name,
            bytes.fromhex(entry.sha256),
            math.inf if entry.expires is None else entry.expires.timestamp(),
            usual if entry.per_second is None else Limit.of(entry.per_second, entry.burst),
        )
        for entry in parse_entries(content)
    ]
    return Keys({key.digest: key for key in found})


def read_file(path: Path) -> bytes:
    """The content; raises KeysError when it can't be read."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise KeysError(error.strerror or str(error)) from None
    if len(content) > LARGEST:
        raise KeysError(f"it has more than {LARGEST} bytes")
    return content


class KeyFile:
    """The keys of a file as it is now. A file that can't be used leaves those in force that were there before.

    The whole file is read, because that costs no more than to ask for its state, and no change escapes: neither an
    exchanged symbolic link, as Kubernetes exchanges a mounted Secret, nor two changes in the same moment.
    """

    def __init__(self, path: Path, usual: Limit | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises KeysError when the file can't be used: a service doesn't start without its keys."""
        self._path, self._usual, self._clock = path, usual, clock
        self._lock = threading.Lock()
        try:
            self._content = read_file(path)
            self._keys = parse_keys(self._content, usual)
        except KeysError as error:
            raise KeysError(f"{path}: {error}") from None
        self._read_at = clock()
        self.broken: str | None = None
        """Why the file as it is now can't be used; None if it is in force."""
        self.logs = True
        """Whether this process writes log lines about changes; of several processes with the same file, one does."""
        self.watchers: list[Callable[[bool], None]] = []
        """Called after each look at the file with whether it can't be used."""

    def current(self) -> Keys:
        """The keys in force, at most AGE seconds old."""
        if self._clock() - self._read_at > AGE:
            with self._lock:  # whoever waits here waits for the file that another thread reads
                if self._clock() - self._read_at > AGE:
                    self.refresh()
        return self._keys

    def refresh(self) -> None:
        """Read the file again."""
        try:
            content = read_file(self._path)
            if content != self._content:
                self._keys, self._content = parse_keys(content, self._usual), content
                self._say(logging.INFO, "the API keys have changed", keys=len(self._keys.by_digest))
            elif self.broken is not None:
                self._say(logging.INFO, "the file of the API keys can be used again")
            self.broken = None
        except KeysError as error:
            if str(error) != self.broken:
                message = "the file of the API keys can't be used, the old keys stay in force"
                self._say(logging.ERROR, message, file=str(self._path), reason=str(error))
            self.broken = str(error)
        self._read_at = self._clock()
        for watcher in self.watchers:
            watcher(self.broken is not None)

    def _say(self, level: int, message: str, **fields: object) -> None:
        if self.logs:
            LOG.log(level, message, extra={"fields": fields})
