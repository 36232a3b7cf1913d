"""Rules about secrets: none in user data, pod settings, objects, tags or outputs."""

import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pulumi
from pulumi_policy.proxy import UnknownValueError
from pydantic import SecretStr

from infra.policy.rule import Resource, items, rule, stack_rule
from infra.policy.rules.kubernetes import PODS, containers

CREDENTIALS: Mapping[str, re.Pattern[str]] = {
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a GitHub token": re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{22,})"),
    "a password in a URL": re.compile(r"://[^/\s:@$\"']+:[^/\s:@$\"']+@"),
}
HOLDERS: Mapping[str, tuple[str, ...]] = {
    "aws:secretsmanager/secretVersion:SecretVersion": ("secretString", "secretBinary"),
    "aws:ssm/parameter:Parameter": ("value",),
    "docker-build:index:Image": ("registries",),
    "kubernetes:core/v1:Secret": ("data", "stringData"),
}
"""The inputs in which secrets are allowed: the engine encrypts them in its state, AWS and Kubernetes protect them."""
SECRET_NAME = re.compile(r"(?i)(password|passwd|secret|token|api_?key|access_?key|private_?key|credential)")


@rule(ids=("CKV_AWS_46", "CKV_SECRET_2", "CKV_SECRET_4", "CKV_SECRET_13"))
def no_secret_in_plain_text(resource: Resource) -> Iterator[str]:
    """No input contains a key, a private key, a token or a secret setting, except where secrets are allowed.

    Secrets are allowed in Secrets Manager, SecureString parameters and Kubernetes' Secrets. Secret settings are the
    encrypted settings of the stack file. Those with fewer than eight characters are ignored, because they could occur
    in any text.
    """
    secrets = _secrets(resource)
    for path, text in texts(resource.inputs):
        if path.split(".")[0] not in HOLDERS.get(resource.kind, ()):
            for what in _found(_readable(path, text), secrets):
                yield f"{path} contains {what}: keep it in Secrets Manager or a Kubernetes Secret"


@rule(*PODS, "kubernetes:core/v1:ConfigMap")
def secrets_by_reference(resource: Resource) -> Iterator[str]:
    """A pod's setting whose name says that it is secret refers to a Secret, and has no plain value."""
    named = {key: value for key, value in (resource.inputs.get("data") or {}).items() if isinstance(value, str)}
    if resource.kind in PODS:
        named = {
            one["name"]: one["value"] for box in containers(resource) for one in items(box.get("env")) if "value" in one
        }
    for name, value in named.items():
        # By convention, NAME_FILE says where the secret is mounted.
        mounted = name.upper().endswith("_FILE") and value.startswith("/")
        if value and SECRET_NAME.search(name) and not mounted:
            yield f"{name} has a plain value: refer to a Secret (valueFrom.secretKeyRef)"


@stack_rule(ids=("CKV_SECRET_2", "CKV_SECRET_4", "CKV_SECRET_13"))
def no_secret_in_outputs(resources: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    """No output of the stack contains a secret, because outputs are printed."""
    for stack in resources:
        if stack.kind == "pulumi:pulumi:Stack":
            for path, text in texts(stack.inputs):
                for what in _found(text, _secrets(stack)):
                    yield stack, f"the output {path} contains {what}: export where it is kept instead"


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The path and value of every text in it; unknown values are skipped."""
    if isinstance(value, pulumi.StringAsset):
        value = value.text
    if isinstance(value, str):
        yield path, value
        return
    keys: Iterable[Any] = (
        value if isinstance(value, Mapping) else range(len(value)) if isinstance(value, Sequence) else ()
    )
    for key in keys:
        try:
            yield from texts(value[key], f"{path}.{key}" if path else str(key))
        except UnknownValueError:
            continue


def _secrets(resource: Resource) -> list[str]:
    """The values of the stack's secret settings."""
    settings = dict(resource.settings) if resource.settings else {}
    values = [value.get_secret_value() for value in settings.values() if isinstance(value, SecretStr)]
    return [value for value in values if len(value) >= 8]


def _readable(path: str, text: str) -> str:
    """The text; for user data in base64, as in a launch template, also the decoded text."""
    try:
        return text + b64decode(text, validate=True).decode(errors="ignore") if path.startswith("userData") else text
    except ValueError:
        return text


def _found(text: str, secrets: Sequence[str]) -> Iterator[str]:
    yield from (what for what, pattern in CREDENTIALS.items() if pattern.search(text))
    if any(secret in text for secret in secrets):
        yield "a secret setting's value"
