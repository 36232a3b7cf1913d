"""Structured logs: one JSON object per line on standard error, each with the request's id."""

import json
import logging
import re
import time
import uuid
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import flask
import msgspec

LOG = logging.getLogger("service")
KEY = "atlas.key"
"""Where WSGI's environ has the name of the API key of the request."""
QUIET = frozenset({"/health/live", "/health/ready", "/metrics"})
"""Routes that machines request all the time: logged at debug level only."""

_TEMPLATE = logging.LogRecord(LOG.name, logging.INFO, "", 0, "request", None, None)
_ENCODE = msgspec.json.Encoder(enc_hook=str).encode
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; `extra={"fields": {...}}` adds keys."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": f"{_second(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if flask.has_request_context() and "request_id" in flask.g:
            document["request_id"] = flask.g.request_id
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        try:
            return _ENCODE(document).decode()
        except UnicodeEncodeError:  # half of a pair of surrogates, which JSON can only contain in ASCII
            return json.dumps(document, default=str)


@lru_cache(maxsize=4)
def _second(moment: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))


def log_request(environ: Mapping[str, Any], route: str | None, status: int, seconds: float, identity: str) -> None:
    """Log an answered request; `route`: the rule that matched its path."""
    level = logging.DEBUG if route in QUIET else logging.INFO
    if LOG.isEnabledFor(level):
        fields = {
            "method": environ["REQUEST_METHOD"],
            "route": route,
            "status": status,
            "milliseconds": round(seconds * 1000, 2),
            "client": environ.get("REMOTE_ADDR"),
            "request_id": identity,
        }
        if KEY in environ:
            fields["key"] = environ[KEY]
        # As LOG.log, but without a search for the calling line, the thread and the process, which no log line shows.
        now = time.time()
        own = {"levelno": level, "levelname": logging.getLevelName(level), "created": now, "msecs": now % 1 * 1000}
        record = logging.LogRecord.__new__(logging.LogRecord)
        record.__dict__ = {**_TEMPLATE.__dict__, **own, "fields": fields}
        LOG.handle(record)


def configuration(level: str) -> dict[str, Any]:
    """For `logging.config`: all records, including gunicorn's, go through one JSON handler."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        "loggers": {
            "gunicorn.error": {"level": level.upper(), "handlers": [], "propagate": True},
            "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
        },
    }


def request_id(given: str | None) -> str:
    """The caller's id if it is well-formed, else a new id."""
    return given if given is not None and _SANE_ID.fullmatch(given) else uuid.uuid4().hex
