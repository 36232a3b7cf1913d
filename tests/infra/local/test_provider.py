"""What the user sees of an error in the `local` provider: a line, never a library's exception."""

import asyncio
import re
import xmlrpc.client
from typing import Any

import grpc
import grpc.aio
import pytest

from infra.errors import LocalError
from infra.local import provider


class Context:
    """gRPC's context of a call: keeps the message of an abort."""

    message = ""

    async def abort(self, _: grpc.StatusCode, message: str) -> None:
        self.message = message
        raise grpc.aio.AbortError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LocalError("port 5000 is used"), r"port 5000 is used"),
        (OSError(28, "No space left on device"), r".*No space left on device"),
        (
            xmlrpc.client.Fault(10, "BAD_NAME: mlflow"),
            r"a fault of Atlas, please report it: Fault: .*BAD_NAME: mlflow.* \(test_provider\.py:\d+\)",
        ),
    ],
)
def test_error_is_a_line(error: Exception, told: str) -> None:
    async def call() -> Any:
        raise error

    context = Context()
    with pytest.raises(grpc.aio.AbortError):
        asyncio.run(provider._told(call(), context))
    assert "\n" not in context.message
    assert re.fullmatch(told, context.message)
