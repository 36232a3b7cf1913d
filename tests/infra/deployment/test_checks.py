"""What an AWS stack needs is checked before anything is made, and each lack is one line that names the remedy."""

import json
import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from infra.deployment import checks
from infra.deployment.checks import check, check_place, check_unchanged, check_zones, principal_of
from infra.errors import CredentialsError, PreflightError
from infra.settings import AwsSettings, load_settings
from tests.infra.support.aws import BASE

ROLE = "arn:aws:sts::123456789012:assumed-role/deploy/session"


def settings(**changed: str) -> AwsSettings:
    found = load_settings({f"atlas:{key}": value for key, value in {**BASE, **changed}.items()})
    assert isinstance(found, AwsSettings)
    return found


def world(
    version: str = "aws-cli/2.36.11 Python/3.13", arn: str = ROLE, account: str = "123456789012", docker: bool = True
) -> Callable[[list[str]], subprocess.CompletedProcess[str]]:
    """What the commands would say."""

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        if command == ["aws", "--version"]:
            return subprocess.CompletedProcess(command, 0, version, "")
        if command[:3] == ["aws", "sts", "get-caller-identity"]:
            if not arn:
                return subprocess.CompletedProcess(command, 255, "", "\nUnable to locate credentials.\n")
            return subprocess.CompletedProcess(command, 0, json.dumps({"Account": account, "Arn": arn}), "")
        assert command == ["docker", "info"]
        return subprocess.CompletedProcess(command, 0 if docker else 1, "", "")

    return run


@pytest.fixture(autouse=True)
def _tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in ("aws", "docker"):
        (tmp_path / tool).write_text("#!/bin/sh\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_all_is_well() -> None:
    caller = check(settings(), run=world())
    assert (caller.account, caller.principal) == ("123456789012", "arn:aws:iam::123456789012:role/deploy")


@pytest.mark.parametrize("version", ["aws-cli/1.18.69 Python/3.8", "aws-cli/2.6.4 Python/3.9", ""])
def test_old_aws_cli_is_refused(version: str) -> None:
    with pytest.raises(PreflightError, match=r"too old.*2.7"):
        check(settings(), run=world(version=version))


@pytest.mark.parametrize("version", ["aws-cli/1.24.0 Python/3.8", "aws-cli/2.7.0 Python/3.9"])
def test_new_enough_aws_cli_will_do(version: str) -> None:
    check(settings(), run=world(version=version))


def test_missing_aws_cli_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PreflightError, match=r"AWS CLI is not on PATH: .*install version 2"):
        check(settings(), run=world())


def test_missing_credentials_are_told_with_aws_own_words() -> None:
    with pytest.raises(CredentialsError, match=r"no identity \(Unable to locate credentials\.\): log in"):
        check(settings(), run=world(arn=""))


def test_another_account_is_refused() -> None:
    with pytest.raises(CredentialsError, match="belong to account 123456789012, the stack to 210987654321"):
        check(settings(accountId="210987654321"), run=world())


def test_caller_who_could_not_enter_the_cluster_is_refused_unless_nothing_is_made() -> None:
    stranger = world(arn="arn:aws:iam::123456789012:user/ann")
    with pytest.raises(PreflightError, match="user/ann is not in atlas:adminPrincipals"):
        check(settings(), run=stranger)
    assert check(settings(), changes=False, run=stranger).principal.endswith("user/ann")


def test_role_with_a_path_is_recognised_in_its_session() -> None:
    listed = "arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Admin_1a2b"
    session = "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Admin_1a2b/ann"
    check(settings(adminPrincipals=json.dumps([listed])), run=world(arn=session))
    with pytest.raises(PreflightError):
        check(settings(adminPrincipals=json.dumps([listed])), run=world(arn=session.replace("Admin", "Viewer")))


@pytest.mark.parametrize(
    ("arn", "principal"),
    [
        (ROLE, "arn:aws:iam::123456789012:role/deploy"),
        ("arn:aws-us-gov:sts::123456789012:assumed-role/a.b/c", "arn:aws-us-gov:iam::123456789012:role/a.b"),
        ("arn:aws:iam::123456789012:user/x/ann", "arn:aws:iam::123456789012:user/x/ann"),
    ],
)
def test_session_is_traced_to_its_role(arn: str, principal: str) -> None:
    assert principal_of(arn) == principal


def test_docker_is_asked_for_only_when_an_image_is_built() -> None:
    silent = world(docker=False)
    check(settings(), run=silent)  # an image is given
    built = settings().model_copy(update={"image": None})
    with pytest.raises(PreflightError, match=r"no Docker engine answers.*atlas:image"):
        check(built, run=silent)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("tool", ["aws", "docker"])
