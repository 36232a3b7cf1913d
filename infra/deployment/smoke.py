"""One prediction through a running service: the smoke test that ends every deployment."""

import http.client
import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from infra.engine.stack import AtlasStack
from infra.errors import AwsError, ClusterError, ImageError
from infra.names import SERVICE_PORT, SERVICE_READY
from infra.settings import AwsSettings, LocalSettings


def smoke_test(stack: AtlasStack, outputs: Mapping[str, Any], *, wait: int) -> dict[str, Any] | None:
    """One prediction, its request and its answer; None when there was none. AWS: an image that answers is marked."""
    aws = stack.settings if isinstance(stack.settings, AwsSettings) else None
    example = _example(stack, str(outputs["service"]), aws, patience=10 if aws is None else wait)
    if example is not None and aws is not None:
        _mark(stack, str(outputs["image"]))
    return example


def no_answer(stack: AtlasStack) -> str:
    """What to say when everything is up and no prediction came."""
    if isinstance(stack.settings, LocalSettings):
        return f"everything is up, but the service gave no prediction: `atlas logs --stack {stack.name}` says why"
    return (
        "everything is up, but the service gave no prediction. Are you outside atlas:serviceCidrs? Then --no-smoke. "
        f"The image is bad? Then `atlas rollback --stack {stack.name}`"
    )


def answers(url: str) -> bool:
    """Whether it says 200 within five seconds."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - the stack's own
            return bool(response.status == 200)
    except OSError:
        return False


def predict(connect: Callable[[], http.client.HTTPConnection]) -> tuple[str, Any]:
    """The service's own example, asked of it: the request's body, and the answer. A connection for each request.

    Raises OSError and HTTPException as the connection does, ValueError when the answer isn't a prediction, KeyError
    when the service's document has no example.
    """
    document = _request(connect(), "GET", "/openapi.json")
    row = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]["rows"][0]
    # What must be given, and nothing else: short enough to type.
    required = document["components"]["schemas"]["Row"]["required"]
    body = json.dumps({"rows": [{name: row[name] for name in required} or row]})
    answer = _request(connect(), "POST", "/predict", body)
    if not answer.get("predictions"):
        raise ValueError(f"no prediction in {json.dumps(answer)[:200]}")
    return body, answer


def _mark(stack: AtlasStack, reference: str) -> None:
    """Note that the image has answered; that this fails is said, and no more: the stack is up."""
    from infra.deployment.images import image_of, mark_good

    image = image_of(reference)
    if image is None:
        return
    try:
        mark_good(image)
    except (AwsError, ImageError) as error:
        stack.say(f"atlas: {error}; `atlas rollback` won't know this image")


def _example(stack: AtlasStack, address: str, aws: AwsSettings | None, *, patience: float) -> dict[str, Any] | None:
    """One prediction through the running service: the request as a curl command, and its real answer.

    Where the load balancer can't be reached from here (atlas:serviceCidrs), a pod is asked through the cluster's API.
    `patience` in seconds: a new load balancer's name takes a while to be known.
    """
    deadline = time.monotonic() + patience
    while not (reached := answers(f"{address}{SERVICE_READY}")) and time.monotonic() < deadline:
        time.sleep(2)
    host, port = urlsplit(address).hostname or "", urlsplit(address).port or 80
    try:
        if reached or aws is None:
            body, answer = predict(lambda: http.client.HTTPConnection(host, port, timeout=10))
        else:
            body, answer = _through_the_cluster(aws)
            stack.say(
                f"{address} doesn't answer here (are you outside atlas:serviceCidrs?), but a pod does, asked directly"
            )
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        stack.say(f"atlas: the service is up but the example failed: {error}")
        return None
    except ClusterError as error:
        stack.say(f"atlas: {address} doesn't answer, and a pod can't be asked: {error}")
        return None
    quoted = body.replace("'", "'\\''")
    command = f"curl -s {address}/predict -H 'Content-Type: application/json' -d '{quoted}'"
    return {"request": command, "answer": answer}


def _through_the_cluster(settings: AwsSettings) -> tuple[str, Any]:
    """The example's request and answer, of a pod; raises ClusterError when none can be asked."""
    from infra.deployment.pods import cluster_of, tunnel

    def connected(api: Any, open_tunnels: ExitStack) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("pod", timeout=10)
        connection.sock = open_tunnels.enter_context(tunnel(api, settings.namespace, settings.app_name, SERVICE_PORT))
        return connection

    with cluster_of(settings) as api, ExitStack() as tunnels:
        return predict(lambda: connected(api, tunnels))


def _request(connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None) -> Any:
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise ValueError(f"{method} {path} was answered {response.status} {response.reason}")
        return json.loads(content)
    finally:
        connection.close()
