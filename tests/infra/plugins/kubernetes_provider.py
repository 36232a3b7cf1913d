"""`python -m tests.infra.plugins.kubernetes_provider`: a `kubernetes` provider that applies objects to a real cluster.

Pulumi's own provider is no Go module that a proxy serves, and its binary is a download; where neither can be had, this
one does what a stack sees of it: server-side apply (a dry run in a preview), replacements, waiting, reports, deletes.
"""
# ruff: noqa: ARG002, N802 - gRPC's names

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import yaml
from google.protobuf import any_pb2, empty_pb2
from kubernetes import client, config, dynamic
from kubernetes.dynamic.exceptions import DynamicApiError, NotFoundError
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2, provider_pb2_grpc, status_pb2

from tests.infra.plugins.rollout import DELETE_SECONDS, ROLLOUT_SECONDS, Object, Waiter, WaitError
from tests.infra.recording import rules
from tests.infra.recording.provider import Recorder, has_unknown, name_of, plain, token_of, wire
from tests.infra.recording.world import RECORD

AUTONAMED = "pulumi.com/autonamed"
MANAGER = "pulumi-kubernetes"
OWN = ("__inputs", "__initialApiVersion", "__fieldManager")
EVENTS_SECONDS = 1.0
PATIENCE = "ATLAS_TEST_ROLLOUT_SECONDS"
"""The time limit for a rollout, instead of the program's."""
ECR = "ATLAS_TEST_ECR"
"""HOST=REGISTRY: a registry on this machine that replaces a stack's ECR; the cluster pulls from it."""


def _pullable(body: Object) -> Object:
    """Replace ECR's address in images with that of the local registry."""
    host, _, registry = os.environ.get(ECR, "").partition("=")
    found: Object = json.loads(json.dumps(body).replace(f"{host}/", f"{registry}/")) if host else body
    return found


