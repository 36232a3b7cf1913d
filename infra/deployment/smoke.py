"""The smoke test at the end of every deployment: a prediction from the running service."""

import http.client
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from infra.engine.stack import AtlasStack
from infra.errors import AwsError, ClusterError, ImageError
from infra.loopback import answers
from infra.names import SERVICE_PORT, SERVICE_READY
from infra.settings import AwsSettings, LocalSettings

KEY_VARIABLE = "ATLAS_API_KEY"
"""The environment variable with the API key that the smoke test sends, where the service needs one."""


def smoke_test(stack: AtlasStack, outputs: Mapping[str, Any], *, wait: int) -> dict[str, Any] | None:
    """Request a prediction; returns its request and answer, or None. AWS: an image that answers is marked as good."""
    aws = stack.settings if isinstance(stack.settings, AwsSettings) else None
    example = _example(stack, str(outputs["service"]), aws, patience=10 if aws is None else wait)
    if example is not None and aws is not None:
        _mark(stack, str(outputs["image"]))
    return example


def no_answer(stack: AtlasStack) -> str:
    """The message for a stack that is deployed but gives no prediction."""
    if isinstance(stack.settings, LocalSettings):
        return f"everything is up, but the service gave no prediction: `atlas logs --stack {stack.name}` says why"
    return (
        "everything is up, but the service gave no prediction: if this machine is outside atlas:serviceCidrs, use "
        f"--no-smoke; if the image is bad, run `atlas rollback --stack {stack.name}`"
    )


def predict(connect: Callable[[], http.client.HTTPConnection], key: str | None = None) -> tuple[str, Any]:
    """Send the service's own example; returns the request's body and the answer. Each request has its own connection.

    `key`: the API key that is sent.

    Raises OSError and HTTPException like the connection, ValueError when the answer isn't a prediction, KeyError
    when the service's OpenAPI document has no example.
    """
    document = _request(connect(), "GET", "/openapi.json", key=key)
    row = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]["rows"][0]
    # Only the required features, so that the example is short.
    required = document["components"]["schemas"]["Row"]["required"]
    body = json.dumps({"rows": [{name: row[name] for name in required} or row]})
    answer = _request(connect(), "POST", "/predict", body, key=key)
    if not answer.get("predictions"):
        raise ValueError(f"no prediction in {json.dumps(answer)[:200]}")
    return body, answer


def _refused(connect: Callable[[], http.client.HTTPConnection]) -> tuple[str, Any]:
    """Ask without a key: the request's body and the refusal. Raises ValueError when the service answers all the same.

    Whether the model predicts is known all the same: a service is ready only after it has predicted its example.
    """
    body = json.dumps({"rows": []})
    return body, _request(connect(), "POST", "/predict", body, status=401)


def _mark(stack: AtlasStack, reference: str) -> None:
    """Mark the image as good; a failure is only reported, because the stack is up."""
    from infra.deployment.images import image_of, mark_good

    image = image_of(reference)
    if image is None:
        return
    try:
        mark_good(image)
    except (AwsError, ImageError) as error:
        stack.say(f"atlas: {error}; so `atlas rollback` won't choose this image")


def _example(stack: AtlasStack, address: str, aws: AwsSettings | None, *, patience: float) -> dict[str, Any] | None:
    """A prediction from the running service: the request as a curl command, and its real answer.

    If the load balancer can't be reached from here (atlas:serviceCidrs), a pod is asked through the cluster's API.
    `patience` in seconds: a new load balancer's name resolves only after a while. Where API keys are needed, the key
    is that of ATLAS_API_KEY; without it, the answer is the refusal of a request without a key.
    """
    key = os.environ.get(KEY_VARIABLE) or None
    asks_for_keys = isinstance(stack.settings, LocalSettings | AwsSettings) and stack.settings.api_keys_file is not None
    refused = asks_for_keys and key is None

    def ask(connect: Callable[[], http.client.HTTPConnection]) -> tuple[str, Any]:
        return _refused(connect) if refused else predict(connect, key)

    deadline = time.monotonic() + patience
    while not (reached := answers(f"{address}{SERVICE_READY}")) and time.monotonic() < deadline:
        time.sleep(2)
    host, port = urlsplit(address).hostname or "", urlsplit(address).port or 80
    try:
        if reached or aws is None:
            body, answer = ask(lambda: http.client.HTTPConnection(host, port, timeout=10))
        else:
            body, answer = _through_the_cluster(aws, ask)
            stack.say(
                f"{address} doesn't answer here (is this machine outside atlas:serviceCidrs?), but a pod answers "
                "through the Kubernetes API"
            )
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        stack.say(f"atlas: the service is up but the example failed: {error}")
        return None
    except ClusterError as error:
        stack.say(f"atlas: {address} doesn't answer, and a pod can't be asked: {error}")
        return None
    quoted = body.replace("'", "'\\''")
    keyed = "" if key is None else f' -H "Authorization: Bearer ${KEY_VARIABLE}"'
    command = f"curl -s {address}/predict -H 'Content-Type: application/json'{keyed} -d '{quoted}'"
    if refused:
        stack.say(f"the service needs API keys: with {KEY_VARIABLE} set, the smoke test requests a prediction")
    return {"request": command, "answer": answer}


def _through_the_cluster(settings: AwsSettings, ask: Callable[[Any], tuple[str, Any]]) -> tuple[str, Any]:
    """The example's request and answer from a pod; raises ClusterError when no pod can be asked."""
    from infra.deployment.pods import cluster_of, tunnel

    def connected(api: Any, open_tunnels: ExitStack) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("pod", timeout=10)
        connection.sock = open_tunnels.enter_context(tunnel(api, settings.namespace, settings.app_name, SERVICE_PORT))
        return connection

    with cluster_of(settings) as api, ExitStack() as tunnels:
        return ask(lambda: connected(api, tunnels))


def _request(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: str | None = None,
    *,
    key: str | None = None,
    status: int = 200,
) -> Any:
    """The JSON answer; raises ValueError when it has another status."""
    try:
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request(method, path, body, headers | ({"Authorization": f"Bearer {key}"} if key else {}))
        response = connection.getresponse()
        content = response.read()
        if response.status != status:
            raise ValueError(f"{method} {path} answered {response.status} {response.reason}")
        return json.loads(content)
    finally:
        connection.close()
