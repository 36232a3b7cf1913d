"""What a stack leaves in an account is found, swept or named, and nobody else's is touched: moto over HTTP."""

import inspect
import json
import re
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse

from infra.errors import CredentialsError
from infra.leftovers import look as looking
from infra.leftovers.ec2 import EC2
from infra.leftovers.look import FINDERS, Found, look
from infra.leftovers.place import Place, place_of
from infra.leftovers.sweep import Swept, sweep
from infra.settings import AwsSettings, load_settings
from tests.infra.support.aws import BASE
from tests.infra.support.leftovers import Estate, client

CLUSTER = "flask-app-cluster"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("moto")]


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
        assert thing.id in thing.remedy or thing.kind in ("KMS key", "topic", "tagged resource")
    details = {thing.kind: thing.detail for thing in found.left}
    assert (details["bucket"], details["ECR repository"]) == ("3 versions of objects", "2 images")
    # A network's own route table goes with it.
    assert sum(thing.kind == "route table" for thing in found.left) == 1
    assert look(place("dev-2", clusterName="other")).left


def test_table_is_found_by_its_name_and_by_its_tags_and_named_once() -> None:
    ours, neighbour = Estate("dev", CLUSTER, "10.20.0.0/16"), Estate("dev-features", "other", "10.30.0.0/16")
    named, tagged = ours.table("atlas-dev-features-0a1b2c3"), ours.table("renamed")
    # Another stack's, whose name begins with this stack's.
    neighbour.table("atlas-dev-features-features-0a1b2c3")
    tables = [thing for thing in look(place()).left if thing.kind == "DynamoDB table"]
    assert [thing.id.rsplit("/", 1)[-1] for thing in tables] == [named, tagged]
    for thing, name in zip(tables, (named, tagged), strict=True):
        assert thing.remedy == f"aws dynamodb delete-table --table-name {name} --region us-east-1"
        client("dynamodb").delete_table(TableName=name)
    assert "DynamoDB table" not in names(look(place()))


def test_flow_logs_group_is_swept_and_a_neighbours_stays() -> None:
    for stack in ("dev", "dev-2"):
        client("logs").create_log_group(logGroupName=f"/atlas/{stack}/flow-logs")
    assert names(look(place())) == {"log group": "/atlas/dev/flow-logs"}
    assert swept(place()).removed == ["log group /atlas/dev/flow-logs"]
    assert names(look(place("dev-2", clusterName="other"))) == {"log group": "/atlas/dev-2/flow-logs"}


def test_every_kind_that_is_looked_for_is_there_in_these_tests() -> None:
    estate = Estate("dev", CLUSTER, "10.20.0.0/16")
    made = estate.namable() | estate.sweepable() | estate.living_cluster()
    found = look(place())
    written = re.findall(r'Leftover\(\s*"([^"]+)"', inspect.getsource(looking))
    kinds = {kind.kind for kind in EC2.values()} | set(written)
    assert set(made) == kinds
    assert set(names(found)) == kinds
    assert [what for what, find in FINDERS.items() if not list(find(place()))] == []


def test_terminated_instance_key_and_secret_on_their_way_out_count_as_gone() -> None:
    estate = Estate("dev", CLUSTER, "10.20.0.0/16")
    made = estate.namable()
    estate.ec2.terminate_instances(InstanceIds=[made["instance"]])
    client("kms").schedule_key_deletion(KeyId=made["KMS key"].rsplit("/", 1)[-1], PendingWindowInDays=7)
    client("secretsmanager").delete_secret(SecretId=made["secret"], RecoveryWindowInDays=30)
    assert not {"instance", "KMS key", "secret"} & names(look(place())).keys()


class _Body(BytesIO):
    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


def refusing(operation: str, code: str, times: int) -> boto3.Session:
    """A session whose first so many calls of an EC2 operation AWS answers with an error."""
    session = boto3.Session()
    _refuse(session.events, f"ec2.{operation}", code, times)
    return session


def _refuse(events: Any, call: str, code: str, times: int) -> None:
    left = [times]

    def answer(request: Any, **_: Any) -> AWSResponse | None:
        if left[0] <= 0:
            return None
        left[0] -= 1
        body = f"<Response><Errors><Error><Code>{code}</Code><Message>no</Message></Error></Errors></Response>"
        if not call.startswith("ec2."):
            body = json.dumps({"__type": code, "message": "no"})
        status = 503 if code == "RequestLimitExceeded" else 403
        return AWSResponse(request.url, status, {}, _Body(body.encode()))

    events.register(f"before-send.{call}", answer)


def test_throttling_is_survived() -> None:
    volume = Estate("dev", CLUSTER, "10.20.0.0/16").volume({"project": "atlas", "stack": "dev"})
    found = look(place(session=refusing("DescribeVolumes", "RequestLimitExceeded", 2)))
    assert found.unseen == ()
    assert names(found)["EBS volume"] == volume


def test_denied_look_is_told_and_the_others_go_on() -> None:
    Estate("dev", CLUSTER, "10.20.0.0/16")
    found = look(place(session=refusing("DescribeVolumes", "UnauthorizedOperation", 99)))
    assert [line.split(" (")[0] for line in found.unseen] == ["could not look at EBS volumes: denied"]
    assert "VPC" in names(found)
    assert not Found((), found.unseen).nothing


