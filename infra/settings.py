"""Stack configuration -> one frozen, validated settings object; unknown keys are an error."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

PROJECT = "atlas"

Port = Annotated[int, Field(ge=1024, le=65535)]


class SettingsError(ValueError):
    """A stack file that can't be used; the message names the key, the value and what is allowed."""


class LocalSettings(BaseModel):
    """The `local` environment: everything on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    environment: Literal["local"]
    bundle: str = "models/bundle"
    """The bundle that the service serves, relative to the repository."""
    directory: str = ".atlas/local"
    """Where the stack keeps its files; removed by destroy."""
    dvc_remote: str = ".atlas/dvc-remote"
    """DVC's default remote; what is in it belongs to DVC and stays."""
    mlflow_store: str = ".atlas/mlflow"
    """MLflow's database and artifacts, made by the pipeline; they stay."""
    service_port: Port = 5000
    mlflow_port: Port = 5001
    prometheus_port: Port = 9090
    grafana_port: Port = 3000
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    scrape_interval: Annotated[str, Field(pattern=r"^[1-9][0-9]*[smh]$")] = "15s"
    """How often Prometheus asks, such as 15s."""
    start_timeout: Annotated[int, Field(ge=1, le=600)] = 90
    """Seconds that a process may take to become healthy."""


def load_settings(config: Mapping[str, str]) -> LocalSettings:
    """The settings from a stack's configuration, whose keys are `atlas:name`.

    Raises SettingsError, one line per wrong key.
    """
    given = {key.removeprefix(f"{PROJECT}:"): value for key, value in config.items() if key.startswith(f"{PROJECT}:")}
    try:
        settings = LocalSettings.model_validate(given)
    except ValidationError as error:
        known = ", ".join(sorted(to_camel(name) for name in LocalSettings.model_fields))
        lines = []
        for detail in error.errors():
            key = ".".join(map(str, detail["loc"]))
            if detail["type"] == "extra_forbidden":
                lines.append(f"{PROJECT}:{key} is no setting; there are {known}")
            else:
                lines.append(f"{PROJECT}:{key}: {detail['msg']} (got {detail['input']!r})")
        raise SettingsError("\n".join(lines)) from None
    ports = [settings.service_port, settings.mlflow_port, settings.prometheus_port, settings.grafana_port]
    if len(set(ports)) < len(ports):
        raise SettingsError(
            f"{PROJECT}: servicePort, mlflowPort, prometheusPort and grafanaPort must differ, got {ports}"
        )
    return settings
