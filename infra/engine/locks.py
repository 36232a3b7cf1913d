"""What a run that was killed leaves in a stack's state: its lock, and operations whose end nobody noted."""

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import psutil
from pulumi import automation as auto

from infra.errors import LockedError
from infra.names import STATE_LOCKS, STATE_STACKS

NAMED: Mapping[str, tuple[str, ...]] = {
    "aws:cloudwatch/logGroup:LogGroup": ("name",),
    "aws:ecr/repository:Repository": ("name",),
    "aws:eks/addon:Addon": ("clusterName", "addonName"),
    "aws:eks/cluster:Cluster": ("name",),
    "aws:eks/nodeGroup:NodeGroup": ("clusterName", "nodeGroupName"),
    "aws:iam/instanceProfile:InstanceProfile": ("name",),
    "aws:iam/role:Role": ("name",),
    "aws:kms/alias:Alias": ("name",),
    "aws:s3/bucket:Bucket": ("bucket",),
}
"""Kinds whose id is made of inputs, joined by colons (the AWS provider's import documentation)."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the backend."""

    text: str
    delete: Callable[[], object]


def release_dead_locks(stack: str, backend: str) -> list[str]:
    """Remove locks of runs on this machine that were killed, as `pulumi cancel` would; a line for each.

    `backend`: file://… or s3://…; on others the engine's own words must do.
    Raises LockedError when the run that holds one is alive, or on another machine.
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
                f"a run on {host} (process {pid}, of {who}, since {when}) holds the stack: wait for it; when it was "
                f"killed, `PULUMI_BACKEND_URL='{backend}' pulumi cancel --stack {stack}` releases it"
            )
        if _is_engine(pid):
            raise LockedError(
                f"another run (process {pid}, of {who}, since {when}) is at work on the stack: wait for it, or end it"
            )
        file.delete()
        told.append(f"An earlier run (process {pid}) was killed; its lock is released and the run is taken up again.")
    return told


def unfinished(stack: str, backend: str) -> list[str]:
    """What a killed run was doing to whom, a line for each; the engine goes on, but can't know how that ended."""
    told = []
    for file in _files(backend, f"{STATE_STACKS}/{stack}.json"):
        try:
            latest: dict[str, Any] = json.loads(file.text)["checkpoint"].get("latest") or {}
        except (ValueError, KeyError, AttributeError):
            continue
        # Only creations: an update or a delete is on a thing that is noted, and the next run repeats it.
        names = sorted(
            str(operation["resource"]["urn"]).rsplit("::", 1)[-1]
            for operation in latest.get("pending_operations") or []
            if operation.get("type") == "creating"
        )
        if names:
            told += [
                f"An earlier run was killed while it made {', '.join(names)}: whether that came to be, nobody noted.",
                "  `up` and `destroy` look for what has a name of its own. Of the rest `up` makes another; if there is "
                f"a first, `aws resourcegroupstaggingapi get-resources --tag-filters Key=stack,Values={stack}` lists "
                f"it (delete it there), and so does `atlas destroy --stack {stack}` in the end.",
            ]
    return told


def take_up(stack: auto.Stack, say: Callable[[str], None]) -> None:
    """Look whether what a killed run was making is there, and note it if it is; else `up` would meet its own things.

    That needs their ids: those that are names are in what was asked for, names that the engine makes up included.
    Of others (networks, addresses) `unfinished` has told; the engine's import and refresh forget that they were begun.
    """
    before = stack.export_stack()
    deployment = before.deployment or {}
    noted = {resource["urn"] for resource in deployment.get("resources") or []}
    found = []
    for operation in deployment.get("pending_operations") or []:
        made = operation["resource"]
        identifier = _id(made["type"], made.get("inputs") or {}) if operation["type"] == "creating" else None
        if identifier is not None and made["urn"] not in noted:
            found.append({**made, "id": identifier})
    if not found:
        return
    say(f"  looking whether it made {', '.join(sorted(made['urn'].rsplit('::', 1)[-1] for made in found))}")
    after = {**deployment, "resources": [*deployment["resources"], *found], "pending_operations": []}
    try:
        stack.import_stack(auto.Deployment(version=before.version, deployment=after))
        # What isn't there is dropped again.
        stack.refresh(target=[made["urn"] for made in found], suppress_outputs=True, color="never")
    except (auto.CommandError, KeyboardInterrupt):
        stack.import_stack(before)
        raise


def _id(kind: str, inputs: dict[str, Any]) -> str | None:
    """The id that such a thing has once it is made, where that is its name; None otherwise."""
    if kind.startswith("kubernetes:"):
        metadata = inputs.get("metadata") or {}
        parts = [metadata.get("namespace"), metadata.get("name")]
        return "/".join(str(part) for part in parts if part) or None
    parts = [inputs.get(key) for key in NAMED.get(kind, ())]
    return ":".join(map(str, parts)) if parts and all(isinstance(part, str) for part in parts) else None


def _mend(backend: str) -> None:
    """Remove what an engine that was killed left empty beside its files: content types, which nobody needs.

    The engine replaces its files whole but not these (gocloud.dev's fileblob, setAttrs), and then refuses the state:
    "failed to load checkpoint: EOF".
    """
    url = urlsplit(backend)
    if url.scheme == "file":
        for path in (Path(unquote(url.path)) / ".pulumi").rglob("*.attrs"):
            if path.stat().st_size == 0:
                path.unlink(missing_ok=True)


def _files(backend: str, prefix: str) -> Iterator[_File]:
    """Files of the backend: one, or all in a folder (whose name ends in /)."""
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
    # Here, as local stacks shall not wait for boto3's import.
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
        return  # the engine meets the same, and tells it


def _is_engine(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        # One that was killed stays a zombie until its parent looks.
        return "pulumi" in process.name() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