class Applier(Recorder):
    """Answers the engine for `kubernetes`."""

    def __init__(self, engine: str | None) -> None:
        os.environ.setdefault(RECORD, os.devnull)
        super().__init__("kubernetes")
        self.engine = engine_pb2_grpc.EngineStub(grpc.insecure_channel(engine)) if engine else None
        self.api: Any = None
        self.lock = threading.Lock()

    # --- configuration ---

    def Configure(self, request: Any, context: Any) -> Any:
        given = request.variables.get("kubernetes:config:kubeconfig", "") or os.environ.get("KUBECONFIG", "")
        if not given:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "kubernetes: no kubeconfig")
        text = Path(given).read_text() if "\n" not in given and Path(given).is_file() else given
        settings = client.Configuration()
        settings.retries = 3
        config.load_kube_config_from_dict(yaml.safe_load(text), client_configuration=settings)
        cache = Path(tempfile.gettempdir(), f"atlas-discovery-{os.getpid()}.json")
        self.api = dynamic.DynamicClient(client.ApiClient(settings), cache_file=str(cache))
        return provider_pb2.ConfigureResponse(acceptSecrets=False, supportsPreview=True, acceptResources=False)

    # --- resources ---

    def Diff(self, request: Any, context: Any) -> Any:
        old, new = plain(request.old_inputs), plain(request.news)
        ignored = list(request.ignoreChanges)
        paths = [
            path
            for path in sorted(_differences(old, new))
            if not any(path == one or path.startswith((f"{one}.", f"{one}[")) for one in ignored)
        ]
        forced = ("metadata.name", "metadata.namespace", *rules.REPLACES.get(token_of(request.urn), ()))
        replaces = [path for path in paths if any(_within(path, one) for one in forced)]
        metadata = new.get("metadata") or {}
        here = plain(request.olds).get("metadata") or {}
        stays = metadata.get("name") == here.get("name") and metadata.get(
            "namespace", here.get("namespace")
        ) == here.get("namespace")
        own_name = AUTONAMED not in (metadata.get("annotations") or {})
        kinds = provider_pb2.PropertyDiff
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if paths else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=sorted({path.split(".")[0].split("[")[0] for path in paths}),
            replaces=replaces,
            deleteBeforeReplace=bool(replaces) and own_name and stays,
            detailedDiff={
                path: kinds(kind=kinds.UPDATE_REPLACE if path in replaces else kinds.UPDATE) for path in paths
            },
            hasDetailedDiff=True,
        )

    def Create(self, request: Any, context: Any) -> Any:
        inputs = plain(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(id="", properties=wire(self._foreseen(inputs, context)))
        begun = time.time()
        try:
            if self._get(inputs) is not None:
                where = _id(inputs)
                self._refuse(
                    context,
                    request,
                    "create",
                    begun,
                    f"{inputs['kind']} {where} already exists: not made by this stack",
                )
            made = self._apply(inputs)
        except DynamicApiError as error:
            self._refuse(context, request, "create", begun, _said(error))
        identifier, outputs = self._await("create", request, context, inputs, made, begun)
        return provider_pb2.CreateResponse(id=identifier, properties=wire(outputs))

    def Update(self, request: Any, context: Any) -> Any:
        inputs = plain(request.news)
        if request.preview:
            foreseen = self._foreseen(inputs, context, plain(request.olds))
            return provider_pb2.UpdateResponse(properties=wire(foreseen))
        begun = time.time()
        try:
            made = self._apply(inputs)
        except DynamicApiError as error:
            self._refuse(context, request, "update", begun, _said(error))
        _, outputs = self._await("update", request, context, inputs, made, begun)
        return provider_pb2.UpdateResponse(properties=wire(outputs))

    def Read(self, request: Any, context: Any) -> Any:
        state, inputs = plain(request.properties), plain(request.inputs)
        known = inputs or state
        if not known.get("kind"):
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "kubernetes: an import is not part of the tests")
        live = self._get(known)
        if live is None:
            return provider_pb2.ReadResponse(id="")
        try:
            reasons = self._waiter().problems(live)
        except DynamicApiError as error:
            reasons = [_said(error)]
        pruned = _pruned(live, inputs)
        properties, now = wire(_outputs(live, pruned)), wire(pruned)
        if reasons:
            message = f"Resource '{known['metadata']['name']}' was created but failed to initialize"
            _fail_partly(context, message, reasons, _id(live), properties, now)
        return provider_pb2.ReadResponse(id=_id(live), properties=properties, inputs=now)

    def Delete(self, request: Any, context: Any) -> Any:
        begun, state = time.time(), plain(request.properties)
        try:
            self._resource(state).delete(
                name=state["metadata"]["name"],
                namespace=state["metadata"].get("namespace"),
                body={"propagationPolicy": "Foreground"},
            )
            self._waiter().gone(state, request.timeout or DELETE_SECONDS)
        except NotFoundError:
            pass
        except DynamicApiError as error:
            self._refuse(context, request, "delete", begun, _said(error))
        except WaitError as error:
            self._note("delete", request, request.id, state, {}, str(error), begun)
            _fail_partly(context, str(error), error.reasons, request.id, request.properties, request.old_inputs)
        self._note("delete", request, request.id, plain(request.old_inputs), {}, "", begun)
        return empty_pb2.Empty()

    # --- the cluster ---

    def _resource(self, thing: Object) -> Any:
        with self.lock:  # discovery fills a cache
            return self.api.resources.get(api_version=thing["apiVersion"], kind=thing["kind"])

    def _get(self, thing: Object) -> Object | None:
        metadata = thing["metadata"]
        try:
            found = self._resource(thing).get(name=metadata["name"], namespace=self._space(thing))
        except NotFoundError:
            return None
        return dict(found.to_dict())

    def _find(self, version: str, kind: str, namespace: str | None, labels: Mapping[str, str]) -> list[Object]:
        wanted = ",".join(f"{key}={value}" for key, value in labels.items())
        listed = self._resource({"apiVersion": version, "kind": kind}).get(
            namespace=namespace, label_selector=wanted or None
        )
        return [dict(item) for item in listed.to_dict()["items"]]

    def _space(self, thing: Object) -> str | None:
        return (thing["metadata"].get("namespace") or "default") if self._resource(thing).namespaced else None

    def _apply(self, inputs: Object, *, dry: bool = False) -> Object:
        resource = self._resource(inputs)
        made = self.api.server_side_apply(
            resource,
            body=_pullable(_body(inputs)),
            name=inputs["metadata"]["name"],
            namespace=self._space(inputs),
            field_manager=MANAGER,
            force_conflicts=dry,
            **({"dry_run": "All"} if dry else {}),
        )
        return dict(made.to_dict())

    def _foreseen(self, inputs: Object, context: Any, old: Object | None = None) -> Object:
        """The API server's dry-run result; the inputs if the server can't be queried yet."""
        if self.api is None or has_unknown(inputs):
            return {**(old or {}), **inputs}
        try:
            if old is None and self._get(inputs) is not None:
                return inputs  # the one that this will replace, under the same name
            made = self._apply(inputs, dry=True)
        except NotFoundError:
            return {**(old or {}), **inputs}  # its namespace is part of the same preview
        except DynamicApiError as error:
            context.abort(grpc.StatusCode.UNKNOWN, _said(error))
        if old is None:
            made.pop("status", None)
        return _outputs(made, inputs)

    def _waiter(self) -> Waiter:
        return Waiter(self._find, self._get, self.stopping)

    def _await(
        self, operation: str, request: Any, context: Any, inputs: Object, made: Object, begun: float
    ) -> tuple[str, Object]:
        over = threading.Event()
        teller = threading.Thread(target=self._tell_warnings, args=(request.urn, made, over), daemon=True)
        teller.start()
        failure: WaitError | None = None
        try:
            seconds = float(os.environ.get(PATIENCE) or request.timeout or ROLLOUT_SECONDS)
            live = self._waiter().ready(made, seconds)
        except WaitError as error:
            failure, live = error, self._get(made) or made
        finally:
            over.set()
            teller.join()
        outputs = _outputs(live, inputs)
        said = f'"{request.urn}": the Kubernetes API server reported that it failed to become live: {failure}'
        self._note(operation, request, _id(live), inputs, outputs, said if failure else "", begun)
        if failure is not None:
            _fail_partly(context, f"resource {said}", failure.reasons, _id(live), wire(outputs), wire(inputs))
        return _id(live), outputs

    def _tell_warnings(self, urn: str, made: Object, over: threading.Event) -> None:
        """Report the object's events of type Warning."""
        told: set[str] = set()
        while self.engine is not None and not over.wait(EVENTS_SECONDS):
            try:
                events = self._find("v1", "Event", made["metadata"].get("namespace") or "default", {})
            except DynamicApiError:
                continue
            for event in events:
                text = f"{event.get('reason')}: {event.get('message')}"
                mine = (event.get("involvedObject") or {}).get("uid") == made["metadata"]["uid"]
                if mine and event.get("type") == "Warning" and text not in told:
                    told.add(text)
                    self.engine.Log(
                        engine_pb2.LogRequest(severity=engine_pb2.WARNING, message=text, urn=urn, ephemeral=True)
                    )

    def _note(
        self, operation: str, request: Any, identifier: str, inputs: Object, outputs: Object, error: str, begun: float
    ) -> None:
        self.world.note(
            operation=operation, token=token_of(request.urn), name=name_of(request.urn), urn=request.urn,
            id=identifier, inputs=inputs, outputs=outputs, error=error, begun=begun, ended=time.time(),
        )  # fmt: skip

    def _refuse(self, context: Any, request: Any, operation: str, begun: float, message: str) -> None:
        self._note(operation, request, "", {}, {}, message, begun)
        context.abort(grpc.StatusCode.UNKNOWN, message)


