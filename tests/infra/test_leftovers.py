"""What a stack leaves in an account is found, swept or named, and nobody else's is touched: moto over HTTP."""

import boto3
import pytest

from infra.leftovers.look import Found, look
from infra.leftovers.place import Place, place_of
from infra.leftovers.sweep import Swept, sweep
from infra.settings import AwsSettings, load_settings
from tests.infra.aws import BASE
from tests.infra.leftovers import Estate, client

CLUSTER = "flask-app-cluster"

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("moto")]


def settings(**changed: str) -> AwsSettings:
    made = load_settings({f"atlas:{key}": value for key, value in {**BASE, **changed}.items()})
    assert isinstance(made, AwsSettings)
    return made


def place(
    stack: str = "dev", *, vpcs: tuple[str, ...] = (), session: boto3.Session | None = None, **changed: str
) -> Place:
    return place_of(stack, settings(**changed), vpcs, session)


def swept(where: Place) -> Swept:
    return sweep(where, lambda _: None, tries=2, pause=0)


def names(found: Found) -> dict[str, str]:
    return {thing.kind: thing.id for thing in found.left}


def test_empty_account_has_nothing_left() -> None:
    assert look(place()) == Found((), ())


def test_what_the_cluster_leaves_is_found_and_swept_and_a_neighbours_stays() -> None:
    ours, neighbour = Estate("dev", CLUSTER, "10.20.0.0/16"), Estate("dev-2", "other", "10.30.0.0/16")
    made, foreign = ours.sweepable(), neighbour.sweepable()
    assert names(look(place())).keys() >= made.keys()

    done = swept(place())
    assert done.problems == []
    # Two groups, the load balancer's and the cluster's, which name each other.
    told = sorted(next(kind for kind in made if line.startswith(f"{kind} ")) for line in done.removed)
    assert told == sorted([*made, "security group"])
    ours.vanish()
    assert look(place()) == Found((), ())
    theirs = names(look(place("dev-2", clusterName="other")))
    assert {kind: theirs[kind] for kind in foreign if kind != "security group"} == {
        kind: name for kind, name in foreign.items() if kind != "security group"
    }
    assert swept(place()).removed == []


def test_every_other_kind_is_named_with_its_remedy_and_none_of_it_is_touched() -> None:
    ours, neighbour = Estate("dev", CLUSTER, "10.20.0.0/16"), Estate("dev-2", "other", "10.30.0.0/16")
    made, foreign = ours.namable(), neighbour.namable()
    assert swept(place()).removed == []
    found = look(place())
    assert found.unseen == ()
    assert names(found).items() >= made.items()
    assert not {thing.id for thing in found.left} & set(foreign.values())
    for thing in found.left:
        assert thing.id in thing.remedy or thing.kind in ("KMS key", "topic")
    bucket = next(thing for thing in found.left if thing.kind == "bucket")
    assert bucket.detail == "3 versions of objects"
    assert look(place("dev-2", clusterName="other")).left


def test_terminated_instance_key_and_secret_on_their_way_out_count_as_gone() -> None:
    estate = Estate("dev", CLUSTER, "10.20.0.0/16")
    made = estate.namable()
    estate.ec2.terminate_instances(InstanceIds=[made["instance"]])
    client("kms").schedule_key_deletion(KeyId=made["KMS key"].rsplit("/", 1)[-1], PendingWindowInDays=7)
    client("secretsmanager").delete_secret(SecretId=made["secret"], RecoveryWindowInDays=30)
    assert not {"instance", "KMS key", "secret"} & names(look(place())).keys()
