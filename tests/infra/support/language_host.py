"""Pulumi's Python language host, for machines whose engine was built from its Go modules, which lack it.

What `pulumi` needs of it to run infra/__main__.py: the program in a Python of its own, its settings, and what its exit
status means. As pulumi-language-python and pulumi-language-python-exec do it.
"""

import asyncio
import json
import os
import runpy
import subprocess
import sys
import traceback
from concurrent import futures
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pulumi
from google.protobuf import empty_pb2
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2
from pulumi.runtime.stack import run_in_stack

from tests.infra.support import warm

REPOSITORY = Path(__file__).parents[3]
MODULE = "tests.infra.support.language_host"
SHOWN = 32
"""The program's exit status after which the host adds no error of its own."""


def put_on_path(folder: Path) -> Path:
    """Put an executable `pulumi-language-python` into the folder, for PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "pulumi-language-python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {warm.python()} -m {MODULE} "$@"\n')
    script.chmod(0o755)
    return folder


class Host(language_pb2_grpc.LanguageRuntimeServicer):
    """What the engine asks; the engine is at `engine`."""

    def __init__(self, engine: str) -> None:
        self.engine = engine

    def GetPluginInfo(self, *_: Any) -> Any:  # noqa: N802
        return plugin_pb2.PluginInfo(version="0.0.0")

    def GetRequiredPackages(self, *_: Any) -> Any:  # noqa: N802
        return language_pb2.GetRequiredPackagesResponse()

    def GetRequiredPlugins(self, *_: Any) -> Any:  # noqa: N802
        return language_pb2.GetRequiredPluginsResponse()

    def InstallDependencies(self, *_: Any) -> Any:  # noqa: N802
        yield from ()

    def Cancel(self, *_: Any) -> Any:  # noqa: N802
        return empty_pb2.Empty()

    def Run(self, request: Any, _: Any) -> Any:  # noqa: N802
        given = {
            "monitor": request.monitor_address,
            "engine": self.engine,
            "project": request.project,
            "stack": request.stack,
            "parallel": request.parallel,
            "dry_run": request.dryRun,
            "organization": request.organization,
            "root_directory": request.info.root_directory,
        }
        secrets = list(request.configSecretKeys)
        environment = os.environ | {
            "PULUMI_CONFIG": json.dumps(dict(request.config)),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(secrets),
            # `infra` is the project's in which the engine runs.
            "PYTHONPATH": os.pathsep.join([request.info.root_directory, str(REPOSITORY)]),
        }
        where = str(Path(request.info.program_directory, request.info.entry_point))
        ended = subprocess.run(
            [str(warm.python()), "-m", MODULE, "--run", where, json.dumps(given)],
            cwd=request.pwd,
            env=environment,
            check=False,
        ).returncode
        if ended == SHOWN:
            return language_pb2.RunResponse(bail=True)
        told = f"program exited with non-zero exit code: {ended}" if ended else ""
        return language_pb2.RunResponse(error=told)


def run(program: str, given: dict[str, Any]) -> int:
    """Run the program for the engine; the exit status."""
    config = pulumi.runtime.config
    config.set_all_config(config.get_config_env(), config.get_config_secret_keys_env())
    pulumi.runtime.configure(pulumi.runtime.Settings(**given))

    def declare() -> None:
        runpy.run_path(program, run_name="__main__")

    try:
        asyncio.run(run_in_stack(declare))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return 1
    except Exception:
        pulumi.log.error(f"Program failed with an unhandled exception:\n{traceback.format_exc()}")
        return SHOWN
    return 0


def main() -> int:
    if sys.argv[1] == "--run":
        return run(sys.argv[2], json.loads(sys.argv[3]))
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(Host(sys.argv[-1]), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    with suppress(KeyboardInterrupt):  # so the engine ends it
        server.wait_for_termination()
    return 0


if __name__ == "__main__":
    sys.exit(main())
