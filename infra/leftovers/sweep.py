"""Removes what EKS and Kubernetes created for a stack's cluster and left behind, and nothing that isn't the stack's."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.leftovers.cluster import classic_balancers, cluster_balancers, cluster_target_groups, log_groups
from infra.leftovers.ec2 import EC2, ec2_things
from infra.leftovers.place import Place, cluster_of, code_of, raise_expired, reason, tags_of
from infra.names import STACK_TAG

IN_USE = ("DependencyViolation", "InvalidParameterValue", "ResourceInUse", "VolumeInUse", "InvalidGroup.InUse")
"""Error codes for resources still in use by a resource that is being deleted: a load balancer's network interfaces, for
example, take a minute or two."""


@dataclass(slots=True)
class Swept:
    """The result of a sweep."""

    removed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def sweep(place: Place, say: Callable[[str], None], *, tries: int = 6, pause: float = 20) -> Swept:
    """Remove what the stack's cluster left, if the cluster no longer exists; before that its controllers clean up.

    A resource that is still in use is tried `tries` times, with `pause` seconds in between.
    Raises CredentialsError when the credentials are no longer valid.
    """
    broom = _Broom(place, say, tries, pause, Swept())
    for what, clean in (
        ("the cluster", broom.stop_if_cluster_lives),
        ("load balancers", broom.balancers),
        ("network interfaces", broom.interfaces),
        ("security groups", broom.groups),
        ("log groups", broom.logs),
        ("EBS volumes", broom.volumes),
    ):
        try:
            clean()
        except _Alive:
            break
        except (BotoCoreError, ClientError) as error:
            raise_expired(error)
            broom.swept.problems.append(f"could not look at {what}: {reason(error)}")
            if what == "the cluster":
                break
    return broom.swept


class _Alive(Exception):  # noqa: N818 - not an error
    """The cluster still exists."""


@dataclass(frozen=True, slots=True)
class _Broom:
    place: Place
    say: Callable[[str], None]
    tries: int
    pause: float
    swept: Swept

    def stop_if_cluster_lives(self) -> None:
        if self.place.cluster is None or cluster_of(self.place) is not None:
            raise _Alive

    def balancers(self) -> None:
        client = self.place.client("elbv2")
        for arn, tags in list(cluster_balancers(self.place)):
            if self.place.owns(tags):
                self._remove("load balancer", arn, client.delete_load_balancer, LoadBalancerArn=arn)
        for arn in list(cluster_target_groups(self.place)):
            self._remove("target group", arn, client.delete_target_group, TargetGroupArn=arn)
        for name, tags in list(classic_balancers(self.place)):
            if self.place.owns(tags):
                delete = self.place.client("elb").delete_load_balancer
                self._remove("classic load balancer", name, delete, LoadBalancerName=name)

    def interfaces(self) -> None:
        for found in list(ec2_things(self.place, EC2["network-interface"])):
            # An interface of the VPC CNI in the stack's own VPC belongs to a pod too, even without the cluster's tag.
            ours = self.place.owns(tags_of(found)) or str(found.get("Description", "")).startswith("aws-K8S-")
            if ours and found["Status"] == "available":
                name = found["NetworkInterfaceId"]
                delete = self.place.client("ec2").delete_network_interface
                self._remove("network interface", name, delete, NetworkInterfaceId=name)

    def groups(self) -> None:
        client = self.place.client("ec2")
        groups = [
            found
            for found in ec2_things(self.place, EC2["security-group"])
            # Only groups of Kubernetes and EKS; the engine deletes its own groups.
            if STACK_TAG not in tags_of(found) and self.place.owns(tags_of(found))
        ]
        for found in groups:
            # The groups' rules refer to each other, so all rules must be removed before any group.
            for rules, revoke in (
                ("IpPermissions", client.revoke_security_group_ingress),
                ("IpPermissionsEgress", client.revoke_security_group_egress),
            ):
                named = [rule for rule in found.get(rules, []) if rule.get("UserIdGroupPairs")]
                if named:
                    self._do(f"rules of {found['GroupId']}", revoke, GroupId=found["GroupId"], IpPermissions=named)
        for found in groups:
            name = f"{found['GroupId']} ({found['GroupName']})"
            self._remove("security group", name, client.delete_security_group, GroupId=found["GroupId"])

    def logs(self) -> None:
        client = self.place.client("logs")
        for name in list(log_groups(self.place)):
            self._remove("log group", name, client.delete_log_group, logGroupName=name)

    def volumes(self) -> None:
        if not self.place.disposable:
            return  # they contain data, so `look` only lists them
        for found in list(ec2_things(self.place, EC2["volume"])):
            if STACK_TAG not in tags_of(found) and found["State"] == "available":
                name = found["VolumeId"]
                self._remove("EBS volume", name, self.place.client("ec2").delete_volume, VolumeId=name)

    def _remove(self, kind: str, name: str, delete: Callable[..., Any], **options: Any) -> None:
        if self._do(f"{kind} {name}", delete, **options):
            self.swept.removed.append(f"{kind} {name}")
            self.say(f"  swept {kind} {name}")

    def _do(self, what: str, call: Callable[..., Any], **options: Any) -> bool:
        for left in reversed(range(self.tries)):
            try:
                call(**options)
            except (BotoCoreError, ClientError) as error:
                raise_expired(error)
                code = code_of(error)
                if "NotFound" in code:
                    return False  # somebody else has deleted it
                if code in IN_USE and left:
                    time.sleep(self.pause)
                    continue
                self.swept.problems.append(f"could not remove {what}: {reason(error)}")
                return False
            return True
        return False
