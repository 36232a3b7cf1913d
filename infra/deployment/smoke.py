"""One prediction through a running service: the smoke test that ends every deployment."""

import http.client
import json
from collections.abc import Callable
from typing import Any


def predict(connect: Callable[[], http.client.HTTPConnection]) -> tuple[str, Any]:
    """The service's own example, asked of it: the request's body, and the answer. A connection for each request.

    Raises OSError and HTTPException as the connection does, ValueError when the answer isn't a prediction, KeyError
    when the service's document has no example.
    """
    document = _asked(connect(), "GET", "/openapi.json")
    row = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]["rows"][0]
    # What must be given, and nothing else: short enough to type.
    required = document["components"]["schemas"]["Row"]["required"]
    body = json.dumps({"rows": [{name: row[name] for name in required} or row]})
    answer = _asked(connect(), "POST", "/predict", body)
    if not answer.get("predictions"):
        raise ValueError(f"no prediction in {json.dumps(answer)[:200]}")
    return body, answer


def _asked(connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None) -> Any:
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise ValueError(f"{method} {path} was answered {response.status} {response.reason}")
        return json.loads(content)
    finally:
        connection.close()
