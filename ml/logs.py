"""How the pipeline's stages log: one line per event, to standard error."""

import logging
import sys


def stage_logger(stage: str) -> logging.Logger:
    """The stage's logger, set up for a program run from the shell; call it from `main()` only."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    return logging.getLogger(stage)
