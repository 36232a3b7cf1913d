"""Where a stack's leftovers can be, whose they are, and how AWS is asked."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import boto3
import jmespath  # type: ignore[import-untyped]  # boto3's own query language
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)

from infra.errors import EXPIRED, EXPIRED_LINE, CredentialsError, one_line
from infra.names import PROJECT, PROJECT_TAG, STACK_TAG, stack_prefix
from infra.settings import AwsSettings

NO_CREDENTIALS = (
    NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, TokenRetrievalError, SSOError,
)  # fmt: skip
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError")
CLUSTER_TAG = "kubernetes.io/cluster/{}"
"""Kubernetes' controllers and EKS put it on what they make for a cluster, with the value `owned`."""
CNI_TAG = "cluster.k8s.amazonaws.com/name"
"""The VPC's network plug-in puts it on the interfaces of pods."""
NODES_TAG = "eks:cluster-name"
"""EKS puts it on what it makes for a node group."""
PATIENT = Config(retries={"mode": "standard", "max_attempts": 8}, connect_timeout=10, read_timeout=60)
"""Throttled calls are tried again by boto3 itself, ever more slowly, some minute in all."""


@dataclass(frozen=True, slots=True)
class Place:
    """One stack's part of an account and region."""

    stack: str
    region: str
    cluster: str | None
    """Name of its EKS cluster; None when a cluster of this name is another stack's: then nothing is found by it."""
    disposable: bool
    """Volumes may be swept too."""
    vpcs: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    """What could not be found out about it, each with the reason."""
    session: boto3.Session = field(default_factory=boto3.Session)
    clients: dict[str, Any] = field(default_factory=dict, compare=False)
    """Service -> its client: each takes a tenth of a second to make."""

    @property
    def prefix(self) -> str:
        """What the stack's names begin with."""
        return stack_prefix(self.stack)

    def client(self, service: str) -> Any:
        """A client that is patient with throttling."""
        if service not in self.clients:
            self.clients[service] = self.session.client(service, region_name=self.region, config=PATIENT)
        return self.clients[service]

    def all(self, service: str, operation: str, found: str, **options: Any) -> Iterator[Any]:
        """What a call lists, through all its pages; `found`: where in the answer, in JMESPath."""
        client = self.client(service)
        if client.can_paginate(operation):
            yield from client.get_paginator(operation).paginate(**options).search(found)
        else:
            yield from jmespath.search(found, getattr(client, operation)(**options)) or []

    def owns(self, tags: Mapping[str, str]) -> bool:
        """Whether a thing with these tags is the stack's, or its cluster's and no other stack's."""
        if tags.get(STACK_TAG) is not None:
            return tags[STACK_TAG] == self.stack and tags.get(PROJECT_TAG) == PROJECT
        return self.cluster is not None and (
            tags.get(CLUSTER_TAG.format(self.cluster)) == "owned"
            or self.cluster in (tags.get(CNI_TAG), tags.get(NODES_TAG))
        )


def place_of(stack: str, settings: AwsSettings, vpcs: Iterable[str], session: boto3.Session | None = None) -> Place:
    """The stack's place: by its settings, and of its networks those in its state (`vpcs`) and those with its tags.

    Raises CredentialsError when the credentials are no longer good.
    """
    place = Place(
        stack=stack,
        region=settings.region,
        cluster=settings.cluster_name,
        disposable=settings.disposable,
        vpcs=tuple(sorted(vpcs)),
        session=session or boto3.Session(),
    )
    unseen = []
    try:
        tags = [
            {"Name": f"tag:{PROJECT_TAG}", "Values": [PROJECT]},
            {"Name": f"tag:{STACK_TAG}", "Values": [stack]},
        ]
        tagged = place.all("ec2", "describe_vpcs", "Vpcs[].VpcId", Filters=tags)
        place = replace(place, vpcs=tuple(sorted({*vpcs, *tagged})))
    except (BotoCoreError, ClientError) as error:
        raise_expired(error)
        unseen.append(f"could not look for the stack's network: {reason(error)}")
    try:
        cluster = cluster_of(place)
        if cluster is not None and not place.owns({STACK_TAG: "", **cluster.get("tags", {})}):
            place = replace(place, cluster=None)
    except (BotoCoreError, ClientError) as error:
        raise_expired(error)
        unseen.append(f"could not look whose the cluster {place.cluster} is, so nothing is swept: {reason(error)}")
        place = replace(place, cluster=None)
    return replace(place, unseen=tuple(unseen))


def cluster_of(place: Place) -> dict[str, Any] | None:
    """The cluster as EKS tells it; None when it is gone, or there is none that could be the stack's."""
    if place.cluster is None:
        return None
    client = place.client("eks")
    try:
        found: dict[str, Any] = client.describe_cluster(name=place.cluster)["cluster"]
    except client.exceptions.ResourceNotFoundException:
        return None
    return found


def tags_of(thing: Mapping[str, Any]) -> dict[str, str]:
    """Tags, as most services list them; network interfaces call them otherwise."""
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags") or thing.get("TagSet") or []}


def code_of(error: Exception) -> str:
    """AWS's own name of the error; empty for those that boto3 raises itself."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def reason(error: Exception) -> str:
    """Why AWS didn't do it, in a few words."""
    return f"denied ({one_line(error)})" if code_of(error) in DENIED else one_line(error)


def raise_expired(error: Exception) -> None:
    """Raise CredentialsError when the credentials are to blame: then no other call would do better."""
    if code_of(error) in EXPIRED or isinstance(error, NO_CREDENTIALS):
        raise CredentialsError(EXPIRED_LINE) from None
