"""Each rule passes on every stack, and catches its violations."""

import re
from dataclasses import replace

import pytest
from pydantic import BaseModel

from infra.policy.pack import ALL
from infra.policy.rule import Resource, Rule, StackRule, allowed, items
from infra.policy.rules.tags import TAGLESS
from infra.settings import load_settings
from tests.infra.policy.breaches import BREACHES, NO_BREACHES, Breach, broken, found
from tests.infra.policy.stacks import STACKS, resources, settings_of
from tests.infra.recording.schema import arguments
from tests.infra.support.aws import FULL

pytestmark = pytest.mark.slow

NAMED = {rule.name: rule for rule in ALL}
WARNED = {("base", "load-balancer-tls"), ("dev", "load-balancer-tls"), ("prod", "load-balancer-tls")}
"""Rules that report something on a stack as it is: plain HTTP is the default."""
ABOUT_EXCEPTIONS = {"exceptions-in-force", "exceptions-valid"}
"""Tested in test_exceptions.py."""
ON_ITS_OWN = {
    "private-nodes": "the breach is a way to the internet: test_node_in_public_subnet_is_caught",
    "tables-protected": "`full` is disposable: test_table_of_a_stack_that_is_kept_refuses_its_deletion",
}


def said(rule: Rule | StackRule, everything: list[Resource]) -> list[str]:
    """The rule's messages about a stack."""
    if isinstance(rule, StackRule):
        return [f"{one.name}: {breach}" for one, breach in rule(everything)]
    return [f"{one.name}: {breach}" for one in everything for breach in rule(one)]


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("name", NAMED)
def test_rule_holds_on_stack(stack: str, name: str) -> None:
    lines = said(NAMED[name], resources(stack))
    assert bool(lines) == ((stack, name) in WARNED), lines


def breach_id(breach: Breach) -> str:
    return f"{breach.rule}: {breach.of} {' '.join(breach.change)}".strip()


@pytest.mark.parametrize("breach", BREACHES, ids=breach_id)
def test_rule_catches_its_breach(breach: Breach) -> None:
    rule = NAMED[breach.rule]
    before = resources("full")
    assert said(rule, before) == []
    after, everything = broken(before, breach)
    if isinstance(rule, StackRule):
        lines = said(rule, everything)
    else:
        assert after is not None
        lines = rule(after)
    assert any(breach.told in line for line in lines), lines


@pytest.mark.parametrize("change", NO_BREACHES, ids=breach_id)
def test_rule_lets_pass_what_is_no_breach(change: Breach) -> None:
    rule = NAMED[change.rule]
    after, everything = broken(resources("full"), change)
    assert after is not None
    assert said(rule, everything if isinstance(rule, StackRule) else [after]) == []


EMPTY = {"containers": [{"name": "c", "image": "i"}]}
EMPTY_PODS = {"spec": {**EMPTY, "template": {"spec": EMPTY}, "jobTemplate": {"spec": {"template": {"spec": EMPTY}}}}}


@pytest.mark.parametrize("name", NAMED)
def test_rule_takes_a_resource_that_says_nothing(name: str) -> None:
    """Most inputs that rules check are optional, because AWS and Kubernetes have defaults."""
    rule = NAMED[name]
    kinds = [kind for kind in (rule.kinds if isinstance(rule, Rule) else ()) if kind[-1] not in ":/"]
    every = {one.kind for one in resources("full")}.union(kinds)
    for inputs in ({}, EMPTY_PODS):
        silent = [Resource(kind, "silent", inputs) for kind in sorted(every)]
        assert isinstance(said(rule, silent), list)


def test_every_rule_has_a_breach() -> None:
    caught = {breach.rule for breach in BREACHES}
    assert caught | ABOUT_EXCEPTIONS | ON_ITS_OWN.keys() == NAMED.keys()


def test_every_rule_lets_something_pass() -> None:
    """A rule that covers no declared resource would pass on every stack, even if it were wrong."""
    declared = {one.kind for stack in STACKS for one in resources(stack)}
    let_pass = {(change.rule, found(resources("full"), change.of).kind) for change in NO_BREACHES}
    for rule in ALL:
        if isinstance(rule, Rule):
            kinds = declared | {kind for name, kind in let_pass if name == rule.name}
            assert any(map(rule.covers, kinds)), f"{rule.name} is about nothing declared: give it a line in NO_BREACHES"


