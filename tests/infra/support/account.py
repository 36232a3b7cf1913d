"""What moto's account doesn't play by itself: its plan, its vCPU quota, and dry runs that the Free plan refuses."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.instances import InstanceResponse
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.servicequotas.models import ServiceQuotasBackend

QUOTA = "L-1216C47A"
FREE_TIER = (
    "The specified instance type is not eligible for Free Tier. For a list of Free Tier instance types, run "
    "'describe-instance-types' with the filter 'free-tier-eligible=true'."
)
"""AWS's words, as its users report them."""


@dataclass(slots=True)
class Account:
    """How the account answers."""

    plan: str | None = "PAID"
    """FREE, PAID, or None for an account that is older than plans."""
    quota: float = 64
    refused: set[str] = field(default_factory=set)
    """Instance types that a dry run refuses."""
    denied: set[str] = field(default_factory=set)
    """What this caller may not ask: freetier, dry-run."""

    def reset(self) -> None:
        self.plan, self.quota = "PAID", 64
        self.refused.clear()
        self.denied.clear()


@contextmanager
def played(account: Account) -> Iterator[None]:
    """moto's server, when it runs in this process, answers as the account does."""
    dispatched = DomainDispatcherApplication.get_application
    run = InstanceResponse.run_instances

    def get_application(self: Any, environ: dict[str, Any]) -> Any:
        if "/freetier/" in environ.get("HTTP_AUTHORIZATION", ""):
            return lambda _, start: _plan(account, start)
        return dispatched(self, environ)

    def get_service_quota(self: Any, service_code: str, quota_code: str) -> dict[str, Any]:
        assert (service_code, quota_code) == ("ec2", QUOTA)
        return {"ServiceCode": "ec2", "QuotaCode": QUOTA, "Value": account.quota}

    def run_instances(self: Any) -> Any:
        if self._get_param("DryRun", False):
            if "dry-run" in account.denied:
                raise EC2ClientError("UnauthorizedOperation", "You are not authorized to perform this operation.")
            if self._get_param("InstanceType") in account.refused:
                raise EC2ClientError("InvalidParameterCombination", FREE_TIER)
        return run(self)

    with ExitStack() as patches:
        patches.enter_context(patch.object(DomainDispatcherApplication, "get_application", get_application))
        patches.enter_context(patch.object(ServiceQuotasBackend, "get_service_quota", get_service_quota))
        patches.enter_context(patch.object(InstanceResponse, "run_instances", run_instances))
        yield


def _plan(account: Account, start: Callable[..., Any]) -> list[bytes]:
    status, answer = "200 OK", {"accountPlanType": account.plan, "accountPlanStatus": "ACTIVE"}
    if account.plan is None:
        status, answer = "400 Bad Request", {"__type": "ResourceNotFoundException", "message": "no plan"}
    if "freetier" in account.denied:
        status, answer = "400 Bad Request", {"__type": "AccessDeniedException", "message": "not authorized"}
    start(status, [("Content-Type", "application/x-amz-json-1.0")])
    return [json.dumps(answer).encode()]
