"""A stack's part of an AWS account: which resources belong to it, and the requests to AWS."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

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
"""Kubernetes' controllers and EKS set this tag, with the value `owned`, on what they create for a cluster."""
CNI_TAG = "cluster.k8s.amazonaws.com/name"
"""The VPC CNI sets this tag on the network interfaces of pods."""
NODES_TAG = "eks:cluster-name"
"""EKS sets this tag on what it creates for a node group."""
PATIENT = Config(retries={"mode": "standard", "max_attempts": 8}, connect_timeout=10, read_timeout=60)
"""boto3 itself retries throttled calls with growing pauses, for about a minute in total."""


@dataclass(frozen=True, slots=True)
class Place:
    """A stack's part of an account and region."""

    stack: str
    region: str
    cluster: str | None
    """Name of its EKS cluster; None if the cluster with this name belongs to another stack, so it must not be used."""
    disposable: bool
    """Volumes may be deleted too."""
    vpcs: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    """What couldn't be found out about the stack's part, each with the reason."""
    session: boto3.Session = field(default_factory=boto3.Session)
    clients: dict[str, Any] = field(default_factory=dict, compare=False)
    """Service -> its client, because creating a client takes a tenth of a second."""

    @property
    def prefix(self) -> str:
        """The prefix of the stack's names."""
        return stack_prefix(self.stack)

    @classmethod
    def of(
        cls, stack: str, settings: AwsSettings, vpcs: Iterable[str] = (), session: boto3.Session | None = None
    ) -> Self:
        """The stack's place by its settings alone; AWS isn't asked."""
        return cls(
            stack=stack,
            region=settings.region,
            cluster=settings.cluster_name,
            disposable=settings.disposable,
            vpcs=tuple(sorted(vpcs)),
            session=session or boto3.Session(),
        )

    def client(self, service: str) -> Any:
        """The service's client; it retries throttled calls."""
        if service not in self.clients:
            self.clients[service] = self.session.client(service, region_name=self.region, config=PATIENT)
        return self.clients[service]

    def all(self, service: str, operation: str, found: str, **options: Any) -> Iterator[Any]:
        """The items of a listing call, from all pages; `found`: their place in the answer, in JMESPath."""
        client = self.client(service)
        if client.can_paginate(operation):
            yield from client.get_paginator(operation).paginate(**options).search(found)
        else:
            yield from jmespath.search(found, getattr(client, operation)(**options)) or []

    def owns(self, tags: Mapping[str, str]) -> bool:
        """Whether a resource with these tags belongs to the stack, or to its cluster and to no other stack."""
        if tags.get(STACK_TAG) is not None:
            return tags[STACK_TAG] == self.stack and tags.get(PROJECT_TAG) == PROJECT
        return self.cluster is not None and (
            tags.get(CLUSTER_TAG.format(self.cluster)) == "owned"
            or self.cluster in (tags.get(CNI_TAG), tags.get(NODES_TAG))
        )


def place_of(stack: str, settings: AwsSettings, vpcs: Iterable[str], session: boto3.Session | None = None) -> Place:
    """The stack's place, from its settings; its VPCs are those in its state (`vpcs`) and those with its tags.

    Raises CredentialsError when the credentials are no longer valid.
    """
    place = Place.of(stack, settings, vpcs, session)
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
        unseen.append(f"could not check whose cluster {place.cluster} is, so nothing is swept: {reason(error)}")
        place = replace(place, cluster=None)
    return replace(place, unseen=tuple(unseen))


def cluster_of(place: Place) -> dict[str, Any] | None:
    """EKS's description of the cluster; None if it doesn't exist, or belongs to another stack."""
    if place.cluster is None:
        return None
    client = place.client("eks")
    try:
        found: dict[str, Any] = client.describe_cluster(name=place.cluster)["cluster"]
    except client.exceptions.ResourceNotFoundException:
        return None
    return found


def tags_of(thing: Mapping[str, Any]) -> dict[str, str]:
    """The resource's tags; most services list them as `Tags`, network interfaces as `TagSet`."""
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags") or thing.get("TagSet") or []}


def code_of(error: Exception) -> str:
    """AWS's code of the error; empty for errors that boto3 itself raises."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def reason(error: Exception) -> str:
    """The reason of the error, in a single line."""
    return f"denied ({one_line(error)})" if code_of(error) in DENIED else one_line(error)


def raise_expired(error: Exception) -> None:
    """Raise CredentialsError if the credentials caused the error, because then every other call would fail too."""
    if code_of(error) in EXPIRED or isinstance(error, NO_CREDENTIALS):
        raise CredentialsError(EXPIRED_LINE) from None