def test_tool_that_hangs_or_is_broken_is_one_line(tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        return checks.run(command) if command[0] == tool else world()(command)

    monkeypatch.setattr(checks, "PATIENCE", 0.2)
    built = settings().model_copy(update={"image": None})
    (tmp_path / tool).write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    with pytest.raises(PreflightError, match=rf"^`{tool} \S+` doesn't answer within 0.2 seconds: .*(by hand|start it)"):
        check(built, run=run)
    (tmp_path / tool).write_text("#!/nonexistent/python\n")
    with pytest.raises(PreflightError, match=rf"^`{tool}` can't be started \(No such file.*\): install it again$"):
        check(built, run=run)


@pytest.mark.parametrize("said", ["", "Welcome to the proxy", "{}", "[]"])
def test_aws_cli_that_does_not_say_who_asks_is_one_line(said: str) -> None:
    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        if "get-caller-identity" in command:
            return subprocess.CompletedProcess(command, 0, f"{said}\n", "")
        return world()(command)

    with pytest.raises(
        PreflightError, match=rf"prints '{re.escape(said or 'nothing')}' instead of.*wrapper must not print"
    ):
        check(settings(), run=run)


@pytest.mark.slow
@pytest.mark.slow
def test_commands_are_really_run() -> None:
    assert checks.run(["/bin/echo", "here"]).stdout == "here\n"


def network(*subnets: tuple[str, str], cidr: str = "10.20.0.0/16") -> list[dict[str, Any]]:
    """A state's resources: the VPC, and subnets by range and zone."""
    vpc = {"type": "aws:ec2/vpc:Vpc", "inputs": {"cidrBlock": cidr}}
    return [
        {"type": "pulumi:pulumi:Stack"},
        vpc,
        *(
            {"type": "aws:ec2/subnet:Subnet", "inputs": {"cidrBlock": cidr, "availabilityZone": f"us-east-1{zone}"}}
            for cidr, zone in subnets
        ),
    ]


DEPLOYED = network(
    ("10.20.0.0/20", "a"),
    ("10.20.16.0/20", "b"),
    ("10.20.32.0/20", "a"),
    ("10.20.48.0/20", "b"),
    ("10.20.64.0/20", "a"),
)


@pytest.mark.parametrize(
    ("zones", "shown"), [('["a","c"]', "[a, c]"), ('["b","a"]', "[b, a]"), ('["c","d"]', "[c, d]")]
)
def test_other_zones_than_the_deployed_are_refused_with_both_and_the_remedy(zones: str, shown: str) -> None:
    with pytest.raises(PreflightError) as error:
        check_zones("dev", settings(zones=zones), DEPLOYED)
    told = str(error.value)
    assert told.startswith(f"atlas:zones is {shown}, but dev is deployed in [a, b], ")
    assert "set atlas:zones back to [a, b]" in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("resources", "zones"),
    [
        ([], '["c","d"]'),
        (DEPLOYED, '["a","b"]'),
        # A first `up` that failed: what isn't made yet can be anywhere.
        (network(), '["c","d"]'),
        (network(("10.20.32.0/20", "a")), '["a","d"]'),
        # What waits for its deletion is as good as gone.
        ([{**resource, "delete": True} for resource in DEPLOYED], '["c","d"]'),
    ],
)
def test_zones_are_free_where_nothing_is_deployed(resources: list[dict[str, Any]], zones: str) -> None:
    check_zones("dev", settings(zones=zones), resources)


def test_a_half_made_network_in_other_zones_is_refused() -> None:
    with pytest.raises(PreflightError, match=r"deployed in \[c, e\]"):
        check_zones("dev", settings(zones='["c","d"]'), network(("10.20.48.0/20", "e")))


def named(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"type": kind, "inputs": inputs}


CLUSTER = named("aws:eks/cluster:Cluster", name="flask-app-cluster")
NAMESPACE = named(
    "kubernetes:core/v1:Namespace", metadata={"name": "flask-app", "labels": {"app.kubernetes.io/name": "flask-app"}}
)
UP = [*DEPLOYED, CLUSTER, NAMESPACE]
LASTING = {
    "region": ("eu-west-1", "us-east-1"),
    "clusterName": ("other", "flask-app-cluster"),
    "vpcCidr": ("10.40.0.0/16", "10.20.0.0/16"),
    "appName": ("other", "flask-app"),
}
"""Setting -> another value, and that of UP."""


@pytest.mark.parametrize("key", LASTING)
def test_setting_that_a_deployed_stack_cannot_change_is_refused_with_both_values_and_the_remedy(key: str) -> None:
    value, old = LASTING[key]
    with pytest.raises(PreflightError) as error:
        check_unchanged("dev", settings(**{key: value}), UP)
    told = str(error.value)
    assert told.startswith(f"atlas:{key} is {value}, but dev is deployed with {old}, and ")
    assert f"set atlas:{key} back to {old}; for {value}, create another stack, or" in told
    assert "\n" not in told


def test_new_app_name_is_refused_beside_a_new_namespace_too() -> None:
    """The images would be deleted with their repository, whose name has the app's."""
    with pytest.raises(PreflightError, match=r"^atlas:appName is other"):
        check_unchanged("dev", settings(appName="other", namespace="other"), UP)


@pytest.mark.parametrize(
    "changed", [{}, {"namespace": "other"}, {"serviceName": "other"}, {"secretName": "other"}, {"nodeGroupName": "o"}]
)
def test_names_that_a_deployed_stack_can_change_are_not_refused(changed: dict[str, str]) -> None:
    check_unchanged("dev", settings(**changed), UP)


@pytest.mark.parametrize(
    ("resources", "free"),
    [
        ([], LASTING),
        ([{**resource, "delete": True} for resource in UP], LASTING),
        # A first `up` that failed before the cluster: what isn't made yet can have any name.
        (DEPLOYED, ["clusterName", "vpcCidr", "appName"]),
        ([*DEPLOYED, CLUSTER], ["appName"]),
    ],
)
def test_lasting_settings_are_free_while_what_they_name_is_not_deployed(
    resources: list[dict[str, Any]], free: Iterable[str]
) -> None:
    for key in free:
        check_unchanged("dev", settings(**{key: LASTING[key][0]}), resources)


@pytest.mark.parametrize("key", LASTING)
def test_destroy_is_refused_only_where_it_would_look_at_the_wrong_place(key: str) -> None:
    changed = settings(**{key: LASTING[key][0]})
    if key in ("region", "clusterName"):
        with pytest.raises(PreflightError, match=rf"^atlas:{key} is "):
            check_place("dev", changed, UP)
    else:
        check_place("dev", changed, UP)
