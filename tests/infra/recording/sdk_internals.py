"""All that the tests use of the Pulumi SDK's private parts, in a single place. Nothing else imports them.

The SDK may change them in any release. When its version does, read what LOOK_AT names, correct this file, set CHECKED.
"""

from typing import Any

from pulumi.automation import Stack

CHECKED = "3.260.0"
"""The version of the SDK that these parts were last read in."""
LOOK_AT = {
    "pulumi/runtime/_grpc_settings.py": "_GRPC_CHANNEL_OPTIONS: the list of options that every channel is opened with",
    "pulumi/_types.py": "is_input_type, input_type_py_to_pulumi_names, input_type_types; _pulumi_name of a getter",
    "pulumi/automation/_stack.py": "Stack._run_pulumi_cmd_sync: runs the CLI with a stack's environment",
    "pulumi/runtime/proto/": "the generated gRPC messages and servers that the recording providers speak",
}
"""File of the SDK -> what is used of it."""

try:
    from pulumi._types import input_type_py_to_pulumi_names, input_type_types, is_input_type
    from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
except ImportError as error:
    raise ImportError(f"{error}: {__file__} knows version {CHECKED} of the SDK and says what to look at") from error

__all__ = ["is_input_type"]

OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
"""The option of a gRPC channel that shares no connection with other channels of this process."""


def open_own_connections() -> None:
    """Engines come and go at ports of this machine: let no channel share the connection of an earlier engine's.

    A channel to a new engine would take over the broken connection of the earlier engine at the same port, and say
    "Resource monitor has terminated" at once.
    """
    if OWN_CONNECTION not in _GRPC_CHANNEL_OPTIONS:
        _GRPC_CHANNEL_OPTIONS.append(OWN_CONNECTION)


def input_names(kind: Any) -> dict[str, str]:
    """Python name -> wire name of an input class's properties."""
    return input_type_py_to_pulumi_names(kind)


def input_types(kind: Any) -> dict[str, Any]:
    """Wire or Python name -> type of an input class's properties."""
    return input_type_types(kind)


def wire_name(getter: Any, name: str) -> str:
    """The wire name of the output whose property has this getter and this Python name."""
    return str(getattr(getter, "_pulumi_name", name))


def run_pulumi(stack: Stack, arguments: list[str]) -> None:
    """`pulumi arguments…` with the stack's folder and environment."""
    stack._run_pulumi_cmd_sync(arguments)
