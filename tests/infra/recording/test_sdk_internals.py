"""The private parts of the Pulumi SDK that tests use: of which version they are known, and that they stay together."""

import re
from collections.abc import Callable
from concurrent import futures
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
from pulumi.runtime import Settings
from pulumi.runtime.proto import provider_pb2, resource_pb2, resource_pb2_grpc

from tests.infra.recording import sdk_internals
from tests.infra.recording.eks import Registration

REPOSITORY = Path(__file__).parents[3]
PRIVATE = re.compile(r"pulumi[\w.]*\._[a-z]|\._run_pulumi|_GRPC_CHANNEL_OPTIONS")


def test_the_sdk_has_the_version_whose_internals_were_read() -> None:
    installed = version("pulumi")
    to_read = "\n".join(f"  {file}: {use}" for file, use in sdk_internals.LOOK_AT.items())
    assert installed == sdk_internals.CHECKED, (
        f"pulumi is {installed}, but its internals were last read in {sdk_internals.CHECKED}. Read these, correct "
        f"tests/infra/recording/sdk_internals.py, then set CHECKED there:\n{to_read}"
    )


def test_no_other_file_uses_private_parts_of_the_sdk() -> None:
    own = {Path(sdk_internals.__file__), Path(__file__)}
    files = [file for folder in ("infra", "service", "tests") for file in (REPOSITORY / folder).rglob("*.py")]
    assert not [str(file) for file in files if file not in own and PRIVATE.search(file.read_text())]


class Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    """An engine's resource monitor that supports everything."""

    def SupportsFeature(self, request: Any, context: Any) -> Any:
        return resource_pb2.SupportsFeatureResponse(hasSupport=True)


def of_the_program(address: str) -> Any:
    return Settings("atlas", "dev", monitor=address).monitor


def of_the_component(address: str) -> Any:
    return Registration(provider_pb2.ConstructRequest(monitorEndpoint=address)).stub


@pytest.mark.slow
@pytest.mark.parametrize("connect", [of_the_program, of_the_component])
def test_engine_at_the_port_of_an_earlier_engine_is_reached(connect: Callable[[str], Any]) -> None:
    """Many engines run in the tests' process, and the kernel gives a port again: gRPC's channels would share the broken
    connection to the earlier engine, and the program would end with "Resource monitor has terminated"."""
    sdk_internals.open_own_connections()
    question = resource_pb2.SupportsFeatureRequest(id="secrets")
    port, earlier = 0, []
    for _ in range(2):
        engine = grpc.server(futures.ThreadPoolExecutor(2))
        resource_pb2_grpc.add_ResourceMonitorServicer_to_server(Monitor(), engine)
        port = engine.add_insecure_port(f"127.0.0.1:{port}")
        engine.start()
        monitor = connect(f"127.0.0.1:{port}")
        assert monitor.SupportsFeature(question).hasSupport
        engine.stop(None).wait()
        with pytest.raises(grpc.RpcError):
            monitor.SupportsFeature(question)
        earlier.append(monitor)