def test_node_in_public_subnet_is_caught() -> None:
    everything = resources("full")
    nodes = found(everything, "NodeGroup atlas-dev-nodes")
    public = found(everything, "Subnet atlas-dev-public-a")
    moved = replace(nodes, uses={**nodes.uses, "subnetIds": [public.urn]})
    assert said(NAMED["private-nodes"], [moved, *everything]) == [
        "atlas-dev-nodes: nodes are in a subnet with a route to the internet gateway: use private subnets"
    ]


def test_public_address_needs_operators_in_the_stack_file() -> None:
    rule, host = NAMED["no-public-addresses"], found(resources("full"), "grafana-instance")
    assert isinstance(rule, Rule)
    assert rule(host) == []
    (line,) = rule(replace(host, settings=settings_of("base")))
    assert "unless atlas:operatorCidrs" in line
    assert rule(replace(host, settings=None)) == [line]


def test_table_of_a_stack_that_is_kept_refuses_its_deletion() -> None:
    rule = NAMED["tables-protected"]
    assert isinstance(rule, Rule)
    (kept,) = (one for one in resources("prod") if one.kind == "aws:dynamodb/table:Table")
    assert rule(kept) == []
    bare = replace(kept, inputs={**kept.inputs, "deletionProtectionEnabled": False})
    (line,) = rule(bare)
    assert "deletionProtectionEnabled must be true" in line
    assert rule(replace(bare, settings=None)) == [line]
    assert rule(replace(bare, settings=settings_of("full"))) == []


def test_secret_is_where_secrets_belong() -> None:
    rule = NAMED["no-secret-in-plain-text"]
    assert isinstance(rule, Rule)
    settings: BaseModel = load_settings({f"atlas:{key}": value.removeprefix("secret:") for key, value in FULL.items()})
    inputs = {"stringData": {"CAPSTONE_TEST": "the-token"}, "metadata": {"name": "x"}}
    assert rule(Resource("kubernetes:core/v1:Secret", "kept", inputs, settings)) == []
    assert len(rule(Resource("kubernetes:core/v1:ConfigMap", "told", inputs, settings))) == 1


def test_short_word_is_no_telling_secret() -> None:
    rule = NAMED["no-secret-in-plain-text"]
    assert isinstance(rule, Rule)
    settings = load_settings({f"atlas:{key}": value for key, value in {**FULL, "mlflowToken": "short"}.items()})
    told = {"data": {"HOW": "a short text"}}
    assert rule(Resource("kubernetes:core/v1:ConfigMap", "told", told, settings)) == []


def test_roles_for_workflows_are_looked_at() -> None:
    """The rule about tokens would also pass if bootstrap declared no such roles."""
    policies = [one.inputs["assumeRolePolicy"] for one in resources("bootstrap") if one.kind.endswith(":Role")]
    assert sum("sts:AssumeRoleWithWebIdentity" in policy for policy in policies) >= 3


def test_roles_that_deploy_may_pass_what_is_under_their_stacks_path() -> None:
    """The rule about passing roles would also pass if no role of bootstrap could pass roles."""
    passed = [
        target
        for one in resources("bootstrap")
        for statement in allowed(one.inputs.get("policy"))
        if "iam:PassRole" in items(statement.get("Action"))
        for target in items(statement.get("Resource"))
    ]
    assert {target.rsplit(":", 1)[-1] for target in passed} == {"role/atlas/dev/*", "role/atlas/prod/*"}


@pytest.mark.parametrize("kind", sorted(TAGLESS))
def test_type_without_tags_has_none(kind: str) -> None:
    known = arguments(kind)
    assert known is not None
    assert not hasattr(known, "tags"), "it has tags: take it out of TAGLESS, and tag it"


def test_ids_are_written_as_their_books_do() -> None:
    for rule in ALL:
        for one in rule.ids:
            assert re.fullmatch(r"CKV2?_(AWS|K8S)_\d+|CKV_SECRET_\d+|CIS (EKS )?\d+(\.\d+)+", one), (
                f"{rule.name}: {one}"
            )
        assert len(set(rule.ids)) == len(rule.ids)


def test_names_are_unique() -> None:
    assert len(NAMED) == len(ALL)
