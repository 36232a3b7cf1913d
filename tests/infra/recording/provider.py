"""`python -m tests.infra.recording.provider PACKAGE`: a provider that makes nothing, checks everything and notes it all."""

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from importlib.metadata import version
from typing import Any

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from tests.infra.recording import answers, schema
from tests.infra.recording.world import this_world

DELAY = "ATLAS_RECORD_DELAY"
"""Seconds that a create takes."""


def plain(struct: struct_pb2.Struct) -> dict[str, Any]:
    """A message's properties; whole numbers as int."""
    return {key: _whole(value) for key, value in json_format.MessageToDict(struct).items()}


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def wire(properties: dict[str, Any]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(properties)
    return struct


def token_of(urn: str) -> str:
    """The resource's own type, without its parents'."""
    return urn.split("::")[2].rsplit("$", 1)[-1]


def name_of(urn: str) -> str:
    return urn.rsplit("::", 1)[-1]


def has_unknown(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(has_unknown, value.values()))
    if isinstance(value, list):
        return any(map(has_unknown, value))
    return bool(value == schema.UNKNOWN)


class Recorder(provider_pb2_grpc.ResourceProviderServicer):
    """Answers the engine for one package."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.world = this_world()
        self.stopping = threading.Event()

    def Handshake(self, request: Any, context: Any) -> Any:
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=False, accept_resources=False)

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=version(f"pulumi_{self.package.replace('-', '_')}"))

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: Any) -> Any:
        return provider_pb2.ConfigureResponse(acceptSecrets=False, supportsPreview=True, acceptResources=False)

    def Check(self, request: Any, context: Any) -> Any:
        token, inputs = token_of(request.urn), plain(request.news)
        failures = [
            provider_pb2.CheckFailure(property=path, reason=f"{token} {path}: {reason}")
            for path, reason in schema.problems(token, inputs)
        ]
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    def Diff(self, request: Any, context: Any) -> Any:
        token = token_of(request.urn)
        old, new = plain(request.old_inputs), plain(request.news)
        ignored = set(request.ignoreChanges)
        keys = sorted(
            key
            for key in old.keys() | new.keys()
            if not key.startswith("__") and key not in ignored and not _same(token, key, old.get(key), new.get(key))
        )
        replaces = [key for key in keys if key in answers.REPLACES.get(token, set())]
        if token in answers.KEPT_WHOLE and (old.get("immutable") or new.get("immutable")):
            replaces = keys
        # The bridge asks the provider to replace an instance for new user data only when told to.
        if token == "aws:ec2/instance:Instance" and "userData" in keys and new.get("userDataReplaceOnChange"):
            replaces.append("userData")
        named = token.startswith("kubernetes:") and "name" in (new.get("metadata") or {})
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if keys else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=keys,
            replaces=replaces,
            deleteBeforeReplace=named,
        )

    def Create(self, request: Any, context: Any) -> Any:
        token, inputs = token_of(request.urn), plain(request.properties)
        if request.preview:
            # A real provider leaves out what it will compute: the engine then makes every output unknown.
            return provider_pb2.CreateResponse(id="", properties=_foreseen(token, inputs))
        return self._noted("create", request, context, inputs, lambda: answers.made(token, name_of(request.urn), inputs))

    def Update(self, request: Any, context: Any) -> Any:
        token, old, new = token_of(request.urn), plain(request.olds), plain(request.news)
        if request.preview:
            kept = {} if token == "docker-build:index:Image" else old
            return provider_pb2.UpdateResponse(properties=wire({**_plain_unknown(token), **kept, **new}))
        return self._noted("update", request, context, new, lambda: (request.id, answers.changed(token, old, new)))

    def Delete(self, request: Any, context: Any) -> Any:
        return self._noted("delete", request, context, plain(request.old_inputs), lambda: (request.id, {}))

    def Read(self, request: Any, context: Any) -> Any:
        return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    def Invoke(self, request: Any, context: Any) -> Any:
        arguments = plain(request.args)
        begun = time.time()
        result = answers.invoked(request.tok, arguments)
        self.world.note(
            operation="invoke", token=request.tok, name="", urn="", id="", inputs=arguments, outputs={}, error="",
            begun=begun, ended=time.time(),
        )  # fmt: skip
        return getattr(provider_pb2, "InvokeResponse")(**{"return": wire(result)})

    def Cancel(self, request: Any, context: Any) -> Any:
        self.stopping.set()
        return empty_pb2.Empty()

    def _noted(
        self, operation: str, request: Any, context: Any, inputs: dict[str, Any], work: Callable[[], tuple[str, Any]]
    ) -> Any:
        begun = time.time()
        error = self.world.refused(operation)
        delay = float(os.environ.get(DELAY, "0"))
        if delay:
            self.stopping.wait(delay)
        identifier, outputs = ("", {}) if error else work()
        self.world.note(
            operation=operation, token=token_of(request.urn), name=name_of(request.urn), urn=request.urn,
            id=identifier, inputs=inputs, outputs=outputs, error=error or "", begun=begun, ended=time.time(),
        )  # fmt: skip
        if error:
            context.abort(grpc.StatusCode.UNKNOWN, error)
        if operation == "create":
            return provider_pb2.CreateResponse(id=identifier, properties=wire(outputs))
        if operation == "update":
            return provider_pb2.UpdateResponse(properties=wire(outputs))
        return empty_pb2.Empty()


def _same(token: str, key: str, old: Any, new: Any) -> bool:
    if token == "docker-build:index:Image" and key == "registries":
        # The real provider ignores passwords, which change with every login.
        return [entry["address"] for entry in old or []] == [entry["address"] for entry in new or []]
    return bool(old == new)


def _foreseen(token: str, inputs: dict[str, Any]) -> struct_pb2.Struct:
    outputs = {**_plain_unknown(token), **inputs}
    if token == "aws:eks/cluster:Cluster":
        outputs["vpcConfig"] = {**outputs["vpcConfig"], "clusterSecurityGroupId": schema.UNKNOWN}
    return wire(outputs)


def _plain_unknown(token: str) -> dict[str, Any]:
    """Every output is unknown until it is made."""
    return dict.fromkeys(schema.output_names(token), schema.UNKNOWN)


def serve(servicer: Any) -> None:
    """Print the port, as the engine expects of a plugin, and answer until it closes our standard input or kills us."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=[("grpc.max_receive_message_length", 2**28)])
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    server.wait_for_termination()


if __name__ == "__main__":
    serve(Recorder(sys.argv[1]))