def _fail_partly(context: Any, message: str, reasons: list[str], identifier: str, properties: Any, inputs: Any) -> None:
    """Fail in a way that the engine keeps the created object, and tries again at the next `up`."""
    detail = any_pb2.Any()
    detail.Pack(
        provider_pb2.ErrorResourceInitFailed(
            id=identifier, properties=properties, reasons=[message, *reasons], inputs=inputs
        )
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=message, details=[detail])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.UNKNOWN, message)


def _said(error: DynamicApiError) -> str:
    """The API server's error message."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (TypeError, ValueError, KeyError):
        return str(error)


def _id(live: Object) -> str:
    metadata = live["metadata"]
    return "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))


def _body(inputs: Object) -> Object:
    return {key: value for key, value in inputs.items() if not key.startswith("__")}


def _outputs(live: Object, inputs: Object) -> Object:
    """The object in the cluster, and its inputs."""
    shown = {key: value for key, value in live.items() if key not in OWN}
    (shown.get("metadata") or {}).pop("managedFields", None)
    if "stringData" in inputs:
        shown["stringData"] = inputs["stringData"]
    return {**shown, "__initialApiVersion": live["apiVersion"], "__fieldManager": MANAGER}


def _pruned(live: Any, inputs: Any) -> Any:
    """The live values of the fields that are inputs."""
    if isinstance(inputs, dict) and isinstance(live, dict):
        return {
            key: value if key == "stringData" or key.startswith("__") else _pruned(live[key], value)
            for key, value in inputs.items()
            if key in live or key == "stringData" or key.startswith("__") or value in ({}, [], None)
        }
    if isinstance(inputs, list) and isinstance(live, list) and len(inputs) == len(live):
        return [_pruned(one, other) for one, other in zip(live, inputs, strict=True)]
    return live


def _differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            if key.startswith("__"):
                continue
            step = key if key.replace("_", "a").isalnum() else f'["{key}"]'
            where = f"{at}.{step}" if at and not step.startswith("[") else f"{at}{step}"
            yield from _differences(old.get(key), new.get(key), where)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differences(one, other, f"{at}[{index}]")
    elif old != new:
        yield at


def _within(path: str, field: str) -> bool:
    """Whether the path is the field's, or below it; a parent that is wholly unknown doesn't count, as in diff.go."""
    return path == field or path.startswith((f"{field}.", f"{field}["))


def serve(servicer: Applier) -> None:
    """Print the port, as the engine expects, and answer requests until the engine kills this process."""
    largest = 2**28
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=16), options=[("grpc.max_receive_message_length", largest)]
    )
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    serve(Applier(sys.argv[1] if len(sys.argv) > 1 else None))
