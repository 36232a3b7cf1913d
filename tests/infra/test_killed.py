"""The engine killed in the middle of `up` and `destroy`: the next run says what it found, and completes."""

import json
import os
import socket
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from infra.engine.locks import release_dead_locks, unfinished
from infra.engine.unrecorded import Find, Found, take_up
from infra.errors import LockedError
from infra.leftovers.unrecorded import OTHERS, TAGGED
from infra.program import program
from tests.infra.recording.run import Life
from tests.infra.support.aws import BASE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # The SDK says so of an engine that was killed, in a thread of its own.
    pytest.mark.filterwarnings("ignore:Error in event stream"),
]


class Killer:
    """Kills the engine (SIGKILL) right after the world has done something, before the engine can note it."""

    def __init__(self, made: Life, operation: str, every: int) -> None:
        self.operation, self.every = operation, every
        self.met: set[str] = set()
        self.hits = 0
        self.lock = threading.Lock()
        made.world.after = self

    def __call__(self, operation: str, urn: str) -> None:
        """At the first time of every so many-th thing; what is done beside it in that moment has its turn later."""
        with self.lock:
            engines = [process for process in psutil.Process().children() if _engine_runs(process)]
            if operation != self.operation or urn in self.met or not engines:
                return
            self.met.add(urn)
            if len(self.met) % self.every == 0:
                self.hits += 1
                for process in engines:
                    process.kill()  # not waited for here: the SDK wants its exit status


def _engine_runs(process: psutil.Process) -> bool:
    try:
        return process.name() == "pulumi" and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def recovered(made: Life) -> str:
    """What `atlas` does before its next run; what it says."""
    backend = (made.folder / "state").as_uri()
    said = [*release_dead_locks("dev", backend), *unfinished("dev", backend)]
    take_up(made.stack, made.stack.export_stack(), said.append, looked_for(made))
    return "\n".join(said)


def looked_for(made: Life) -> Find:
    """Looks in the recorded world, as infra/leftovers/unrecorded.py looks in AWS (test_unrecorded.py has that)."""

    def find(kind: str, inputs: Mapping[str, Any], known: Collection[str]) -> Found | None:
        if kind not in TAGGED and kind not in OTHERS:
            return None
        found = [call.id for call in made.world.of(kind) if call.inputs == inputs and call.id not in known]
        return (found[0], inputs if kind in OTHERS else {}) if len(found) == 1 else None

    return find


AGAIN = (
    # AWS overwrites or adopts these, and Atlas's own values are drawn again: `up` makes them without a conflict.
    "aws:ec2/defaultSecurityGroup:", "aws:ec2/volumeAttachment:", "aws:ecr/lifecyclePolicy:",
    "aws:eks/accessPolicyAssociation:",
    "aws:iam/rolePolicy:", "aws:iam/rolePolicyAttachment:", "aws:s3/bucketLifecycle", "aws:s3/bucketObjectv2:",
    "aws:s3/bucketOwnership", "aws:s3/bucketPolicy:", "aws:s3/bucketPublic", "aws:s3/bucketServerSide",
    "aws:s3/bucketVersioning:", "aws:secretsmanager/secretVersion:", "aws:sns/topic:", "aws:sns/topicSubscription:",
    "random:",
)  # fmt: skip
"""Prefixes of types."""


def not_taken_up(made: Life) -> list[str]:
    """Names of what exists, isn't in the state, and would be in the way of the next `up`; the rest vanishes."""
    noted = {f"{resource['type']} {resource.get('id')}" for resource in made.state()}
    left = [call for call in made.world.existing().values() if call.key not in noted]
    for call in left:
        if call.token.startswith(AGAIN):
            made.world.vanish(call)
    return sorted(call.name for call in left if not call.token.startswith(AGAIN))


