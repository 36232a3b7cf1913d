"""Logging of the pipeline's stages: one line per event, on standard error."""

import logging
import sys


def stage_logger(stage: str) -> logging.Logger:
    """The stage's logger, with logging configured for a program; call this only from `main()`."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    return logging.getLogger(stage)
