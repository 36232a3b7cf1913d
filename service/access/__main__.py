"""`python -m service.access new|list|remove`, which `atlas key` runs: makes API keys and keeps their file."""

import argparse
import os
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from service.access.keys import Document, Entry, KeysError, hashed, new_token, parse_entries, read_file

UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, or 1 after one line that says what is wrong."""
    parser = argparse.ArgumentParser(prog="atlas key")
    parser.add_argument("--file", type=Path, required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("new")
    new.add_argument("name")
    new.add_argument("--expires")
    new.add_argument("--per-second", type=float)
    new.add_argument("--burst", type=int)
    new.add_argument("--retire")
    commands.add_parser("list")
    remove = commands.add_parser("remove")
    remove.add_argument("name")
    remove.add_argument("--hash", default="")
    given = parser.parse_args(arguments)
    try:
        {"new": _new, "list": _list, "remove": _remove}[given.command](given)
    except KeysError as error:
        print(f"atlas key: {given.file}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"atlas key: {given.file}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _new(given: argparse.Namespace) -> None:
    """Print a new key, the only time; the file gets its hash."""
    entries = parse_entries(read_file(given.file)) if given.file.exists() else []
    if given.retire is not None:
        until = _moment(given.retire)
        entries = [
            msgspec.structs.replace(entry, expires=min(filter(None, (entry.expires, until))))
            if entry.name == given.name
            else entry
            for entry in entries
        ]
    token = new_token()
    expires = None if given.expires is None else _moment(given.expires)
    per_second, burst = given.per_second, given.burst
    for entry in entries:
        if entry.name == given.name and given.per_second is None:  # a rotation keeps the limit
            per_second, burst = entry.per_second, given.burst or entry.burst
    _write(given.file, [*entries, Entry(given.name, hashed(token), expires, per_second, burst)])
    print(f"the key of {given.name}; it can't be shown again, because the file contains only its hash", file=sys.stderr)
    print(token)


def _list(given: argparse.Namespace) -> None:
    """Print the names with the beginnings of the hashes, by which `remove` tells keys of the same name apart."""
    now = datetime.now(UTC)
    for entry in parse_entries(read_file(given.file)):
        if entry.expires is None:
            validity = "does not expire"
        else:
            moment = entry.expires.astimezone(UTC).isoformat(timespec="minutes").replace("+00:00", "Z")
            validity = f"{'expired' if entry.expires <= now else 'expires'} {moment}"
        limit = "" if entry.per_second is None else f", {entry.per_second:g} requests per second"
        burst = "" if entry.burst is None else f", {entry.burst} at once"
        print(f"{entry.name}  {entry.sha256[:12]}  {validity}{limit}{burst}")


def _remove(given: argparse.Namespace) -> None:
    """Remove the keys of that name, or the one whose hash begins so."""
    entries = parse_entries(read_file(given.file))
    kept = [entry for entry in entries if entry.name != given.name or not entry.sha256.startswith(given.hash)]
    if len(kept) == len(entries):
        raise KeysError(f"there is no such key of {given.name}: `atlas key list` shows those that there are")
    _write(given.file, kept)
    print(f"removed {len(entries) - len(kept)}, {len(kept)} left", file=sys.stderr)


def _moment(text: str) -> datetime:
    """A date (its end, in UTC), or a time from now, such as 90d, 12h or 30m."""
    try:
        if text[-1:] in UNITS:
            return (datetime.now(UTC) + int(text[:-1]) * UNITS[text[-1]]).replace(microsecond=0)
        return datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        raise KeysError(f"{text!r} is neither a date such as 2027-01-31 nor a time from now such as 90d") from None


def _write(path: Path, entries: list[Entry]) -> None:
    """Replace the file at once, so that a service never reads half of it."""
    content = msgspec.json.format(msgspec.json.encode(Document(entries)), indent=2) + b"\n"
    parse_entries(content)  # what was given on the command line is checked as a file is
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".keys-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    sys.exit(main())
