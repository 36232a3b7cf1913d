"""What the account allows, checked before anything is created: zones, instance types, the plan and the vCPU quota."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.capacity import HOSTS, VCPU_QUOTA
from infra.components.host import UBUNTU
from infra.errors import PreflightError
from infra.leftovers.place import Place, code_of, raise_expired, reason, tags_of
from infra.settings import AwsSettings

REFUSED_BY_EKS = ("use1-az3", "usw1-az2", "cac1-az3")
"""Zone ids in which EKS creates no cluster (EKS user guide, "Subnet requirements for clusters")."""
STANDARD = ("a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z")
"""Families of instance types that share the quota VCPU_QUOTA; the name of a type begins with its family."""
FREE_TIER_REGION = "us-east-1"
"""The only region in which the Free Tier API exists."""


def check_account(stack: str, settings: AwsSettings) -> list[str]:
    """Check that the account can run the stack; returns a line for each check that wasn't possible.

    The caller may have no permission to look; AWS itself then reports what is wrong, but later.
    Raises PreflightError with a line per problem, each with its remedy; CredentialsError when the credentials expired.
    """
    place = Place.of(stack, settings)
    wrong: list[str] = []
    unseen = []
    checks: Mapping[str, Callable[[Place, AwsSettings], Iterator[str]]] = {
        "the zones": _zones,
        "the account's plan": _plan,
        "the quota of vCPUs": _vcpus,
    }
    for what, check in checks.items():
        try:
            wrong += check(place, settings)
        except (BotoCoreError, ClientError) as error:
            raise_expired(error)
            unseen.append(f"{what} can't be checked before the start: {reason(error)}")
    if wrong:
        raise PreflightError("\n".join(wrong))
    return unseen


def _types(settings: AwsSettings) -> dict[str, str]:
    """Setting -> instance type."""
    return {"atlas:nodeType": settings.node_type, "atlas:hostType": settings.host_type}


def _zones(place: Place, settings: AwsSettings) -> Iterator[str]:
    """Zones that don't exist in this account, that EKS refuses, or that don't offer an instance type.

    The letters of zones are assigned to each account in another order; only the ids mean the same in all accounts.
    """
    found = "AvailabilityZones[?ZoneType=='availability-zone']"
    zones = {zone["ZoneName"]: zone["ZoneId"] for zone in place.all("ec2", "describe_availability_zones", found)}
    types = sorted(set(_types(settings).values()))
    offers = {
        (offer["InstanceType"], offer["Location"])
        for offer in place.all(
            "ec2",
            "describe_instance_type_offerings",
            "InstanceTypeOfferings[]",
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": types}],
        )
    }
    absent = {kind for kind in types if not any(kind == offered for offered, _ in offers)}
    for setting, kind in _types(settings).items():
        if kind in absent:
            yield f"{setting} is {kind}, which {place.region} doesn't offer: choose another type"
    good = [
        zone.removeprefix(place.region)
        for zone, identifier in sorted(zones.items())
        if identifier not in REFUSED_BY_EKS and all((kind, zone) in offers for kind in types if kind not in absent)
    ]
    for letter in settings.zones:
        zone = f"{place.region}{letter}"
        missing = [kind for kind in types if kind not in absent and (kind, zone) not in offers]
        if zone not in zones:
            why = f"but this account has no zone {zone}"
        elif zones[zone] in REFUSED_BY_EKS:
            why = f"but {zone} is {zones[zone]} in this account, where EKS creates no cluster"
        elif missing:
            why = f"but {zone} doesn't offer {' and '.join(missing)}"
        else:
            continue
        yield f"atlas:zones names {letter}, {why}: choose two of {', '.join(good)}"


def _plan(place: Place, settings: AwsSettings) -> Iterator[str]:
    """Instance types that the Free plan of a new account refuses.

    AWS doesn't say whether a dry run looks at the plan, and a role that may only start instances in the stack's own
    network can't make the dry run before that network exists. So the plan itself is asked for too.
    """
    kinds = set(_types(settings).values())
    refused = {kind for kind in kinds if _refused(place, kind)}
    if _has_free_plan(place):
        refused |= {kind for kind, found in _described(place, kinds).items() if not found["FreeTierEligible"]}
    for setting, kind in _types(settings).items():
        if kind not in refused:
            continue
        eligible = place.all(
            "ec2",
            "describe_instance_types",
            "InstanceTypes[].InstanceType",
            Filters=[
                {"Name": "free-tier-eligible", "Values": ["true"]},
                {"Name": "processor-info.supported-architecture", "Values": ["x86_64"]},
            ],
        )
        yield (
            f"{setting} is {kind}, which the account's Free plan refuses: upgrade the account to the paid plan "
            f"(console: Billing and Cost Management), or choose one of {', '.join(sorted(eligible))}"
        )


def _has_free_plan(place: Place) -> bool:
    client = place.session.client("freetier", region_name=FREE_TIER_REGION)
    try:
        return bool(client.get_account_plan_state()["accountPlanType"] == "FREE")
    except client.exceptions.ResourceNotFoundException:
        return False  # an account from before July 2025, when plans were introduced


def _refused(place: Place, kind: str) -> bool:
    """Whether a dry run says that the plan refuses the type; nothing is started, and AWS always answers with an error.

    Other errors, such as a missing permission, say nothing about the plan.
    """
    try:
        place.client("ec2").run_instances(
            ImageId=f"resolve:ssm:{UBUNTU}", InstanceType=kind, MinCount=1, MaxCount=1, DryRun=True
        )
    except ClientError as error:
        return code_of(error) == "InvalidParameterCombination" and "Free Tier" in str(error)
    return False


def _vcpus(place: Place, settings: AwsSettings) -> Iterator[str]:
    """Whether the stack's instances exceed the account's vCPU quota, together with those that already run.

    A running stack isn't refused: it already has its vCPUs. Nodes that scaling adds later aren't counted.
    """
    running = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    # Spot instances have a quota of their own.
    found = "Reservations[].Instances[?!InstanceLifecycle][]"
    there = list(place.all("ec2", "describe_instances", found, Filters=running))
    wanted = Counter({settings.node_type: settings.node_desired})
    wanted[settings.host_type] += HOSTS
    sizes = _vcpus_of(place, {*wanted, *(instance["InstanceType"] for instance in there)})
    need = sum(sizes[kind] * count for kind, count in wanted.items())
    own = sum(sizes[instance["InstanceType"]] for instance in there if place.owns(tags_of(instance)))
    others = sum(sizes[instance["InstanceType"]] for instance in there) - own
    if need <= own:
        return
    quota = place.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=VCPU_QUOTA)["Quota"]["Value"]
    if others + need > quota:
        told = " and ".join(f"{count} x {kind}" for kind, count in wanted.items())
        used = f", of which others use {others}" if others else ""
        yield (
            f"{place.stack} needs {need} vCPUs ({told}), but the account may have {quota:g} in {place.region}{used}: "
            "ask for more, `aws service-quotas request-service-quota-increase --service-code ec2 "
            f"--quota-code {VCPU_QUOTA} --desired-value {others + need} --region {place.region}`, "
            "and wait until AWS has agreed"
        )


def _vcpus_of(place: Place, kinds: Iterable[str]) -> dict[str, int]:
    """Instance type -> its vCPUs; 0 for a family that the quota doesn't count."""
    counted = [kind for kind in kinds if re.match("[a-z]*", kind)[0] in STANDARD]  # type: ignore[index]
    return dict.fromkeys(kinds, 0) | {
        kind: int(found["VCpuInfo"]["DefaultVCpus"]) for kind, found in _described(place, counted).items()
    }


def _described(place: Place, kinds: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Instance type -> EC2's description of it."""
    filters = [{"Name": "instance-type", "Values": sorted(set(kinds))}]
    listed = place.all("ec2", "describe_instance_types", "InstanceTypes[]", Filters=filters)
    return {found["InstanceType"]: found for found in listed}
