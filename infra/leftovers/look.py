"""Finds what is left of a stack. It asks each service, because the tagging API lists deleted resources for a while."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.leftovers.cluster import classic_balancers, cluster_balancers, cluster_target_groups, log_groups
from infra.leftovers.ec2 import EC2, Ec2, ec2_things, state_of
from infra.leftovers.place import (
    Place,
    cluster_of,
    code_of,
    raise_expired,
    reason,
    tags_of,
)
from infra.names import PROJECT, PROJECT_TAG, STACK_TAG, role_path


@dataclass(frozen=True, slots=True)
class Leftover:
    """A resource that still exists."""

    kind: str
    id: str
    remedy: str
    """The command that removes it, or what to do."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """The result of the search."""

    left: tuple[Leftover, ...]
    unseen: tuple[str, ...]
    """What couldn't be checked, each with the reason."""

    @property
    def nothing(self) -> bool:
        """Whether nothing is left, and everything was checked."""
        return not self.left and not self.unseen


def look(place: Place) -> Found:
    """Everything of the stack that still exists.

    Raises CredentialsError when the credentials are no longer valid.
    """
    left: list[Leftover] = []
    unseen: list[str] = list(place.unseen)
    for what, find in FINDERS.items():
        try:
            left += find(place)
        except (BotoCoreError, ClientError) as error:
            raise_expired(error)
            unseen.append(f"could not look at {what}: {reason(error)}")
    try:
        for arn in _tagged(place):
            if any(arn == thing.id or arn.endswith((f"/{thing.id}", f":{thing.id}")) for thing in left):
                continue
            try:
                thing = _confirmed(place, arn)
            except (BotoCoreError, ClientError) as error:
                raise_expired(error)
                unseen.append(f"could not look at {arn}: {reason(error)}")
            else:
                left += [thing] if thing else []
    except (BotoCoreError, ClientError) as error:
        raise_expired(error)
        unseen.append(f"could not look at what has the stack's tags: {reason(error)}")
    return Found(tuple(left), tuple(unseen))


# --- finders, by service ---


def _ec2(kind: Ec2) -> Callable[[Place], Iterator[Leftover]]:
    def find(place: Place) -> Iterator[Leftover]:
        for thing in ec2_things(place, kind):
            name, state = tags_of(thing).get("Name", ""), state_of(thing)
            remedy = f"aws ec2 {kind.remedy} {thing[kind.key]} --region {place.region}"
            yield Leftover(kind.kind, thing[kind.key], remedy, ", ".join(filter(None, (name, state))))

    return find


def _cluster(place: Place) -> Iterator[Leftover]:
    cluster = cluster_of(place)
    if cluster is None:
        return
    name, where = place.cluster, f"--region {place.region}"
    for group in place.all("eks", "list_nodegroups", "nodegroups[]", clusterName=name):
        remedy = f"aws eks delete-nodegroup --cluster-name {name} --nodegroup-name {group} {where}"
        yield Leftover("EKS node group", str(group), remedy)
    remedy = f"aws eks delete-cluster --name {name} {where}"
    yield Leftover("EKS cluster", str(name), remedy, "with its access entries and add-ons")


def _balancers(place: Place) -> Iterator[Leftover]:
    where = f"--region {place.region}"
    for arn, tags in cluster_balancers(place):
        remedy = f"aws elbv2 delete-load-balancer --load-balancer-arn {arn} {where}"
        yield Leftover("load balancer", arn, remedy, tags.get("kubernetes.io/service-name", ""))
    for arn in cluster_target_groups(place):
        yield Leftover("target group", arn, f"aws elbv2 delete-target-group --target-group-arn {arn} {where}")
    for name, tags in classic_balancers(place):
        remedy = f"aws elb delete-load-balancer --load-balancer-name {name} {where}"
        yield Leftover("classic load balancer", name, remedy, tags.get("kubernetes.io/service-name", ""))


def _logs(place: Place) -> Iterator[Leftover]:
    for name in log_groups(place):
        remedy = f"aws logs delete-log-group --log-group-name {name} --region {place.region}"
        yield Leftover("log group", name, remedy)


def _alarms(place: Place) -> Iterator[Leftover]:
    # The engine's names end in seven hexadecimal digits; so a stack whose name begins with this name doesn't match.
    ours = re.compile(rf"{re.escape(place.prefix)}-(prometheus|grafana)-status-[0-9a-f]{{7}}")
    found = place.all("cloudwatch", "describe_alarms", "MetricAlarms[].AlarmName", AlarmNamePrefix=f"{place.prefix}-")
    for name in found:
        if ours.fullmatch(name):
            remedy = f"aws cloudwatch delete-alarms --alarm-names {name} --region {place.region}"
            yield Leftover("alarm", name, remedy)


def _roles(place: Place) -> Iterator[Leftover]:
    path = role_path(place.stack)
    for found in place.all("iam", "list_instance_profiles", "InstanceProfiles[]", PathPrefix=path):
        if found["Path"] == path:
            name = found["InstanceProfileName"]
            remedy = f"aws iam delete-instance-profile --instance-profile-name {name}"
            yield Leftover("instance profile", name, remedy, "first remove the role from it")
    for found in place.all("iam", "list_roles", "Roles[]", PathPrefix=path):
        name = found["RoleName"]
        remedy = f"aws iam delete-role --role-name {name}"
        yield Leftover("role", name, remedy, "first detach and delete its policies")


