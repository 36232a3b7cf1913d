"""A stack file becomes settings, or one line per mistake that names key, value and what is allowed."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from infra.engine.workspace import stack_settings
from infra.settings import LocalSettings, SettingsError, load_settings

REPOSITORY = Path(__file__).parents[2]


def test_defaults_are_the_documented_addresses() -> None:
    settings = load_settings({"atlas:environment": "local"})
    ports = (settings.service_port, settings.mlflow_port, settings.prometheus_port, settings.grafana_port)
    assert ports == (5000, 5001, 9090, 3000)


def test_text_from_a_stack_file_becomes_typed_values() -> None:
    settings = load_settings({"atlas:environment": "local", "atlas:servicePort": "5500", "atlas:scrapeInterval": "2s"})
    assert (settings.service_port, settings.scrape_interval) == (5500, "2s")


def test_settings_are_frozen() -> None:
    settings = load_settings({"atlas:environment": "local"})
    with pytest.raises(ValidationError, match="frozen"):
        settings.workers = 3  # type: ignore[misc]


def test_keys_of_other_namespaces_are_not_ours() -> None:
    assert load_settings({"atlas:environment": "local", "aws:region": "us-east-1"}) == LocalSettings(
        environment="local"
    )


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("atlas:servicePrt", "5000", "atlas:servicePrt is no setting; there are bundle, "),
        ("atlas:servicePort", "80", "atlas:servicePort: .*1024.*'80'"),
        ("atlas:servicePort", "http", "atlas:servicePort: .*integer.*'http'"),
        ("atlas:workers", "0", "atlas:workers: .*1.*'0'"),
        ("atlas:logLevel", "loud", "atlas:logLevel: .*'debug', 'info', 'warning' or 'error'.*'loud'"),
        ("atlas:scrapeInterval", "soon", "atlas:scrapeInterval: .*'soon'"),
        ("atlas:environment", "moon", "atlas:environment: .*'local'.*'moon'"),
        ("atlas:mlflowPort", "5000", "servicePort, mlflowPort, .* must differ"),
    ],
)
def test_wrong_setting_is_named_with_its_value_and_what_is_allowed(key: str, value: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        load_settings({"atlas:environment": "local"} | {key: value})


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings({"atlas:environment": "local", "atlas:workers": "0", "atlas:typo": "1"})
    assert [line.split()[0] for line in str(raised.value).splitlines()] == ["atlas:workers:", "atlas:typo"]


def test_committed_stack_file_is_valid_and_uses_no_hidden_default_port() -> None:
    config = yaml.safe_load((REPOSITORY / "Pulumi.local.yaml").read_text())["config"]
    assert stack_settings("local", REPOSITORY) == load_settings({key: str(value) for key, value in config.items()})
    assert {"atlas:servicePort", "atlas:mlflowPort", "atlas:prometheusPort", "atlas:grafanaPort"} <= config.keys()


def test_unknown_stack_is_told_which_there_are(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.local.yaml").write_text("config: {atlas:environment: local}\n")
    with pytest.raises(SettingsError, match="no stack 'prod'; there are local"):
        stack_settings("prod", tmp_path)


@pytest.mark.parametrize("text", ["config: [", "- a list\n"])
def test_unreadable_stack_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "Pulumi.local.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"Pulumi\.local\.yaml can't be read"):
        stack_settings("local", tmp_path)


def test_mistake_in_a_stack_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.local.yaml").write_text("config: {atlas:environment: local, atlas:workers: many}\n")
    with pytest.raises(SettingsError, match=r"Pulumi\.local\.yaml: atlas:workers: .*'many'"):
        stack_settings("local", tmp_path)