def test_engine_killed_again_and_again_loses_sight_of_nothing(tmp_path: Path) -> None:
    """Killed once at every so many-th thing; with ATLAS_KILL_EVERY=1 at each, which takes a quarter of an hour."""
    every = int(os.environ.get("ATLAS_KILL_EVERY", "16"))
    made = Life(tmp_path, program, BASE, checkpoints=True)
    killer = Killer(made, "create", every)
    while (done := made.up()).failed:
        assert killer.hits < 150, done.errors
        said = recovered(made)
        assert "was killed; its lock is released" in said
        assert not_taken_up(made) == []
    ups = killer.hits
    assert ups >= len(made.world.existing()) // every // 2
    assert made.drift() == []
    assert made.preview().steps == {}

    killer = Killer(made, "delete", every)
    while (gone := made.destroy()).failed:
        assert killer.hits < 150, gone.errors
        assert "was killed; its lock is released" in recovered(made)
    assert killer.hits >= ups // 2
    assert made.world.existing() == {}
    print(f"killed {ups} times in up, {killer.hits} times in destroy")  # with pytest -s


def _locked(folder: Path, **changed: object) -> Path:
    place = folder / ".pulumi/locks/organization/atlas/dev"
    place.mkdir(parents=True)
    lock = {"pid": 1, "username": "ada", "hostname": socket.gethostname(), "timestamp": "2026-01-02T03:04:05Z"}
    (place / "a.json").write_text(json.dumps(lock | changed))
    return place / "a.json"


def test_lock_of_another_machine_is_told_with_who_and_since_when_and_stays(tmp_path: Path) -> None:
    lock = _locked(tmp_path, hostname="elsewhere")
    with pytest.raises(
        LockedError, match=r"on elsewhere .process 1, of ada, since 2026-01-02.*pulumi cancel --stack dev"
    ):
        release_dead_locks("dev", tmp_path.as_uri())
    assert lock.exists()


def test_lock_of_a_dead_run_on_this_machine_is_released(tmp_path: Path) -> None:
    lock = _locked(tmp_path)  # process 1 is no engine
    assert "was killed" in release_dead_locks("dev", tmp_path.as_uri())[0]
    assert not lock.exists()
    assert release_dead_locks("dev", tmp_path.as_uri()) == []


def test_locks_in_a_bucket_are_looked_at_too(moto: str) -> None:
    client = boto3.client("s3")
    client.create_bucket(Bucket="state")
    key = ".pulumi/locks/organization/atlas/dev/a.json"
    lock = {"pid": 1, "username": "ada", "hostname": socket.gethostname(), "timestamp": "2026-01-02T03:04:05Z"}

    def put(**changed: object) -> None:
        client.put_object(Bucket="state", Key=key, Body=json.dumps(lock | changed))

    put(hostname="elsewhere")
    with pytest.raises(LockedError, match=r"on elsewhere .process 1, of ada, since 2026-01-02"):
        release_dead_locks("dev", "s3://state?region=us-east-1")
    assert client.list_objects_v2(Bucket="state")["KeyCount"] == 1
    put(pid=os.getpid())  # alive, but no engine: somebody has its number now
    assert "was killed" in release_dead_locks("dev", "s3://state?region=us-east-1")[0]
    assert client.list_objects_v2(Bucket="state")["KeyCount"] == 0
    # Another stack's lock is none of this one's.
    client.put_object(Bucket="state", Key=key.replace("/dev/", "/prod/"), Body=json.dumps(lock))
    assert release_dead_locks("dev", "s3://state?region=us-east-1") == []


def test_file_that_a_kill_left_empty_beside_the_state_is_removed(tmp_path: Path) -> None:
    empty, whole = (tmp_path / ".pulumi/stacks/atlas" / f"{name}.json.attrs" for name in ("dev", "prod"))
    empty.parent.mkdir(parents=True)
    empty.touch()
    whole.write_text("{}")
    release_dead_locks("dev", tmp_path.as_uri())
    assert (empty.exists(), whole.exists()) == (False, True)