def _oidc(place: Place) -> Iterator[Leftover]:
    client = place.client("iam")
    for arn in place.all("iam", "list_open_id_connect_providers", "OpenIDConnectProviderList[].Arn"):
        # Only EKS's providers: GitHub's belongs to bootstrap, and the others don't belong to Atlas.
        if f"oidc.eks.{place.region}." in arn and place.owns(
            tags_of(client.list_open_id_connect_provider_tags(OpenIDConnectProviderArn=arn))
        ):
            remedy = f"aws iam delete-open-id-connect-provider --open-id-connect-provider-arn {arn}"
            yield Leftover("identity provider of a cluster", arn, remedy)


def _repositories(place: Place) -> Iterator[Leftover]:
    for name in place.all("ecr", "describe_repositories", "repositories[].repositoryName"):
        if name.startswith(f"{place.prefix}/"):
            images = sum(1 for _ in place.all("ecr", "list_images", "imageIds[]", repositoryName=name))
            remedy = f"aws ecr delete-repository --repository-name {name} --force --region {place.region}"
            yield Leftover("ECR repository", name, remedy, f"{images} images")


def _buckets(place: Place) -> Iterator[Leftover]:
    # The engine's names end in seven hexadecimal digits; so a stack whose name begins with this name doesn't match.
    ours = re.compile(rf"{re.escape(place.prefix)}-(data|config)-bucket-[0-9a-f]{{7}}")
    for name in place.all("s3", "list_buckets", "Buckets[].Name"):
        if ours.fullmatch(name):
            yield _bucket(place, name)


def _bucket(place: Place, name: str) -> Leftover:
    first = place.client("s3").list_object_versions(Bucket=name, MaxKeys=1000)
    count = len(first.get("Versions", [])) + len(first.get("DeleteMarkers", []))
    more = " or more" if first.get("IsTruncated") else ""
    return Leftover(
        "bucket", name, f"`aws s3api delete-bucket --bucket {name}`, once its versions are deleted (console: Empty)",
        f"{count}{more} versions of objects",
    )  # fmt: skip


def _tables(place: Place) -> Iterator[Leftover]:
    # The engine's names end in seven hexadecimal digits; so a stack whose name begins with this name doesn't match.
    ours = re.compile(rf"{re.escape(place.prefix)}-features-[0-9a-f]{{7}}")
    for name in place.all("dynamodb", "list_tables", "TableNames[]"):
        if ours.fullmatch(name):
            remedy = f"aws dynamodb delete-table --table-name {name} --region {place.region}"
            yield Leftover("DynamoDB table", name, remedy)


def _secrets(place: Place) -> Iterator[Leftover]:
    # Secrets that are scheduled for deletion are left out.
    filters = [{"Key": "name", "Values": [f"{place.prefix}/"]}]
    names = place.all("secretsmanager", "list_secrets", "SecretList[?!DeletedDate].Name", Filters=filters)
    for name in names:
        if name.startswith(f"{place.prefix}/"):
            remedy = f"aws secretsmanager delete-secret --secret-id {name} --region {place.region}"
            yield Leftover("secret", name, remedy)


FINDERS: Mapping[str, Callable[[Place], Iterator[Leftover]]] = {
    "the cluster": _cluster,
    "load balancers": _balancers,
    **{f"{kind.kind}s": _ec2(kind) for kind in EC2.values()},
    "log groups": _logs,
    "alarms": _alarms,
    "roles": _roles,
    "identity providers": _oidc,
    "ECR repositories": _repositories,
    "buckets": _buckets,
    "DynamoDB tables": _tables,
    "secrets": _secrets,
}


# --- what the tagging API lists ---


def _tagged(place: Place) -> Iterator[str]:
    filters = [{"Key": PROJECT_TAG, "Values": [PROJECT]}, {"Key": STACK_TAG, "Values": [place.stack]}]
    yield from place.all(
        "resourcegroupstaggingapi", "get_resources", "ResourceTagMappingList[].ResourceARN", TagFilters=filters
    )


def _confirmed(place: Place, arn: str) -> Leftover | None:
    """A resource from the tagging API, if it exists in its own service; None if not, or if a finder covers it."""
    service, name = arn.split(":")[2], arn.split(":", 5)[5]
    match service:
        case "ec2" if name.split("/")[0] in (*EC2, "security-group-rule"):
            return None  # a rule is deleted with its group
        case "eks" | "iam" | "elasticloadbalancing":
            return None
        case "kms":
            key = place.client("kms").describe_key(KeyId=arn)["KeyMetadata"]
            remedy = f"aws kms schedule-key-deletion --key-id {key['KeyId']} --region {place.region}"
            gone = key["KeyState"] in ("PendingDeletion", "PendingReplicaDeletion")
            return None if gone else Leftover("KMS key", arn, remedy, key.get("Description", ""))
        case "s3":
            return _if_there(lambda: _bucket(place, name), "NoSuchBucket", "404")
        case "sns":
            remedy = f"aws sns delete-topic --topic-arn {arn} --region {place.region}"
            return _if_there(
                lambda: (place.client("sns").get_topic_attributes(TopicArn=arn), Leftover("topic", arn, remedy))[1],
                "NotFound", "NotFoundException",
            )  # fmt: skip
        case "dynamodb":
            table = place.client("dynamodb")
            remedy = f"aws dynamodb delete-table --table-name {name.split('/')[1]} --region {place.region}"
            return _if_there(
                lambda: (table.describe_table(TableName=arn), Leftover("DynamoDB table", arn, remedy))[1],
                "ResourceNotFoundException",
            )
        case "cloudwatch" | "ecr" | "logs" | "secretsmanager":
            return None  # the finders search these by name
        case _:
            return Leftover("tagged resource", arn, "look at it in the console: Atlas doesn't know its kind")


def _if_there(ask: Callable[[], Any], *not_found: str) -> Any:
    try:
        return ask()
    except ClientError as error:
        if code_of(error) in not_found:
            return None
        raise
