"""`python -m service`: the application under gunicorn, several workers, one model each."""

import errno
import gc
import importlib
import logging
import logging.config
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.access.keys import KeyFile
    from service.settings import Settings
    from service.trial import Tried

GRACE = 30
"""Seconds that a stopping worker may take to finish its requests."""


def main() -> int:
    """Serve until a signal stops the process.

    Returns 1, after one clear line, when the settings or the bundle can't be used.
    """
    # A container's first process ignores signals without a handler. This handler is set before slow work starts, and is
    # used until gunicorn sets its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    gc.disable()  # until all is imported, which stays: looking for garbage among it takes a tenth of the time
    # pydantic would look for plugins in the metadata of each package that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from service.settings import SettingsError, load_settings

    try:
        settings = load_settings(os.environ)
    except SettingsError as error:
        print(f"service: {error}", file=sys.stderr)
        return 1
    # The variable must be set before prometheus_client is imported, because prometheus_client reads it only at import.
    try:
        shared = Path(settings.prometheus_multiproc_dir or tempfile.mkdtemp(prefix="atlas-metrics-"))
        _empty(shared)
    except OSError as error:
        hint = "" if settings.prometheus_multiproc_dir else ": a read-only root needs a writable /tmp beside it"
        print(f"service: PROMETHEUS_MULTIPROC_DIR: {error}{hint}", file=sys.stderr)
        return 1
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared)
    first = os.getpid()
    try:
        return _start(settings)
    finally:
        # Stopping workers also execute this, while other workers still use the directory: only the first process
        # removes it.
        if settings.prometheus_multiproc_dir is None and os.getpid() == first:
            shutil.rmtree(shared, ignore_errors=True)


def _start(settings: "Settings") -> int:
    from ml.bundle import BundleError
    from service import logs
    from service.trial import read_and_try

    logging.config.dictConfig(logs.configuration(settings.log_level))
    # Bound before the bundle is loaded, so that a taken port is one clear line at once. Nothing listens yet.
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        hint = ": choose another with PORT" if error.errno == errno.EADDRINUSE else ""
        print(
            f"service: can't listen on {settings.host}, port {settings.port}: {error.strerror}{hint}", file=sys.stderr
        )
        return 1
    keys = None
    if settings.api_keys_file is not None:
        from service.access.keys import KeyFile, KeysError, usual_limit

        try:
            keys = KeyFile(settings.api_keys_file, usual_limit(settings))
        except KeysError as error:
            print(f"service: API_KEYS_FILE: {error}", file=sys.stderr)
            return 1
    # Loaded once here, so that a bad bundle gives one error instead of an error in each worker.
    try:
        bundle = read_and_try(settings, _cache(), _import)
    except BundleError as error:
        print(f"service: {error}", file=sys.stderr)
        return 1
    _serve(settings, bundle, listener, keys)
    return 0


def _import() -> None:
    """Import what `_serve` and the workers need; a worker finds it there after the fork."""
    for name in ("gunicorn.arbiter", "prometheus_flask_exporter.multiprocess", "service.app", "service.worker"):
        importlib.import_module(name)


def _cache() -> Path:
    """The directory in which bundles from a registry are cached."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atlas" / "bundles"


def _empty(folder: Path) -> None:
    """Create the folder, and delete the metrics and limits of an earlier run: they would be counted again."""
    from service.access.limits import SUFFIX

    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("*.db", f"*{SUFFIX}"):
        for file in folder.glob(pattern):
            file.unlink()


def _serve(settings: "Settings", tried: "Tried", listener: socket.socket, keys: "KeyFile | None") -> None:
    from gunicorn.app.base import BaseApplication
    from prometheus_flask_exporter.multiprocess import GunicornPrometheusMetrics

    from service import logs
    from service.app import create_app
    from service.arbiter import Ready, ReloadingArbiter
    from service.trial import predictor_of, read_and_try
    from service.worker import Limits

    log = logging.getLogger("service")

    def child_exit(_: Any, worker: Any) -> None:
        GunicornPrometheusMetrics.mark_process_dead_on_child_exit(worker.pid)

    class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
        limits = Limits(
            threads=settings.threads,
            max_waiting=settings.max_waiting,
            request_timeout=settings.request_timeout,
            max_body_bytes=settings.max_body_bytes,
            grace=GRACE,
        )
        bundle = previous = tried
        ready = Ready()

        def load_config(self) -> None:
            given = {
                "bind": f"fd://{listener.detach()}",
                "workers": settings.workers,
                "worker_class": "service.worker.Worker",
                "timeout": 60,
                "graceful_timeout": GRACE,
                "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108 - heartbeats in memory
                "loglevel": settings.log_level,
                "logconfig_dict": logs.configuration(settings.log_level),
                "child_exit": child_exit,
                "post_worker_init": self.ready.tell,
                "control_socket_disable": True,
            }
            for key, value in given.items():
                if key in self.cfg.settings:
                    self.cfg.set(key, value)

        def load(self) -> Any:
            # Each worker loads the model itself, because the model's threads would not survive the fork.
            if keys is not None:
                keys.logs = False  # the first process says what has changed
            app = create_app(settings, predictor_of(self.bundle), keys)
            self.refused = app.extensions["atlas"].metrics.turned_away
            self.knows = app.extensions.get("atlas.knows", lambda _: True)
            return app

        def run(self) -> None:
            ReloadingArbiter(self).run()

        def renew(self) -> bool:
            """Read the bundle again; whether it is another one, and can predict."""
            try:
                fresh = read_and_try(settings, _cache())
            except Exception as error:  # whatever it is, the old bundle keeps answering
                self._refuse(str(error))
                return False
            if fresh == self.bundle:
                log.info("the bundle is the same as before", extra={"fields": {"version": fresh[0]}})
                return False
            self.previous, self.bundle = self.bundle, fresh
            return True

        def watch(self) -> None:
            """Look at the API keys, so that a worker that starts later begins with the newest that could be used."""
            if keys is not None:
                keys.refresh()

        def keep_old(self, reason: str) -> None:
            """Return to the bundle before the last `renew`."""
            self.bundle = self.previous
            self._refuse(reason)

        def _refuse(self, reason: str) -> None:
            log.error(
                "the new bundle is refused, the old one keeps answering",
                extra={"fields": {"reason": reason, "version": self.bundle[0]}},
            )

    fields = {"bundle": settings.model_uri, "version": tried[0], "workers": settings.workers, "port": settings.port}
    log.info("starting", extra={"fields": fields})
    # A page that the collector writes to is no longer shared with the workers: it leaves alone what is there now.
    gc.freeze()
    gc.enable()
    Server().run()


if __name__ == "__main__":
    sys.exit(main())
