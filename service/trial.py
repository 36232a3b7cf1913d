"""Reads a bundle and tries it in a process of its own, before workers get it: at start, and for a reload."""

import multiprocessing
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from ml.bundle import BundleError, Parts, bundle_of, read_parts
from service import registry
from service.predictor import Predictor
from service.settings import Settings

PATIENCE = 120
"""Seconds that a bundle may take to load and to predict its example."""

Tried = tuple[str, Parts]
"""Version and parts, in memory: what happens to the bundle's folder later doesn't concern a worker that starts then."""


def read_and_try(settings: Settings, cache: Path, meanwhile: Callable[[], object] = lambda: None) -> Tried:
    """The bundle of `settings.model_uri`, which has predicted its example.

    `meanwhile` is called while another process tries the bundle.
    Raises BundleError when it can't be read, or can't predict.
    """
    version, parts = read_parts(registry.fetch(settings, cache))
    tried = version, replace(parts, evaluated=None)
    # In a separate process: if the model's runtime is initialised before a fork, the forked workers hang or abort when
    # they exit.
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    trial = context.Process(target=_try, args=(tried, sender), daemon=True)
    trial.start()
    sender.close()
    try:
        meanwhile()
        why = receiver.recv() if receiver.poll(PATIENCE) else f"it took more than {PATIENCE} s to load"
    except EOFError:
        why = None
    finally:
        receiver.close()
        if why not in ("", None):
            trial.kill()
        trial.join()
    if why is None:
        killed = trial.exitcode == -signal.SIGKILL
        why = "killed while it loaded the bundle: it needs more memory" if killed else "the bundle can't be loaded"
    if why:
        raise BundleError(why)
    return tried


def predictor_of(tried: Tried) -> Predictor:
    """The predictor, in the process that predicts."""
    return Predictor.of(bundle_of(*tried))


def _try(tried: Tried, sender: Connection) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the parent's handlers would do nothing here
        signal.signal(number, signal.SIG_DFL)
    try:
        predictor_of(tried)
    except BundleError as error:
        sender.send(str(error))
    except Exception as error:  # a bundle is data: whatever it breaks, a line says so
        sender.send(f"the bundle can't predict its example ({type(error).__name__}: {error})")
    else:
        sender.send("")
