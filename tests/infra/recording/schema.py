"""What the installed Python SDKs say a resource's inputs are: names, types, what is required."""

import ast
import collections.abc
import enum
import importlib
import importlib.util
import inspect
import json
import types
import typing
from functools import cache
from pathlib import Path
from typing import Any

import pulumi

from tests.infra.recording import sdk_internals
from tests.infra.recording.rules import UNKNOWN

PROVIDER = "pulumi:providers:"
"""Types of a package's own configuration begin so."""
PLUGIN = frozenset({"version", "pluginDownloadURL"})
"""What the engine adds to a provider's configuration."""


@cache
def resource_classes(package: str) -> dict[str, tuple[str, str]]:
    """Type token -> module and class, as the SDK registers them."""
    module = f"pulumi_{package.replace('-', '_')}"
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    found: dict[str, tuple[str, str]] = {}
    for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "register":
            for keyword in node.keywords:
                if keyword.arg == "resource_modules":
                    assert isinstance(keyword.value, ast.Constant)
                    for entry in json.loads(str(keyword.value.value)):
                        found |= {token: (entry["fqn"], name) for token, name in entry["classes"].items()}
    return found


@cache
def arguments(token: str) -> type[Any] | None:
    """The class of a resource's inputs; None for a type that the SDK doesn't know."""
    if token.startswith(PROVIDER):
        package = token.removeprefix(PROVIDER).replace("-", "_")
        return typing.cast(type[Any], importlib.import_module(f"pulumi_{package}").ProviderArgs)
    classes = resource_classes(token.split(":", maxsplit=1)[0])
    if token not in classes:
        return None
    module, name = classes[token]
    home = importlib.import_module(module)
    # Where the resource itself is called …Args or shares its name with a nested type, the SDK says InitArgs.
    for candidate in (f"{name}InitArgs", f"{name}Args"):
        found = getattr(home, candidate, None)
        if isinstance(found, type) and sdk_internals.is_input_type(found):
            return found
    raise LookupError(f"{token}: no class of its inputs in {module}")


@cache
def output_names(token: str) -> frozenset[str]:
    """Wire names of a resource's outputs."""
    module, name = resource_classes(token.split(":", maxsplit=1)[0])[token]
    resource = getattr(importlib.import_module(module), name)
    return frozenset(
        sdk_internals.wire_name(member.fget, label)
        for label, member in inspect.getmembers(resource)
        if isinstance(member, property) and label not in dir(pulumi.CustomResource)
    )


def load(tokens: typing.Iterable[str]) -> None:
    """Import what these types need and keep their shapes, so that processes that fork from this have them."""
    seen: set[Any] = set()

    def visit(hint: Any) -> None:
        for choice in _choices(hint):
            if typing.get_args(choice):
                visit(typing.get_args(choice)[-1])
            elif isinstance(choice, type) and sdk_internals.is_input_type(choice) and choice not in seen:
                seen.add(choice)
                for inner in _shape(choice)[0].values():
                    visit(inner)

    for token in tokens:
        visit(arguments(token))
        if not token.startswith(PROVIDER):
            output_names(token)


def problems(token: str, inputs: dict[str, Any]) -> list[tuple[str, str]]:
    """What the SDK's types forbid in these inputs (wire names): property path and reason."""
    kind = arguments(token)
    if kind is None:
        return [("", f"{token} is no resource of the installed SDK")]
    if token.startswith(PROVIDER):
        # A provider's configuration is text: lists and numbers arrive as JSON.
        inputs = {key: _decoded(value) for key, value in inputs.items() if key not in PLUGIN}
    return list(_object("", inputs, kind))


def _decoded(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("[", "{", "t", "f"):
        try:
            found = json.loads(value)
        except ValueError:
            return value
        return value if isinstance(found, dict) else found
    return value


@cache
def _shape(kind: Any) -> tuple[dict[str, Any], list[str]]:
    """Wire names and types of a class's properties, and which of them are required."""
    names, kinds = sdk_internals.input_names(kind), sdk_internals.input_types(kind)
    hints = {wire: kinds.get(wire, kinds.get(python)) for python, wire in names.items()}
    parameters = inspect.signature(kind.__init__).parameters
    required = [
        names[name] for name, at in parameters.items() if name in names and at.default is inspect.Parameter.empty
    ]
    return hints, required


def _object(path: str, value: dict[str, Any], kind: type[Any]) -> typing.Iterator[tuple[str, str]]:
    inner: Any = kind
    hints, required = _shape(inner)
    for key, item in value.items():
        where = f"{path}.{key}".lstrip(".")
        if key.startswith("__"):
            continue
        if key not in hints:
            yield where, f"unknown property; there are {', '.join(sorted(hints))}"
        elif item is not None:
            yield from _value(where, item, hints[key])
    for wire in required:
        if value.get(wire) is None:
            yield f"{path}.{wire}".lstrip("."), "is required"


def _value(path: str, value: Any, hint: Any) -> typing.Iterator[tuple[str, str]]:
    if value == UNKNOWN or hint is None:
        return
    choices = [choice for choice in _choices(hint) if choice is not Any]
    if not choices or any(getattr(choice, "__name__", "") == "Any" for choice in choices):
        return
    complaints: list[list[tuple[str, str]]] = []
    for choice in choices:
        found = list(_one(path, value, choice))
        if not found:
            return
        complaints.append(found)
    # The most telling: a complaint about what is inside beats one about the kind.
    yield from max(complaints, key=lambda found: max(len(where) for where, _ in found))


def _choices(hint: Any) -> list[Any]:
    """The types that a hint admits, without None, Output and Awaitable."""
    origin = typing.get_origin(hint)
    if origin is typing.Union or origin is types.UnionType:
        return [choice for part in typing.get_args(hint) for choice in _choices(part)]
    if hint is type(None) or origin in (pulumi.Output, collections.abc.Awaitable):
        return []
    if isinstance(hint, typing.ForwardRef):
        return []
    return [hint]


def _one(path: str, value: Any, kind: Any) -> typing.Iterator[tuple[str, str]]:
    origin = typing.get_origin(kind)
    if origin in (collections.abc.Sequence, list):
        if not isinstance(value, list):
            yield path, f"must be a list, got {value!r}"
            return
        for index, item in enumerate(value):
            yield from _value(f"{path}[{index}]", item, typing.get_args(kind)[0])
    elif origin in (collections.abc.Mapping, dict):
        if not isinstance(value, dict):
            yield path, f"must be a map, got {value!r}"
            return
        for key, item in value.items():
            yield from _value(f"{path}.{key}", item, typing.get_args(kind)[1])
    elif isinstance(kind, type) and sdk_internals.is_input_type(kind):
        if not isinstance(value, dict):
            yield path, f"must be an object, got {value!r}"
            return
        yield from _object(path, value, kind)
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        if value not in [member.value for member in kind]:
            yield path, f"must be one of {', '.join(str(member.value) for member in kind)}, got {value!r}"
    elif kind is bool:
        # The bridge coerces strings, as Terraform does.
        if not isinstance(value, bool) and value not in ("true", "false"):
            yield path, f"must be true or false, got {value!r}"
    elif kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield path, f"must be a number, got {value!r}"
        elif kind is int and value != int(value):
            yield path, f"must be a whole number, got {value!r}"
    elif kind is str:
        if not isinstance(value, str):
            yield path, f"must be a string, got {value!r}"
    elif isinstance(kind, type) and issubclass(kind, pulumi.Resource) and not isinstance(value, str | dict):
        yield path, f"must be a resource, got {value!r}"
