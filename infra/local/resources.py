"""The resources of the `local` provider, for Pulumi programs."""

import hashlib
from collections.abc import Mapping, Sequence

import pulumi


class Directory(pulumi.CustomResource):
    """A directory; destroy removes it with its contents. With `keep`, destroy removes it only if it is empty."""

    def __init__(self, name: str, *, path: str, keep: bool = False, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("local:index:Directory", name, {"path": path, "keep": keep}, opts)


class File(pulumi.CustomResource):
    """A text file."""

    digest: str
    """SHA-256 of the content, known in the program: a trigger for processes that read the file only at their start."""

    def __init__(self, name: str, *, path: str, content: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("local:index:File", name, {"path": path, "content": content}, opts)
        self.digest = hashlib.sha256(content.encode()).hexdigest()


class Supervisor(pulumi.CustomResource):
    """A supervisord that keeps this stack's processes running; it listens only on a Unix socket."""

    def __init__(self, name: str, *, directory: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("local:index:Supervisor", name, {"directory": directory}, opts)


class Process(pulumi.CustomResource):
    """A process under the supervisor; it is ready when its health URL answers 200."""

    def __init__(
        self,
        name: str,
        *,
        directory: str,
        command: Sequence[str],
        working_directory: str,
        health_url: str,
        timeout: int,
        environment: Mapping[str, str] | None = None,
        folders: Sequence[str] = (),
        triggers: Mapping[str, str] | None = None,
        reloads: Mapping[str, str] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """`timeout` in seconds; `folders` are created before the start; changed `triggers` restart the process.

        If only `reloads` change, and `version` among them, it gets SIGHUP instead: then its health URL must answer with
        that version.
        """
        inputs = {
            "name": name,
            "directory": directory,
            "command": list(command),
            "workingDirectory": working_directory,
            "healthUrl": health_url,
            "timeout": str(timeout),
            "environment": dict(environment or {}),
            "folders": list(folders),
            "triggers": dict(triggers or {}),
            "reloads": dict(reloads or {}),
        }
        super().__init__("local:index:Process", name, inputs, opts)
