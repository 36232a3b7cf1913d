"""Exceptions from rules: which are in force, which are printed, which are refused."""

import json
from datetime import date

import pytest

from infra.errors import SettingsError
from infra.policy import exceptions
from infra.policy.exceptions import exceptions_in_force, exceptions_valid, excused
from infra.policy.rule import Resource
from infra.settings import load_settings
from tests.infra.conftest import Checkout
from tests.infra.recording.world import World
from tests.infra.test_aws_cli import account, settings  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow

REASON = "hosted runners have no fixed address"


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exceptions, "today", lambda: date(2026, 6, 15))


def stack(**exception: str) -> Resource:
    given = {"rule": "imdsv2", "reason": REASON, "until": "2026-06-15", **exception}
    settings = load_settings({"atlas:environment": "local", "atlas:policyExceptions": json.dumps([given])})
    return Resource("pulumi:pulumi:Stack", "atlas-local", {}, settings)


def test_exception_counts_up_to_its_last_day() -> None:
    assert excused("imdsv2", stack())
    assert exceptions_valid(stack()) == []
    assert exceptions_in_force(stack()) == [f"until 2026-06-15 any resource may violate imdsv2: {REASON}"]


def test_exception_that_has_ended_is_refused_and_does_not_count() -> None:
    ended = stack(until="2026-06-14")
    assert not excused("imdsv2", ended)
    assert exceptions_in_force(ended) == []
    (line,) = exceptions_valid(ended)
    assert "expired on 2026-06-14" in line


def test_exception_from_no_rule_is_refused() -> None:
    (line,) = exceptions_valid(stack(rule="imds-v2"))
    assert "there is no rule imds-v2" in line
    assert exceptions_in_force(stack(rule="imds-v2")) == []


def test_nothing_is_excused_from_having_valid_exceptions() -> None:
    clever = stack(rule="exceptions-valid")
    assert not excused("exceptions-valid", clever)
    assert "there is no rule exceptions-valid" in exceptions_valid(clever)[0]


def test_exception_is_for_its_rule_and_resources_only() -> None:
    named = stack(resources="atlas-*")
    assert excused("imdsv2", named)
    assert not excused("tagged", named)
    assert not excused("imdsv2", stack(resources="grafana-*"))
    assert "atlas-* may violate imdsv2" in exceptions_in_force(named)[0]


@pytest.mark.parametrize(
    ("exception", "told"),
    [
        (
            {"reason": REASON, "until": "2026-06-15"},
            "policyExceptions.0.rule is missing: the rule's name in docs/policy.md",
        ),
        ({"rule": "imdsv2", "until": "2026-06-15"}, "policyExceptions.0.reason is missing: why"),
        ({"rule": "imdsv2", "reason": "because", "until": "2026-06-15"}, "at least 10 characters"),
        ({"rule": "imdsv2", "reason": REASON}, "policyExceptions.0.until is missing: the last day"),
        (
            {"rule": "imdsv2", "reason": REASON, "until": "next year"},
            "policyExceptions.0.until: Input should be a valid",
        ),
        ({"rule": "imdsv2", "reason": REASON, "until": "2026-06-15", "why": ""}, "0.why is not a key of an exception"),
    ],
)
def test_incomplete_exception_is_no_setting(exception: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings({"atlas:environment": "local", "atlas:policyExceptions": json.dumps([exception])})
    assert told in str(error.value)


@pytest.mark.timeout(600)
def test_breach_is_one_line_and_passes_with_an_exception_that_is_printed(
    checkout: Checkout,
    account: World,  # noqa: F811 - the fixture
) -> None:
    settings(checkout, apiAccessCidrs=["0.0.0.0/0"])
    for command in ("preview", "up"):
        refused = checkout.atlas(command, "--stack", "dev", "--json", code=1)
        (line,) = refused.stderr.splitlines()
        assert line == (
            "atlas: policy api-endpoint-restricted: atlas-dev-eksCluster: the Kubernetes API is open to 0.0.0.0/0: "
            "name the networks in atlas:apiAccessCidrs, or set [] for none"
        )
    assert account.existing() == {}

    # A date in YAML is a date, with quotation marks or without.
    exception = {"rule": "api-endpoint-restricted", "reason": REASON, "until": date(2999, 1, 1)}
    settings(checkout, apiAccessCidrs=["0.0.0.0/0"], policyExceptions=[exception])
    told = f"until 2999-01-01 any resource may violate api-endpoint-restricted: {REASON}"
    assert told in checkout.atlas("preview", "--stack", "dev").stdout
    # Its exit status isn't checked, because the recorded load balancer doesn't answer.
    done = checkout.finish(checkout.start("up", "--stack", "dev", "--wait", "0"))
    assert done.stderr.count(told) == 1
    assert account.of(":Cluster") != []


def test_local_stack_is_asked_too(checkout: Checkout) -> None:
    passed = checkout.atlas("preview", "--stack", "local")
    assert "[mandatory]" not in passed.stdout
    checkout.configure(policyExceptions=json.dumps([{"rule": "typo", "reason": REASON, "until": "2999-01-01"}]))
    refused = checkout.atlas("preview", "--stack", "local", "--json", code=1)
    assert refused.stderr.splitlines() == [
        "atlas: policy exceptions-valid: atlas-local: atlas:policyExceptions: there is no rule typo; "
        "docs/policy.md lists the rules"
    ]
