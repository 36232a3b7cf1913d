"""Everything on this machine: DVC remote, MLflow, the service; Prometheus and Grafana where they are in place."""

import sys
from pathlib import Path
from typing import Any

import pulumi

from infra.api_keys import read_api_keys
from infra.bundle import bundle_manifest, has_views
from infra.local.machine import Machine
from infra.local.releases import Found
from infra.local.resources import Directory, File, Process, Supervisor
from infra.loopback import LOOPBACK
from infra.monitoring.dashboards import dashboards
from infra.monitoring.grafana import provisioning
from infra.monitoring.prometheus import RULES, local_jobs, prometheus_config
from infra.names import GRAFANA_HEALTH, MATERIALIZER_READY, MLFLOW_HEALTH, PROMETHEUS_READY, SERVICE_READY
from infra.settings import LocalSettings


def deploy(settings: LocalSettings, repository: Path, machine: Machine) -> dict[str, Any]:
    """Declare the stack; returns its outputs. A part without a port of `machine` gets the settings' port.

    Raises SettingsError when there is no bundle to serve, or the API keys' file can't be used.
    """
    settings = settings.model_copy(update={f"{part}_port": port for part, port in machine.ports.items()})
    home = repository / settings.directory
    runs = main_checkout(repository) / settings.mlflow_store
    bundle = repository / settings.bundle
    manifest = bundle_manifest(bundle)
    version, looks_up = manifest["version"], has_views(manifest)
    python = str(Path(sys.prefix) / "bin" / "python")

    directory = Directory("directory", path=str(home))
    Directory("dvc-remote", path=str(repository / settings.dvc_remote), keep=True)
    supervisor = Supervisor("supervisor", directory=str(home), opts=pulumi.ResourceOptions(depends_on=[directory]))

    def process(name: str, command: list[str], port: int, health: str, **more: Any) -> Process:
        depends_on = more.pop("depends_on", [])
        return Process(
            name,
            directory=str(home),
            command=command,
            working_directory=str(repository),
            health_url=f"http://{LOOPBACK}:{port}{health}",
            timeout=settings.start_timeout,
            opts=pulumi.ResourceOptions(depends_on=[supervisor, *depends_on]),
            **more,
        )

    process(
        "mlflow",
        [
            python, "-m", "ml.mlflow_server",
            "--backend-store-uri", f"sqlite:///{runs}/mlflow.db",
            "--artifacts-destination", str(runs / "artifacts"),
            "--host", LOOPBACK, "--port", str(settings.mlflow_port), "--workers", "1",
        ],
        settings.mlflow_port,
        MLFLOW_HEALTH,
        # The job workers are for GenAI features, which aren't used here, and need most of the start-up time.
        environment={"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        folders=[str(runs)],
    )  # fmt: skip
    store = home / "features.db"
    if looks_up:
        process(
            "materializer",
            [
                python, "-m", "ml.materialize", "--follow",
                "--store", str(store),
                "--speed", f"{settings.replay_speed:g}",
                "--port", str(settings.materializer_port),
            ],
            settings.materializer_port,
            MATERIALIZER_READY,
            # A model with other views needs other rows.
            triggers={"views": manifest["files"]["views.json"]},
        )  # fmt: skip
    process(
        "service",
        [python, "-m", "service"],
        settings.service_port,
        SERVICE_READY,
        environment={
            "MODEL_URI": str(bundle),
            "HOST": LOOPBACK,
            "PORT": str(settings.service_port),
            "WORKERS": str(settings.workers),
            "LOG_LEVEL": settings.log_level,
            **({"FEATURE_STORE": str(store)} if looks_up else {}),
            **_access(settings, repository),
            "PROMETHEUS_MULTIPROC_DIR": str(home / "metrics"),
        },
        # The version leaves out the card, which the service shows, too.
        reloads={"version": version, "card": manifest.get("files", {}).get("card.json", "")},
    )
    outputs: dict[str, Any] = {
        "service": f"http://{LOOPBACK}:{settings.service_port}",
        "mlflow": f"http://{LOOPBACK}:{settings.mlflow_port}",
        "bundle": version,
    }
    outputs |= dict(machine.missing)
    if found := machine.programs.get("prometheus"):
        outputs["prometheus"] = _prometheus(settings, home, supervisor, process, found, materializer=looks_up)
    if found := machine.programs.get("grafana"):
        outputs["grafana"] = _grafana(settings, home, supervisor, process, found)
    return outputs


def _access(settings: LocalSettings, repository: Path) -> dict[str, str]:
    """The service's settings for API keys; it reads the file itself, so a changed file needs no `up`."""
    if settings.api_keys_file is None:
        return {}
    path = repository / settings.api_keys_file
    read_api_keys(path)
    return {"API_KEYS_FILE": str(path), "METRICS_NETWORKS": f"{LOOPBACK}/32"}  # Prometheus asks without a key


def main_checkout(repository: Path) -> Path:
    """The checkout to which a linked git worktree belongs, whose MLflow store the pipeline uses; else `repository`."""
    link = repository / ".git"
    if link.is_file():
        folder = repository / link.read_text().removeprefix("gitdir:").strip()
        if folder.parent.name == "worktrees":
            return folder.resolve().parents[2]
    return repository


def _prometheus(
    settings: LocalSettings, home: Path, supervisor: Supervisor, process: Any, found: Found, *, materializer: bool
) -> str:
    """Declare it; returns its address."""
    folder = home / "prometheus"
    below = pulumi.ResourceOptions(depends_on=[supervisor])
    rules = File("prometheus-rules", path=str(folder / "rules.yml"), content=RULES.read_text(), opts=below)
    jobs = local_jobs(
        f"{LOOPBACK}:{settings.service_port}",
        f"{LOOPBACK}:{settings.prometheus_port}",
        f"{LOOPBACK}:{settings.materializer_port}" if materializer else None,
    )
    content = prometheus_config(settings.scrape_interval, str(folder / "rules.yml"), jobs)
    config = File("prometheus-config", path=str(folder / "prometheus.yml"), content=content, opts=below)
    process(
        "prometheus",
        [
            str(found.program),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={LOOPBACK}:{settings.prometheus_port}",
        ],
        settings.prometheus_port,
        PROMETHEUS_READY,
        # Prometheus reads its files only at its start, so a changed file must restart it.
        triggers={"config": config.digest, "rules": rules.digest},
        depends_on=[config, rules],
    )
    return f"http://{LOOPBACK}:{settings.prometheus_port}"


def _grafana(settings: LocalSettings, home: Path, supervisor: Supervisor, process: Any, found: Found) -> str:
    """Declare it; returns its address."""
    folder = home / "grafana"
    address = f"http://{LOOPBACK}:{settings.prometheus_port}"

    def file(name: str, path: str, content: str) -> File:
        below = pulumi.ResourceOptions(depends_on=[supervisor])
        return File(f"grafana-{name}", path=str(folder / path), content=content, opts=below)

    for name, content in dashboards().items():
        file(f"dashboard-{Path(name).stem}", f"dashboards/{name}", content)
    # Grafana reads changed dashboards again, but the provisioning only at its start.
    config = {
        Path(name).parent.name: file(Path(name).parent.name, f"provisioning/{name}", content)
        for name, content in provisioning(prometheus_url=address, dashboards=str(folder / "dashboards")).items()
    }
    # Where distributions and Homebrew (Apple silicon, Intel) keep Grafana's other files.
    shared = (Path("/usr/share/grafana"), Path("/opt/homebrew/share/grafana"), Path("/usr/local/share/grafana"))
    home_path = found.folder or next((path for path in shared if path.is_dir()), folder)
    process(
        "grafana",
        [str(found.program), "server", "--homepath", str(home_path)],
        settings.grafana_port,
        GRAFANA_HEALTH,
        environment={
            "GF_SERVER_HTTP_ADDR": LOOPBACK,
            "GF_SERVER_HTTP_PORT": str(settings.grafana_port),
            "GF_PATHS_DATA": str(folder / "data"),
            "GF_PATHS_LOGS": str(folder / "logs"),
            "GF_PATHS_PROVISIONING": str(folder / "provisioning"),
            # It listens only on the loopback address and has nothing to protect, so it needs no log-in.
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_AUTH_DISABLE_LOGIN_FORM": "true",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_PLUGINS_PREINSTALL_DISABLED": "true",  # otherwise it downloads plugins at its start
        },
        triggers={name: provisioned.digest for name, provisioned in config.items()},
        depends_on=list(config.values()),
    )
    return f"http://{LOOPBACK}:{settings.grafana_port}"
