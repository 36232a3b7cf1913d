"""Queries the tracking server through its REST interface, without importing MLflow: address, credentials, registry."""

import json
import logging
import os
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ml.store import StoreError, database_of, prepare

Alias = Literal["champion", "challenger"]
STORE = ".atlas/mlflow"
"""The embedded store, relative to the main checkout."""
TIMEOUT = 10
"""Seconds that a server may take to answer the probe."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOKEN = "CAPSTONE_TEST"  # noqa: S105 - the variable's name
"""Environment variable with the server's token; as with DagsHub, it is both user name and password."""


class TrackingError(Exception):
    """A tracking server that can't be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Server:
    """What a probe found out about a tracking server."""

    uri: str
    explicit: bool
    """Whether MLFLOW_TRACKING_URI names it."""
    registry: bool
    """Whether it has a model registry."""

    @property
    def shown(self) -> str:
        """The address for messages, without a database's password."""
        parts = urllib.parse.urlsplit(self.uri)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else self.uri


def store() -> Path:
    """The folder of the embedded store: the main checkout's, wherever the stage runs.

    Queued and temporary experiments run in a folder that DVC deletes afterwards; DVC_ROOT names the checkout from which
    they were started. In a linked git worktree, `.git` is a file that names its folder in the main checkout.
    """
    root = Path(os.environ.get("DVC_ROOT", ".")).resolve()
    link = root / ".git"
    if link.is_file():
        folder = root / link.read_text().removeprefix("gitdir:").strip()
        if folder.parent.name == "worktrees":
            root = folder.resolve().parents[2]
    return root / STORE


def in_throwaway_folder() -> bool:
    """Whether DVC runs this stage in a temporary folder, as it does for `dvc exp run --queue` and `--temp`."""
    root = os.environ.get("DVC_ROOT")
    return root is not None and Path(root).resolve() != Path.cwd().resolve()


def tracking_uri() -> tuple[str, bool]:
    """The server's address, and whether it is from the environment; the default is the embedded store.

    Raises TrackingError when an http(s) address contains a password, because addresses are printed.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if named.startswith(("http://", "https://")) and "@" in urllib.parse.urlsplit(named).netloc:
        raise TrackingError(
            "MLFLOW_TRACKING_URI contains credentials: remove them, and set "
            f"{TOKEN}, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return (named, True) if named else (f"sqlite:///{store()}/mlflow.db", False)


def use_token() -> None:
    """Let MLflow's client send the token as basic authentication, unless a user name is already set."""
    token = os.environ.get(TOKEN)
    if token and "MLFLOW_TRACKING_USERNAME" not in os.environ:
        os.environ["MLFLOW_TRACKING_USERNAME"] = token
        os.environ["MLFLOW_TRACKING_PASSWORD"] = token


def spare_loopback() -> None:
    """Let MLflow's client never ask this machine through a proxy, whatever HTTP_PROXY and NO_PROXY say.

    Without a proxy in the environment nothing changes: NO_PROXY alone would hide the proxy settings of macOS.
    """
    proxies = urllib.request.getproxies_environment()
    known = proxies.pop("no", "")
    missing = [host for host in LOOPBACK if host not in known.replace(" ", "").split(",")]
    if proxies and known.strip() != "*":
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, [known, *missing]))


def probe(log: logging.Logger) -> Server:
    """Check whether the server answers and has a registry; this is fast, and doesn't import MLflow.

    Raises TrackingError when it doesn't answer or refuses the token.
    """
    uri, explicit = tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return Server(uri, explicit, registry=True)
    try:
        _get(uri, "registered-models/search", max_results="1")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise TrackingError(
                f"the MLflow server {uri} refuses the credentials ({error.code}): set {TOKEN}"
            ) from None
        if error.code in (404, 405, 501):
            log.warning("%s has no model registry: the run keeps the model as artifacts, without champion", uri)
            return Server(uri, explicit, registry=False)
        raise TrackingError(f"the MLflow server {uri} answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise TrackingError(f"the MLflow server {uri} can't be reached ({reason})") from None
    return Server(uri, explicit, registry=True)


def tags_under(server: Server, name: str, alias: Alias) -> dict[str, str]:
    """The tags of the model version with this alias, over REST; empty if there is none. Only for http(s) servers.

    `bundle_version` is the bundle's version, `card` the SHA-256 of its card. Raises TrackingError when the server
    fails.
    """
    answer = _get_or_none(server.uri, "registered-models/alias", name=name, alias=alias)
    return {tag["key"]: tag["value"] for tag in (answer or {}).get("model_version", {}).get("tags", [])}


def still_there(name: str, alias: Alias, version: str, run_id: str, log: logging.Logger) -> bool:
    """Whether the store still has the result of an earlier run of this stage; fast, and doesn't import MLflow.

    Raises TrackingError as `probe` does.
    """
    uri, _ = tracking_uri()
    if uri.startswith("sqlite:///"):
        return Path(uri.removeprefix("sqlite:///")).is_file()
    if not uri.startswith(("http://", "https://")):
        return False
    server = probe(log)
    if server.registry:
        return tags_under(server, name, alias).get("bundle_version") == version
    return _get_or_none(uri, "runs/get", run_id=run_id) is not None


def has_logged_models(server: Server, experiment: str) -> bool:
    """Whether the server has MLflow 3's logged models; servers of MLflow 2, DagsHub and Azure don't.

    Raises TrackingError when the server fails.
    """
    if not server.uri.startswith(("http://", "https://")):
        return True
    search = {"experiment_ids": [experiment], "max_results": 1}
    return _get_or_none(server.uri, "logged-models/search", search) is not None


def make_store(uri: str) -> None:
    """Create the SQLite database in a store's address, if it is missing.

    Raises TrackingError when the existing database can't be used.
    """
    database = database_of(uri)
    try:
        if database is not None:
            prepare(database)
    except StoreError as error:
        raise TrackingError(str(error)) from None


def _get_or_none(uri: str, path: str, body: dict[str, Any] | None = None, /, **query: str) -> dict[str, Any] | None:
    try:
        return _get(uri, path, body, **query)
    except urllib.error.HTTPError as error:
        if error.code in (400, 404, 405, 501):
            return None
        raise TrackingError(f"the MLflow server {uri} answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        raise TrackingError(f"the MLflow server {uri} can't be reached ({getattr(error, 'reason', error)})") from None


def _get(uri: str, path: str, body: dict[str, Any] | None = None, /, **query: str) -> dict[str, Any]:
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or os.environ.get(TOKEN) or ""
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or os.environ.get(TOKEN) or ""
    address = f"{uri.rstrip('/')}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}"
    data = None if body is None else json.dumps(body).encode()
    headers = {} if body is None else {"Content-Type": "application/json"}
    request = urllib.request.Request(address, data, headers)  # noqa: S310 - http(s) only, checked by the caller
    if user:
        request.add_header("Authorization", "Basic " + b64encode(f"{user}:{password}".encode()).decode())
    # A server on this machine is never asked through a proxy.
    handlers = [urllib.request.ProxyHandler({})] if urllib.parse.urlsplit(uri).hostname in LOOPBACK else []
    with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT) as response:
        answer: dict[str, Any] = json.load(response)
        return answer
