"""The rules as a policy pack of the engine: what it asks is passed to them, and their answers to it."""

from collections.abc import Callable

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

from infra.policy.rule import Resource, Rule, StackRule
from infra.policy.rules import storage

RULES = tuple(value for module in (storage,) for value in vars(module).values() if isinstance(value, Rule | StackRule))


def serve() -> None:
    """Answer the engine until it ends this process."""
    PolicyPack("atlas", [_policy(rule) for rule in RULES])


def _policy(rule: Rule | StackRule) -> Policy:
    level = EnforcementLevel(rule.level)
    if isinstance(rule, Rule):
        return ResourceValidationPolicy(rule.name, rule.meaning, _of_resource(rule), level)
    return StackValidationPolicy(rule.name, rule.meaning, _of_stack(rule), level)


def _of_resource(rule: Rule) -> Callable[[ResourceValidationArgs, ReportViolation], None]:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        try:
            for breach in rule(Resource(args.resource_type, args.name, args.props, None, args.urn)):
                report(f"{args.name}: {breach}", None)
        except UnknownValueError:
            return  # a preview; `up` asks again, with the value

    return validate


def _of_stack(rule: StackRule) -> Callable[[StackValidationArgs, ReportViolation], None]:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        resources = [
            Resource(
                kind=resource.resource_type,
                name=resource.name,
                inputs=resource.props,
                urn=resource.urn,
                uses={key: [one.urn for one in used] for key, used in resource.property_dependencies.items()},
            )
            for resource in args.resources
        ]
        try:
            for resource, breach in rule(resources):
                report(f"{resource.name}: {breach}", resource.urn)
        except UnknownValueError:
            return

    return validate
