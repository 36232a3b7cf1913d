"""What must hold before an AWS stack is touched: tools, credentials, the right account, a caller who will get in."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.errors import CredentialsError, PreflightError, one_line
from infra.settings import AwsSettings

Run = Callable[[list[str]], subprocess.CompletedProcess[str]]
PATIENCE = 60
"""Seconds for a command to answer: the AWS CLI itself gives up on a connection after a minute."""
REMEDIES = {
    "aws": "is the network, or a proxy, in the way, or does a credential_process wait for somebody? Try it by hand",
    "docker": "Docker hangs: start it again, or deploy a built image (atlas:image)",
}
"""What to do about a command that hangs."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who AWS says we are."""

    account: str
    principal: str
    """ARN of the IAM role or user, without the session."""


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """The command's result, within a minute; raises PreflightError when there is none by then."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        told = " ".join(command[:3])
        raise PreflightError(
            f"`{told}` gives no answer within {PATIENCE} seconds: {REMEDIES.get(command[0], 'try it by hand')}"
        ) from None
    except OSError as error:
        raise PreflightError(f"`{command[0]}` can't be started ({error.strerror}): install it again") from None


def check(settings: AwsSettings, *, changes: bool = True, run: Run = run) -> Caller:
    """Who AWS says we are, once it is sure that the stack can be made with what is here.

    Raises CredentialsError when there are no credentials, or another account's, PreflightError when a tool is missing
    or the caller couldn't enter the cluster.
    `changes` is False where nothing is made (destroy, status): then the caller needn't be listed, nor Docker run.
    """
    _aws_cli(run)
    caller = _caller(settings, run)
    if settings.account_id is not None and caller.account != settings.account_id:
        raise CredentialsError(
            f"these credentials belong to account {caller.account}, the stack to {settings.account_id} "
            "(atlas:accountId): use the right profile (AWS_PROFILE)"
        )
    if changes:
        if not any(_same_principal(caller.principal, listed) for listed in settings.admin_principals):
            raise PreflightError(
                f"{caller.principal} is not among atlas:adminPrincipals and could not enter its own cluster: add it, "
                "or use the credentials of one that is listed"
            )
        if settings.image is None:
            _docker(run)
    return caller


def check_zones(stack: str, settings: AwsSettings, resources: Sequence[Mapping[str, Any]]) -> None:
    """Raise PreflightError when the stack, of these resources in its state, is in other zones than its settings say.

    EKS gives a cluster no subnet in a zone that it wasn't made with. Nor could the subnets move: the engine makes the
    new one first, whose range the old one still has. In another first zone, Prometheus's volume would be a new one.
    """
    from infra.components.network import layout  # half a second of imports, of which only AWS stacks have need

    there = [resource for resource in resources if not resource.get("delete")]
    networks = [resource["inputs"]["cidrBlock"] for resource in there if resource["type"] == "aws:ec2/vpc:Vpc"]
    if len(networks) != 1:
        return
    plan = layout(networks[0])
    ranges = {cidr: index for pair in (plan.public, plan.private) for index, cidr in enumerate(pair)}
    deployed = list(settings.zones)
    for resource in there:
        if resource["type"] == "aws:ec2/subnet:Subnet" and resource["inputs"]["cidrBlock"] in ranges:
            deployed[ranges[resource["inputs"]["cidrBlock"]]] = resource["inputs"]["availabilityZone"][-1]
    if deployed != list(settings.zones):
        old = f"[{', '.join(deployed)}]"
        raise PreflightError(
            f"atlas:zones is [{', '.join(settings.zones)}], but {stack} is deployed in {old}, and a cluster can't "
            f"move: set atlas:zones back to {old}; to move, make another stack in the new zones, or "
            f"`atlas destroy --stack {stack}` first"
        )


def _aws_cli(run: Run) -> None:
    if shutil.which("aws") is None:
        raise PreflightError(
            "the AWS CLI is not on PATH: Kubernetes credentials need it; install version 2 (docs.aws.amazon.com/cli)"
        )
    told = run(["aws", "--version"]).stdout
    found = re.search(r"aws-cli/(\d+)\.(\d+)", told)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    # Since these, `aws eks get-token` speaks the API version that Kubernetes clients want.
    if version < (1, 24) or (2, 0) <= version < (2, 7):
        raise PreflightError(f"the AWS CLI is too old ({told.strip() or 'no version'}): take 2.7 or 1.24, or newer")


def _caller(settings: AwsSettings, run: Run) -> Caller:
    asked = run(["aws", "sts", "get-caller-identity", "--output", "json", "--region", settings.region])
    if asked.returncode != 0:
        reason = one_line(asked.stderr) or "no reason given"
        raise CredentialsError(
            f"AWS gives no identity ({reason}): log in (`aws sso login`, `aws configure`), or set AWS_PROFILE"
        )
    try:
        answer = json.loads(asked.stdout)
        return Caller(account=str(answer["Account"]), principal=principal_of(str(answer["Arn"])))
    except (ValueError, KeyError, TypeError):
        said = one_line(asked.stdout)[:200] or "nothing"
        raise PreflightError(
            f"`aws sts get-caller-identity` says {said!r} instead of who is asking: is `aws` on PATH the AWS CLI "
            "itself? An alias or a wrapper must not print anything of its own"
        ) from None


def principal_of(arn: str) -> str:
    """The role of an assumed-role session; any other ARN as it is. The role's path is not part of a session's ARN."""
    session = re.fullmatch(r"(arn:[\w-]+):sts::(\d+):assumed-role/([^/]+)/.+", arn)
    return f"{session[1]}:iam::{session[2]}:role/{session[3]}" if session else arn


def _same_principal(caller: str, listed: str) -> bool:
    """Whether both name one principal; paths are left out, as a session doesn't tell its role's."""

    def bare(arn: str) -> str:
        head, _, name = arn.partition("/")
        return f"{head}/{name.rsplit('/', 1)[-1]}"

    return bare(caller) == bare(listed)


def _docker(run: Run) -> None:
    if shutil.which("docker") is None or run(["docker", "info"]).returncode != 0:
        raise PreflightError(
            "no Docker engine answers, and the image must be built: start one, or deploy a built image (atlas:image)"
        )
