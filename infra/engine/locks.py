"""What a killed run leaves in a stack's state: its lock, and operations whose result wasn't recorded."""

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import psutil

from infra.errors import LockedError
from infra.names import STATE_LOCKS, STATE_STACKS


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the backend."""

    text: str
    delete: Callable[[], object]


def release_dead_locks(stack: str, backend: str) -> list[str]:
    """Remove the locks of killed runs on this machine, as `pulumi cancel` would; returns a line for each.

    `backend`: file://… or s3://…; with other backends the engine itself reports a lock.
    Raises LockedError when a run that holds a lock is alive, or is on another machine.
    """
    _mend(backend)
    told = []
    for file in _files(backend, f"{STATE_LOCKS}/{stack}/"):
        try:
            lock = json.loads(file.text)
            pid, host, when = int(lock["pid"]), str(lock["hostname"]), str(lock["timestamp"])
            who = str(lock.get("username", "somebody"))
        except (ValueError, KeyError, TypeError):
            continue
        if host != socket.gethostname():
            raise LockedError(
                f"a run on {host} (process {pid}, of {who}, since {when}) holds the stack's lock: wait until it ends; "
                f"if it was killed, `PULUMI_BACKEND_URL='{backend}' pulumi cancel --stack {stack}` releases the lock"
            )
        if _is_engine(pid):
            raise LockedError(
                f"another run (process {pid}, of {who}, since {when}) holds the stack's lock: wait until it ends, "
                "or stop it"
            )
        file.delete()
        told.append(f"An earlier run (process {pid}) was killed; its lock is released, and this run continues.")
    return told


def unfinished(stack: str, backend: str) -> list[str]:
    """Lines about resources that a killed run was creating; the engine continues, but can't know whether they exist."""
    told = []
    for file in _files(backend, f"{STATE_STACKS}/{stack}.json"):
        try:
            latest: dict[str, Any] = json.loads(file.text)["checkpoint"].get("latest") or {}
        except (ValueError, KeyError, AttributeError):
            continue
        # Only creations: an update or a delete concerns a resource in the state, and the next run repeats it.
        names = sorted(
            str(operation["resource"]["urn"]).rsplit("::", 1)[-1]
            for operation in latest.get("pending_operations") or []
            if operation.get("type") == "creating"
        )
        if names:
            told += [
                f"An earlier run was killed while it created {', '.join(names)}: whether they exist isn't recorded.",
                "  `up` and `destroy` look for them by their names and tags, and adopt those that exist.",
            ]
    return told


def _mend(backend: str) -> None:
    """Remove empty `.attrs` files that a killed engine left beside its own; they hold content types, which aren't used.

    The engine writes its own files atomically but not these (gocloud.dev's fileblob, setAttrs), and then can't read
    the state: "failed to load checkpoint: EOF".
    """
    url = urlsplit(backend)
    if url.scheme == "file":
        for path in (Path(unquote(url.path)) / ".pulumi").rglob("*.attrs"):
            if path.stat().st_size == 0:
                path.unlink(missing_ok=True)


def _files(backend: str, prefix: str) -> Iterator[_File]:
    """Files of the backend: a single file, or all files in a folder (whose name ends in /)."""
    url = urlsplit(backend)
    if url.scheme == "file":
        place = Path(unquote(url.path)) / prefix
        for path in sorted(place.glob("*.json")) if prefix.endswith("/") else [place]:
            try:
                yield _File(path.read_text(), lambda path=path: path.unlink(missing_ok=True))  # type: ignore[misc]
            except OSError:
                continue
    elif url.scheme == "s3":
        yield from _objects(url.netloc, f"{url.path.strip('/')}/{prefix}".lstrip("/"), parse_qs(url.query))


def _objects(bucket: str, prefix: str, query: dict[str, list[str]]) -> Iterator[_File]:
    # Imported here, because local stacks don't need boto3, whose import is slow.
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client = boto3.client("s3", region_name=query.get("region", [None])[0])
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for found in page.get("Contents", []):
                key = found["Key"]
                if prefix.endswith("/") or key == prefix:
                    text = client.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
                    yield _File(text, lambda key=key: client.delete_object(Bucket=bucket, Key=key))  # type: ignore[misc]
    except (BotoCoreError, ClientError):
        return  # the engine gets the same error, and reports it


def _is_engine(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        # A killed process stays a zombie until its parent waits for it.
        return "pulumi" in process.name() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
