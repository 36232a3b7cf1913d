"""Checks before any work on an AWS stack: tools, credentials, the account, and the caller's access to the cluster."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.errors import CredentialsError, PreflightError, one_line
from infra.names import APP_LABEL
from infra.settings import AwsSettings

Run = Callable[[list[str]], subprocess.CompletedProcess[str]]
PATIENCE = 60
"""Seconds that a command may take: the AWS CLI's own timeout for a connection is a minute."""
REMEDIES = {
    "aws": "does the network or a proxy block it, or does a credential_process wait for input? Try it by hand",
    "docker": "Docker hangs: start it again, or deploy a built image (atlas:image)",
}
"""Command -> what to do if it hangs."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller's identity, according to AWS."""

    account: str
    principal: str
    """ARN of the IAM role or user, without the session."""


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the command and return its result; raises PreflightError if it can't be started or takes over a minute."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        told = " ".join(command[:3])
        raise PreflightError(
            f"`{told}` doesn't answer within {PATIENCE} seconds: {REMEDIES.get(command[0], 'try it by hand')}"
        ) from None
    except OSError as error:
        raise PreflightError(f"`{command[0]}` can't be started ({error.strerror}): install it again") from None


def check(settings: AwsSettings, *, changes: bool = True, run: Run = run) -> Caller:
    """Check that this machine and this caller can work on the stack; returns the caller.

    Raises CredentialsError when there are no credentials or they belong to another account, PreflightError when a tool
    is missing or the caller would have no access to the cluster.
    `changes` is False for commands that create nothing (destroy, status): they need neither a listed caller nor Docker.
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
                f"{caller.principal} is not in atlas:adminPrincipals, so it would have no access to its own cluster: "
                "add it, or use the credentials of a listed principal"
            )
        if settings.image is None:
            _docker(run)
    return caller


def check_unchanged(stack: str, settings: AwsSettings, resources: Sequence[Mapping[str, Any]]) -> None:
    """Raise PreflightError when a setting that a deployed stack can't change differs from what is deployed.

    `resources`: those in its state.
    """
    check_place(stack, settings, resources)
    there = [resource for resource in resources if not resource.get("delete")]
    if _inputs(there, "aws:eks/cluster:Cluster"):  # before the cluster exists, a network can still be replaced
        networks = [vpc["cidrBlock"] for vpc in _inputs(there, "aws:ec2/vpc:Vpc")]
        _refuse_other(stack, "vpcCidr", settings.vpc_cidr, networks, "a cluster can't move to another network")
    # The logical names in the cluster begin with appName. With another appName, the engine would create the same
    # namespace under a new logical name, and then delete the "old" namespace, with everything that now runs in it.
    apps = [space["metadata"]["labels"][APP_LABEL] for space in _inputs(there, "kubernetes:core/v1:Namespace")]
    _refuse_other(stack, "appName", settings.app_name, apps, "another name would delete its namespace and its images")
    check_zones(stack, settings, resources)


def check_place(stack: str, settings: AwsSettings, resources: Sequence[Mapping[str, Any]]) -> None:
    """Raise PreflightError when the stack is deployed in another region than its settings say, or with another cluster.

    `resources`: those in its state. `destroy` would look for what is left at the wrong place.
    """
    there = [resource for resource in resources if not resource.get("delete")]
    regions = [subnet["availabilityZone"][:-1] for subnet in _inputs(there, "aws:ec2/subnet:Subnet")]
    _refuse_other(stack, "region", settings.region, regions, "a stack can't move to another region")
    clusters = [cluster["name"] for cluster in _inputs(there, "aws:eks/cluster:Cluster")]
    _refuse_other(stack, "clusterName", settings.cluster_name, clusters, "EKS can't rename a cluster")


def _inputs(resources: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [resource["inputs"] for resource in resources if resource["type"] == kind]


def _refuse_other(stack: str, key: str, value: str, deployed: Sequence[str], reason: str) -> None:
    old = next((old for old in deployed if old != value), None)
    if old is not None:
        raise PreflightError(
            f"atlas:{key} is {value}, but {stack} is deployed with {old}, and {reason}: set atlas:{key} back to {old}; "
            f"for {value}, create another stack, or run `atlas destroy --stack {stack}` with {old} first"
        )


def check_zones(stack: str, settings: AwsSettings, resources: Sequence[Mapping[str, Any]]) -> None:
    """Raise PreflightError when the stack is deployed in other zones than its settings say.

    `resources`: those in its state. EKS refuses subnets in zones in which the cluster wasn't created. The subnets can't
    move either: the engine would create the new subnet first, while the old subnet still has its range. And with
    another first zone, Prometheus would get a new, empty volume.
    """
    from infra.components.network import layout  # half a second of imports, which only AWS stacks need

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
            f"move: set atlas:zones back to {old}; to move, create another stack in the new zones, or run "
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
    # Since these versions, `aws eks get-token` returns the API version that Kubernetes clients expect.
    if version < (1, 24) or (2, 0) <= version < (2, 7):
        raise PreflightError(
            f"the AWS CLI is too old ({told.strip() or 'no version'}): install 2.7 or newer (version 1: 1.24 or newer)"
        )


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
            f"`aws sts get-caller-identity` prints {said!r} instead of the caller's identity: is `aws` on PATH the AWS "
            "CLI itself? An alias or a wrapper must not print its own output"
        ) from None


def principal_of(arn: str) -> str:
    """The role's ARN for an assumed-role session (without path: a session's ARN has none); other ARNs unchanged."""
    session = re.fullmatch(r"(arn:[\w-]+):sts::(\d+):assumed-role/([^/]+)/.+", arn)
    return f"{session[1]}:iam::{session[2]}:role/{session[3]}" if session else arn


def _same_principal(caller: str, listed: str) -> bool:
    """Whether both ARNs are the same principal; paths are ignored, because a session's ARN doesn't have them."""

    def bare(arn: str) -> str:
        head, _, name = arn.partition("/")
        return f"{head}/{name.rsplit('/', 1)[-1]}"

    return bare(caller) == bare(listed)


def _docker(run: Run) -> None:
    if shutil.which("docker") is None or run(["docker", "info"]).returncode != 0:
        raise PreflightError(
            "no Docker engine answers, but the image must be built: start Docker, or deploy a built image (atlas:image)"
        )
