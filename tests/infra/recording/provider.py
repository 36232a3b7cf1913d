"""A provider that makes nothing, checks everything and notes it all."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from importlib.metadata import version
from typing import Any

import grpc
from google.protobuf import any_pb2, empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

from tests.infra.recording import answers, rules, schema
from tests.infra.recording.rules import UNKNOWN
from tests.infra.recording.world import World, this_world

Detailed = provider_pb2.PropertyDiff
KINDS = {
    ("add", False): Detailed.ADD,
    ("add", True): Detailed.ADD_REPLACE,
    ("delete", False): Detailed.DELETE,
    ("delete", True): Detailed.DELETE_REPLACE,
    ("update", False): Detailed.UPDATE,
    ("update", True): Detailed.UPDATE_REPLACE,
}


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
    return bool(value == UNKNOWN)


class Recorder(provider_pb2_grpc.ResourceProviderServicer):
    """Answers the engine for one package."""

    def __init__(self, package: str, world: World | None = None, environment: Mapping[str, str] | None = None) -> None:
        self.package = package
        self.world = this_world() if world is None else world
        self.environment = os.environ if environment is None else environment
        self.stopping = threading.Event()

    # --- the plugin itself ---

    def Handshake(self, request: Any, context: Any) -> Any:
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=False, accept_resources=False)

    def Attach(self, request: Any, context: Any) -> Any:
        self.stopping.clear()  # a new run of the engine
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=version(f"pulumi_{self.package.replace('-', '_')}"))

    def Cancel(self, request: Any, context: Any) -> Any:
        self.stopping.set()
        return empty_pb2.Empty()

    # --- its configuration ---

    def CheckConfig(self, request: Any, context: Any) -> Any:
        token = f"{schema.PROVIDER}{self.package}"
        return provider_pb2.CheckResponse(inputs=request.news, failures=_failures(token, plain(request.news)))

    def DiffConfig(self, request: Any, context: Any) -> Any:
        old, new = plain(request.olds), plain(request.news)
        keys = sorted(key for key in old.keys() | new.keys() if key != "version" and old.get(key) != new.get(key))
        # pulumi-kubernetes: another cluster means other objects, and an unknown one may be another.
        replaces = [
            key for key in keys if key == "kubeconfig" and _cluster_in(old.get(key)) != _cluster_in(new.get(key))
        ]
        return provider_pb2.DiffResponse(changes=_changes(keys), diffs=keys, replaces=replaces)

    def Configure(self, request: Any, context: Any) -> Any:
        return provider_pb2.ConfigureResponse(acceptSecrets=False, supportsPreview=True, acceptResources=False)

    # --- resources ---

    def Check(self, request: Any, context: Any) -> Any:
        token, new = token_of(request.urn), plain(request.news)
        failures = _failures(token, new)
        try:
            complete = rules.named(token, name_of(request.urn), plain(request.olds), new)
        except ValueError as error:
            failures.append(provider_pb2.CheckFailure(reason=f"{token}: {error}"))
            complete = new
        return provider_pb2.CheckResponse(inputs=wire(complete), failures=failures)

    def Diff(self, request: Any, context: Any) -> Any:
        try:
            found = rules.difference(token_of(request.urn), plain(request.old_inputs), plain(request.news))
        except LookupError as error:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, str(error))
        detailed = {
            path: Detailed(kind=KINDS[kind, path in found.replaces], inputDiff=True)
            for path, kind in found.paths.items()
        }
        return provider_pb2.DiffResponse(
            changes=_changes(found.keys),
            diffs=found.keys,
            replaces=sorted(found.replaces),
            deleteBeforeReplace=found.deleted_first,
            detailedDiff=detailed,
            hasDetailedDiff=True,
        )

    def Create(self, request: Any, context: Any) -> Any:
        token, inputs = token_of(request.urn), plain(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(
                id="", properties=wire({**_unknown_outputs(token), **_foreseen(token, inputs)})
            )
        return self._noted("create", request, context, inputs, lambda: self._made(token, name_of(request.urn), inputs))

    def Update(self, request: Any, context: Any) -> Any:
        token, old, new = token_of(request.urn), plain(request.olds), plain(request.news)
        if request.preview:
            kept = {} if token == "docker-build:index:Image" else old
            return provider_pb2.UpdateResponse(
                properties=wire({**_unknown_outputs(token), **kept, **_foreseen(token, new, old)})
            )
        return self._noted("update", request, context, new, lambda: (request.id, answers.changed(token, old, new)))

    def Delete(self, request: Any, context: Any) -> Any:
        return self._noted("delete", request, context, plain(request.old_inputs), lambda: (request.id, {}))

    def Read(self, request: Any, context: Any) -> Any:
        refusal = self.world.refused("read", request.urn)
        if refusal:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal[0])
        found = self.world.existing().get(f"{token_of(request.urn)} {request.id}")
        if found is None:
            return provider_pb2.ReadResponse()
        if token_of(request.urn).startswith("kubernetes:"):
            # The object as it is in the cluster, also after an update that never became ready.
            return provider_pb2.ReadResponse(id=request.id, properties=wire(found.outputs), inputs=wire(found.inputs))
        # What a killed run made has no outputs in the state yet, or only its inputs.
        known = len(request.properties) > len(request.inputs) + 1
        properties = request.properties if known else wire(found.outputs)
        return provider_pb2.ReadResponse(id=request.id, properties=properties, inputs=request.inputs)

    def Invoke(self, request: Any, context: Any) -> Any:
        arguments, begun = plain(request.args), time.time()
        try:
            result = answers.invoked(request.tok, arguments)
        except LookupError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error.args[0]))
        self.world.note(
            operation="invoke", token=request.tok, name="", urn="", id="", inputs=arguments, outputs={}, error="",
            begun=begun, ended=time.time(),
        )  # fmt: skip
        return provider_pb2.InvokeResponse(**{"return": wire(result)})

    def _made(self, token: str, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        identity = rules.identity(token, inputs)
        if identity is not None:
            for other in self.world.of(token):
                if other.token == token and rules.identity(token, other.outputs) == identity:
                    reason = rules.UNIQUE[token][1] if token in rules.UNIQUE else "AlreadyExists: the object exists"
                    raise Refused(f"creating {token.rsplit(':', maxsplit=1)[-1]} ({identity}): {reason}")
        return answers.made(token, name, inputs, self.environment)

    def _noted(
        self, operation: str, request: Any, context: Any, inputs: dict[str, Any], work: Callable[[], tuple[str, Any]]
    ) -> Any:
        begun = time.time()
        error, half = self.world.refused(operation, request.urn) or ("", False)
        delay = self.world.delay(token_of(request.urn))
        if delay and self.stopping.wait(delay) and operation == "create":
            error, half = "context canceled", False
        identifier: str = ""
        outputs: dict[str, Any] = {}
        if not error or half:
            try:
                identifier, outputs = work()
            except Refused as refusal:
                error = str(refusal)
        self.world.note(
            operation=operation, token=token_of(request.urn), name=name_of(request.urn), urn=request.urn,
            id=identifier, inputs=inputs, outputs=outputs, error="" if half else error, begun=begun, ended=time.time(),
        )  # fmt: skip
        if self.world.after is not None:
            self.world.after(operation, request.urn)
        if error and half:
            _abort_half_done(context, error, identifier, outputs, inputs)
        if error:
            context.abort(grpc.StatusCode.UNKNOWN, error)
        if operation == "create":
            return provider_pb2.CreateResponse(id=identifier, properties=wire(outputs))
        if operation == "update":
            return provider_pb2.UpdateResponse(properties=wire(outputs))
        return empty_pb2.Empty()


class Refused(Exception):  # noqa: N818 - reads as a sentence
    """AWS says no."""


def _abort_half_done(
    context: Any, reason: str, identifier: str, outputs: dict[str, Any], inputs: dict[str, Any]
) -> None:
    """It exists, but never became ready: the engine keeps it and repairs it in the next run."""
    detail = any_pb2.Any()
    detail.Pack(
        provider_pb2.ErrorResourceInitFailed(
            id=identifier, properties=wire(outputs), inputs=wire(inputs), reasons=[reason]
        )
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=reason, details=[detail])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.UNKNOWN, reason)


def _failures(token: str, inputs: dict[str, Any]) -> list[Any]:
    return [
        provider_pb2.CheckFailure(property=path, reason=f"{token} {path}: {reason}")
        for path, reason in schema.problems(token, inputs)
    ]


def _changes(keys: list[str]) -> Any:
    return provider_pb2.DiffResponse.DIFF_SOME if keys else provider_pb2.DiffResponse.DIFF_NONE


def _cluster_in(kubeconfig: Any) -> Any:
    if kubeconfig is None or kubeconfig == UNKNOWN:
        return kubeconfig
    try:
        return json.loads(kubeconfig)["clusters"]
    except (ValueError, KeyError, TypeError):
        return kubeconfig  # a path, or YAML


def _unknown_outputs(token: str) -> dict[str, Any]:
    """Every output is unknown until it is made; what the program gave is known."""
    return dict.fromkeys(schema.output_names(token), UNKNOWN)


def _foreseen(token: str, inputs: dict[str, Any], old: dict[str, Any] | None = None) -> dict[str, Any]:
    """Outputs as a preview tells them, beside those that are unknown as a whole."""
    outputs = {key: value for key, value in inputs.items() if not key.startswith("__")}
    if token == "aws:eks/cluster:Cluster" and outputs.get("vpcConfig") != UNKNOWN:
        before = (old or {}).get("vpcConfig", {})
        made = {key: before.get(key, UNKNOWN) for key in ("clusterSecurityGroupId", "vpcId")}
        outputs["vpcConfig"] = {**outputs["vpcConfig"], **made}
    if token == "aws:ec2/launchTemplate:LaunchTemplate":
        # Any change is a new version (terraform-provider-aws, SetNewComputed).
        outputs |= {"latestVersion": UNKNOWN, "defaultVersion": UNKNOWN}
    if token.startswith("kubernetes:") and isinstance(outputs.get("metadata"), dict):
        before = (old or {}).get("metadata", {})
        outputs["metadata"] = {"uid": before.get("uid", UNKNOWN), **outputs["metadata"]}
    return outputs


def start(servicer: Any) -> tuple[Any, int]:
    """A running server and its port."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=16), options=[("grpc.max_receive_message_length", 2**28)]
    )
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def serve(servicer: Any) -> None:
    """Print the port, as the engine expects of a plugin, and answer until it kills us."""
    server, port = start(servicer)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    server.wait_for_termination()


if __name__ == "__main__":
    serve(Recorder(sys.argv[1]))
