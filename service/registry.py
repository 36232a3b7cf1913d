"""Downloads models:/NAME@ALIAS as plain files over MLflow's REST interface, so that the service doesn't need MLflow."""

import json
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

from ml.bundle import BundleError, read_parts, replace_directory
from service.settings import Settings

TIMEOUT = 30
MAX_FILE = 512 * 1024 * 1024
"""Maximum size of an artifact in bytes."""


def fetch(settings: Settings, cache: Path) -> Path:
    """The bundle directory of `settings.model_uri`; for models:/ a copy in `cache`, downloaded if it isn't there.

    Raises BundleError when the registry, the model, its alias or its bundle isn't available.
    """
    if not settings.model_uri.startswith("models:/"):
        return Path(settings.model_uri)
    server = settings.mlflow_tracking_uri
    if server is None or not server.startswith(("http://", "https://")):
        raise BundleError(f"{settings.model_uri} needs MLFLOW_TRACKING_URI, the http(s) address of its MLflow server")
    client = _Client(server.rstrip("/"), settings)
    name, version = client.resolve(settings.model_uri)
    wanted = client.bundle_version(name, version)
    target = cache / wanted
    try:
        if read_parts(target)[0] == wanted:
            return target
    except BundleError:
        pass  # the copy doesn't exist or is damaged: download it again
    cache.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=cache))
    try:
        client.download(name, version, fresh)
        try:
            found = read_parts(fresh)[0]
        except BundleError as error:
            raise BundleError(f"{settings.model_uri}, as downloaded from {server}, is damaged: {error}") from None
        if found != wanted:
            raise BundleError(
                f"{settings.model_uri} contains bundle {found[:7]}, but its tag bundle_version says {wanted[:7]}: "
                "register it again with `dvc repro`"
            )
        replace_directory(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


class _Client:
    def __init__(self, server: str, settings: Settings) -> None:
        self._server = server
        token = settings.capstone_test
        user = settings.mlflow_tracking_username or (token.get_secret_value() if token else "")
        secret = settings.mlflow_tracking_password or token
        password = secret.get_secret_value() if secret else ""
        # A server on this machine is never asked through a proxy.
        loopback = urllib.parse.urlsplit(server).hostname in ("127.0.0.1", "localhost", "::1")
        self._opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if loopback else []))
        self._credentials = b64encode(f"{user}:{password}".encode()).decode() if user else None

    def resolve(self, uri: str) -> tuple[str, str]:
        """Name and version number of models:/NAME@ALIAS or models:/NAME/VERSION."""
        path = uri.removeprefix("models:/")
        if "@" not in path:
            name, version = path.split("/")
            return name, version
        name, alias = path.split("@")
        answer = self._json("api/2.0/mlflow/registered-models/alias", name=name, alias=alias)
        return name, str(answer["model_version"]["version"])

    def bundle_version(self, name: str, version: str) -> str:
        """The bundle version, from the tag that the pipeline sets."""
        answer = self._json("api/2.0/mlflow/model-versions/get", name=name, version=version)
        for tag in answer["model_version"].get("tags", []):
            if tag["key"] == "bundle_version" and tag["value"].isalnum():
                return str(tag["value"])
        raise BundleError(f"models:/{name}/{version} has no tag bundle_version: Atlas's pipeline did not register it")

    def download(self, name: str, version: str, folder: Path) -> None:
        """The files of the model's bundle/ folder."""
        answer = self._json("api/2.0/mlflow/model-versions/get-download-uri", name=name, version=version)
        source = urllib.parse.urlsplit(str(answer["artifact_uri"]))
        if source.scheme in ("", "file"):
            self._copy(Path(urllib.request.url2pathname(source.path)), folder)
            return
        if source.scheme not in ("mlflow-artifacts", "http", "https"):
            raise BundleError(
                f"models:/{name}/{version} is stored at {source.scheme}://, and the MLflow server doesn't serve it: "
                "start the server with --serve-artifacts"
            )
        root = source.path.removeprefix("/api/2.0/mlflow-artifacts/artifacts").strip("/")
        for place in ("artifacts/bundle", "bundle"):
            listing = self._json("api/2.0/mlflow-artifacts/artifacts", path=f"{root}/{place}")
            names = [Path(str(file["path"])).name for file in listing.get("files", []) if not file.get("is_dir")]
            if "bundle.json" in names:
                for file in names:
                    quoted = urllib.parse.quote(f"{root}/{place}/{file}")
                    (folder / file).write_bytes(self._get(f"api/2.0/mlflow-artifacts/artifacts/{quoted}"))
                return
        raise BundleError(f"models:/{name}/{version} contains no bundle")

    def _copy(self, source: Path, folder: Path) -> None:
        for place in (source / "artifacts/bundle", source / "bundle"):
            if place.is_dir():
                shutil.copytree(place, folder, dirs_exist_ok=True)
                return
        raise BundleError(
            f"{source} contains no bundle, or is on another machine: start the MLflow server with --serve-artifacts"
        )

    def _json(self, path: str, /, **query: str) -> dict[str, Any]:
        body = self._get(f"{path}?{urllib.parse.urlencode(query)}")
        try:
            answer: dict[str, Any] = json.loads(body)
        except ValueError:
            raise BundleError(f"the answer of {self._server} is not the answer of an MLflow server") from None
        return answer

    def _get(self, path: str) -> bytes:
        request = urllib.request.Request(f"{self._server}/{path}")  # noqa: S310 - http(s), checked in fetch
        if self._credentials is not None:
            # A redirect, such as a presigned address on another host, must not get the credentials.
            request.add_unredirected_header("Authorization", f"Basic {self._credentials}")
        try:
            with self._opener.open(request, timeout=TIMEOUT) as response:
                body: bytes = response.read(MAX_FILE + 1)
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise BundleError(
                    f"the MLflow server {self._server} refuses the credentials ({error.code}): set CAPSTONE_TEST"
                ) from None
            raise BundleError(
                f"the MLflow server {self._server} answers {error.code} to {path.partition('?')[0]}: {_message(error)}"
            ) from None
        except OSError as error:
            raise BundleError(
                f"the MLflow server {self._server} can't be reached ({getattr(error, 'reason', error)})"
            ) from None
        if len(body) > MAX_FILE:
            raise BundleError(f"{path} is larger than {MAX_FILE} bytes")
        return body


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(10_000))["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return str(error.reason)
