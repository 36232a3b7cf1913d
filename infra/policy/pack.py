"""The rules as a policy pack: it passes each resource from the engine to the rules, and their messages back."""

import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError
from pydantic import BaseModel

from infra.errors import SettingsError
from infra.policy.exceptions import STACK, exceptions_in_force, exceptions_valid, excused
from infra.policy.rule import Resource, Rule, StackRule
from infra.policy.rules import RULES
from infra.settings import load_settings

ALL = (*RULES, exceptions_valid, exceptions_in_force)


def serve() -> None:
    """Answer the engine until it ends this process."""
    seen: dict[str, Mapping[str, Any]] = {}
    PolicyPack("atlas", [_policy(rule, seen) for rule in ALL])


def _policy(rule: Rule | StackRule, seen: dict[str, Mapping[str, Any]]) -> Policy:
    """The rule for the engine; `seen` collects the inputs of each resource, by URN."""
    level = EnforcementLevel(rule.level)
    if isinstance(rule, Rule):
        return ResourceValidationPolicy(rule.name, rule.meaning, _of_resource(rule, seen), level)
    return StackValidationPolicy(rule.name, rule.meaning, _of_stack(rule, seen), level)


def _of_resource(
    rule: Rule, seen: dict[str, Mapping[str, Any]]
) -> Callable[[ResourceValidationArgs, ReportViolation], None]:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        seen[args.urn] = args.props
        resource = Resource(args.resource_type, args.name, args.props, _settings(), args.urn)
        try:
            breaches = rule(resource)
        except UnknownValueError:
            return  # a preview; `up` checks again, with the value, before the resource is created
        for breach in [] if excused(rule.name, resource) else breaches:
            report(f"{resource.name}: {breach}", None)

    return validate


def _of_stack(
    rule: StackRule, seen: Mapping[str, Mapping[str, Any]]
) -> Callable[[StackValidationArgs, ReportViolation], None]:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        resources = [
            Resource(
                kind=resource.resource_type,
                name=resource.name,
                # The engine passes outputs here, and a preview knows few of them; only the stack's own outputs are
                # needed.
                inputs=resource.props if resource.resource_type == STACK else seen.get(resource.urn, resource.props),
                settings=_settings(),
                urn=resource.urn,
                uses={key: [other.urn for other in used] for key, used in resource.property_dependencies.items()},
            )
            for resource in args.resources
        ]
        try:
            breaches = rule(resources)
        except UnknownValueError:
            return
        for resource, breach in breaches:
            if not excused(rule.name, resource):
                report(f"{resource.name}: {breach}", resource.urn)

    return validate


@cache
def _settings() -> BaseModel | None:
    """The stack's settings from the engine; None when they are invalid, which the program itself reports."""
    try:
        return load_settings(json.loads(os.environ.get("PULUMI_CONFIG", "{}")))
    except SettingsError:
        return None
