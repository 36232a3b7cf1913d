"""Reads the environment variables into one frozen settings object."""

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import (
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)

from ml.features.stores import ADDRESSES, is_address


class SettingsError(ValueError):
    """A setting that can't be used; the message names the variable, the value and what is allowed."""


def _separate(value: object) -> object:
    """Accept a text of several, separated by commas."""
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(ip_network)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(_separate)]


class Settings(BaseModel):
    """How the service runs; each field is an environment variable of the same name in upper case."""

    model_config = ConfigDict(
        frozen=True, alias_generator=AliasGenerator(validation_alias=str.upper), populate_by_name=True
    )

    model_uri: str = "models/bundle"
    """A bundle directory, or models:/NAME@champion of the registry at MLFLOW_TRACKING_URI."""
    mlflow_tracking_uri: str | None = None
    """http(s) address of the MLflow server; needed for models:/ only."""
    capstone_test: SecretStr | None = None
    """The MLflow server's token, sent as user name and password, as DagsHub requires."""
    mlflow_tracking_username: str | None = None
    """A user name, instead of the token; MLflow's own clients read the same variable."""
    mlflow_tracking_password: SecretStr | None = None
    """The password of that user."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 5000
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Processes; each holds the model."""
    threads: Annotated[int, Field(ge=1, le=64)] = 4
    """Threads per process that make predictions."""
    max_waiting: Annotated[int, Field(ge=1, le=10_000)] = 512
    """Requests per process that may wait for a thread; a further request gets a 503 with Retry-After."""
    request_timeout: Annotated[int, Field(ge=1, le=3600)] = 10
    """Seconds that a caller has to send a whole request, and to take its answer; also the longest wait for a thread."""
    max_rows: Annotated[int, Field(ge=1)] = 1000
    """Maximum number of rows per request."""
    max_body_bytes: Annotated[int, Field(ge=1)] = 1024 * 1024
    feature_store: str | None = None
    """The online store in which features are looked up that a request doesn't contain: a file, or
    dynamodb://TABLE?region=REGION (without a region, it is the environment's). None: no store."""
    feature_store_timeout: Annotated[float, Field(gt=0, le=10)] = 0.007
    """Seconds that a request waits for the feature store; what hasn't come by then is missing."""
    api_keys_file: Path | None = None
    """A file with the hashes of API keys (`python -m service.access`). None: no key is needed."""
    api_key_per_second: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Requests per second of a key whose entry in the file has no limit; None: no limit."""
    metrics_networks: Networks = ()
    """Networks from which /metrics may be read without a key. None: with API keys, it needs one; else it is open."""
    trusted_proxies: Networks = ()
    """Networks of the proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    docs: bool = True
    """Whether /docs and /openapi.json are there."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    prometheus_multiproc_dir: str | None = None
    """The directory in which the workers share their metrics; emptied at start. None: a new temporary directory."""

    @field_validator("model_uri")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value.startswith("models:/") and not re.fullmatch(r"models:/[^/@]+(@[\w.-]+|/\d+)", value):
            raise ValueError("a registry model is models:/NAME@ALIAS or models:/NAME/VERSION")
        return value

    @field_validator("feature_store")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None and not is_address(value):
            raise ValueError(f"a feature store is {ADDRESSES}")
        return value


def load_settings(environment: Mapping[str, str]) -> Settings:
    """The settings from these variables; an empty variable counts as not set.

    Raises SettingsError, one line per wrong variable.
    """
    names = {name.upper() for name in Settings.model_fields}
    given = {name: value for name, value in environment.items() if name in names and value != ""}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        lines = [f"{detail['loc'][0]}: {detail['msg']} (got {_shown(detail)})" for detail in error.errors()]
        raise SettingsError("\n".join(lines)) from None


def _shown(detail: Mapping[str, object]) -> str:
    secret = {"CAPSTONE_TEST", "MLFLOW_TRACKING_PASSWORD"} & set(map(str, cast(tuple[str, ...], detail["loc"])))
    return "a secret" if secret else repr(detail["input"])