def test_credentials_that_end_in_the_middle_are_one_line() -> None:
    with pytest.raises(CredentialsError, match=r"^the AWS credentials are no longer valid.*continues from here$"):
        look(place(session=refusing("DescribeVolumes", "ExpiredToken", 99)))


def test_nothing_is_found_by_a_cluster_that_is_another_stacks() -> None:
    estate = Estate("dev-2", CLUSTER, "10.30.0.0/16")
    estate.sweepable()
    estate.living_cluster()
    assert place().cluster is None
    assert swept(place()) == Swept()
    assert look(place()) == Found((), ())


def test_nothing_is_swept_while_the_cluster_is_there() -> None:
    estate = Estate("dev", CLUSTER, "10.20.0.0/16")
    estate.sweepable()
    living = estate.living_cluster()
    assert swept(place()) == Swept()
    assert names(look(place())).items() >= living.items()


def test_volume_of_a_stack_that_is_not_disposable_is_named_and_kept() -> None:
    made = Estate("dev", CLUSTER, "10.20.0.0/16").sweepable()
    where = place(disposable="false")
    assert not [line for line in swept(where).removed if "volume" in line]
    assert names(look(where))["EBS volume"] == made["EBS volume"]


def test_sweep_survives_throttling_and_what_hangs_on_something_for_a_while() -> None:
    estate = Estate("dev", CLUSTER, "10.20.0.0/16")
    for code in ("RequestLimitExceeded", "DependencyViolation", "VolumeInUse"):
        volume = estate.volume(estate.of_cluster)
        done = swept(place(session=refusing("DeleteVolume", code, 1)))
        assert done == Swept([f"EBS volume {volume}"], [])


def test_what_goes_on_hanging_on_something_is_told_and_still_there() -> None:
    estate = Estate("dev", CLUSTER, "10.20.0.0/16")
    volume = estate.volume(estate.of_cluster)
    done = swept(place(session=refusing("DeleteVolume", "DependencyViolation", 2)))
    (problem,) = done.problems
    assert problem.startswith(f"could not remove EBS volume {volume}: An error occurred (DependencyViolation)")
    assert done.removed == []
    assert names(look(place()))["EBS volume"] == volume


def test_what_may_not_be_removed_is_told_at_once_and_the_rest_is_swept() -> None:
    estate = Estate("dev", CLUSTER, "10.20.0.0/16")
    made = estate.sweepable()
    # One refusal only: it isn't tried again.
    done = swept(place(session=refusing("DeleteNetworkInterface", "UnauthorizedOperation", 1)))
    (problem,) = done.problems
    assert problem.startswith(f"could not remove network interface {made['network interface']}: denied (")
    assert {line.split(" ")[-1] for line in done.removed} >= {made["load balancer"], made["log group"]}
    assert f"EBS volume {made['EBS volume']}" in done.removed


def test_what_may_not_be_looked_at_is_told_and_the_rest_is_swept() -> None:
    made = Estate("dev", CLUSTER, "10.20.0.0/16").sweepable()
    done = swept(place(session=refusing("DescribeSecurityGroups", "UnauthorizedOperation", 99)))
    assert [line.split(" (")[0] for line in done.problems] == ["could not look at security groups: denied"]
    assert {line.split(" ")[-1] for line in done.removed} == set(made.values()) - {made["security group"]}


def test_nothing_is_swept_when_eks_no_longer_says_whether_the_cluster_is_there() -> None:
    Estate("dev", CLUSTER, "10.20.0.0/16").sweepable()
    where = place()
    _refuse(where.client("eks").meta.events, "eks.DescribeCluster", "AccessDeniedException", 99)
    done = swept(where)
    assert done.removed == []
    assert [line.split(" (")[0] for line in done.problems] == ["could not look at the cluster: denied"]


@pytest.mark.parametrize("operation", ["DescribeVolumes", "DeleteVolume"])
def test_credentials_that_end_in_the_middle_of_a_sweep_are_one_line(operation: str) -> None:
    estate = Estate("dev", CLUSTER, "10.20.0.0/16")
    estate.volume(estate.of_cluster)
    with pytest.raises(CredentialsError, match=r"^the AWS credentials are no longer valid.*continues from here$"):
        swept(place(session=refusing(operation, "ExpiredToken", 99)))


def test_what_somebody_else_removed_meanwhile_is_no_problem_and_not_ours_to_tell() -> None:
    estate = Estate("dev", CLUSTER, "10.20.0.0/16")
    estate.volume(estate.of_cluster)
    assert swept(place(session=refusing("DeleteVolume", "InvalidVolume.NotFound", 1))) == Swept()


def test_only_a_pods_interface_that_nothing_uses_is_swept() -> None:
    estate = Estate("dev", CLUSTER, "10.20.0.0/16")
    pods = {"cluster.k8s.amazonaws.com/name": CLUSTER}
    detached, untagged = estate.interface(pods), estate.interface({}, "aws-K8S-i-0a1b2c3d")
    in_use = estate.interface(pods, instance=estate.instance())
    foreign = estate.interface({}, "somebody's own")
    done = swept(place())
    assert set(done.removed) == {f"network interface {detached}", f"network interface {untagged}"}
    assert done.problems == []
    left = {thing.id for thing in look(place()).left if thing.kind == "network interface"}
    assert {in_use, foreign} <= left
    assert not {detached, untagged} & left
