"""A stack file becomes settings, or one line per mistake that names key, value and what is allowed."""

import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from infra.engine.workspace import stack_settings
from infra.errors import SettingsError
from infra.settings import AwsSettings, BootstrapSettings, LocalSettings, load_settings

REPOSITORY = Path(__file__).parents[2]


def test_defaults_are_the_documented_addresses() -> None:
    settings = load_settings({"atlas:environment": "local"})
    assert isinstance(settings, LocalSettings)
    ports = [port for name, port in settings if name.endswith("_port")]
    assert ports == [5000, 5001, 9090, 3000, 9101]


def test_text_from_a_stack_file_becomes_typed_values() -> None:
    settings = load_settings({"atlas:environment": "local", "atlas:servicePort": "5500", "atlas:scrapeInterval": "2s"})
    assert isinstance(settings, LocalSettings)
    assert (settings.service_port, settings.scrape_interval) == (5500, "2s")


def test_settings_are_frozen() -> None:
    settings = LocalSettings(environment="local")
    with pytest.raises(ValidationError, match="frozen"):
        settings.workers = 3


def test_keys_of_other_namespaces_are_not_ours() -> None:
    assert load_settings({"atlas:environment": "local", "aws:region": "us-east-1"}) == LocalSettings(
        environment="local"
    )


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("atlas:servicePrt", "5000", "atlas:servicePrt is not a setting; the settings are apiKeysFile, bundle, "),
        ("atlas:servicePort", "80", "atlas:servicePort: .*1024.*'80'"),
        ("atlas:servicePort", "http", "atlas:servicePort: .*integer.*'http'"),
        ("atlas:workers", "0", "atlas:workers: .*1.*'0'"),
        ("atlas:logLevel", "loud", "atlas:logLevel: .*'debug', 'info', 'warning' or 'error'.*'loud'"),
        ("atlas:scrapeInterval", "soon", "atlas:scrapeInterval: .*'soon'"),
        ("atlas:environment", "moon", "atlas:environment must be one of local, aws, bootstrap, got 'moon'"),
        ("atlas:mlflowPort", "5000", "ports must differ, got"),
    ],
)
def test_wrong_setting_is_named_with_its_value_and_what_is_allowed(key: str, value: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        load_settings({"atlas:environment": "local"} | {key: value})


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings({"atlas:environment": "local", "atlas:workers": "0", "atlas:typo": "1"})
    assert [line.split()[0] for line in str(raised.value).splitlines()] == ["atlas:workers:", "atlas:typo"]


def test_committed_stack_file_is_valid_and_shows_the_true_default_ports() -> None:
    text = (REPOSITORY / "Pulumi.local.yaml").read_text()
    config = yaml.safe_load(text)["config"]
    settings = stack_settings("local", REPOSITORY)
    assert settings == load_settings({key: str(value) for key, value in config.items()})
    shown = {name: int(port) for name, port in re.findall(r'^  # atlas:(\w+Port): "(\d+)"$', text, re.MULTILINE)}
    fields = LocalSettings.model_fields.items()
    assert shown == {to_camel(name): field.default for name, field in fields if name.endswith("_port")}


def test_committed_stack_file_names_no_port_so_that_the_next_free_port_can_be_taken() -> None:
    settings = stack_settings("local", REPOSITORY)
    assert [name for name in settings.model_fields_set if name.endswith("_port")] == []


def test_unknown_stack_is_told_which_there_are(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.local.yaml").write_text("config: {atlas:environment: local}\n")
    with pytest.raises(SettingsError, match="no stack 'prod'; the stacks are local"):
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


AWS = {
    "atlas:environment": "aws",
    "atlas:disposable": "true",
    "atlas:apiAccessCidrs": "[]",
    "atlas:adminPrincipals": '["arn:aws:iam::123456789012:role/deploy"]',
    "atlas:serviceCidrs": '["0.0.0.0/0"]',
}


def test_aws_stack_has_the_documented_defaults() -> None:
    found = load_settings(AWS)
    assert isinstance(found, AwsSettings)
    assert (found.cluster_name, found.node_group_name, found.node_type) == (
        "flask-app-cluster",
        "flask-app-nodes",
        "t3.small",
    )
    assert (found.node_min, found.node_desired, found.node_max) == (1, 1, 1)
    assert (found.service_name, found.secret_name, found.region) == (
        "flask-app-service",
        "capstone-secret",
        "us-east-1",
    )
    assert (found.host_type, found.host_disk_gb, found.scrape_interval) == ("t3.medium", 20, "15s")
    assert found.operator_cidrs == ()


@pytest.mark.parametrize("key", ["disposable", "apiAccessCidrs", "adminPrincipals", "serviceCidrs"])
def test_what_has_no_safe_default_must_be_said(key: str) -> None:
    with pytest.raises(SettingsError, match=f"atlas:{key} is missing: "):
        load_settings({name: value for name, value in AWS.items() if name != f"atlas:{key}"})


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("image", "repository:latest", "atlas:image: .*'repository:latest'"),
        ("image", "repository@sha256:abc", "atlas:image: "),
        ("apiAccessCidrs", '["203.0.113.0"]', ""),
        ("apiAccessCidrs", '["203.0.113.0/40"]', r"atlas:apiAccessCidrs.0: not an IPv4 network"),
        ("serviceCidrs", '["203.0.113.1/24"]', "atlas:serviceCidrs.0: not an IPv4 network.*has host bits set"),
        ("serviceCidrs", "[]", "atlas:serviceCidrs: .*at least 1"),
        ("operatorCidrs", "[1, ", "atlas:operatorCidrs: not readable as JSON"),
        ("region", "virginia", "atlas:region: .*'virginia'"),
        ("zones", '["a","a"]', "zones must differ"),
        ("zones", '["a"]', "atlas:zones"),
        ("accountId", "1234", "atlas:accountId: "),
        ("adminPrincipals", '["deploy"]', "atlas:adminPrincipals.0: "),
        ("adminPrincipals", "[]", "atlas:adminPrincipals: .*at least 1"),
        ("nodeMin", "2", "nodeMin <= nodeDesired <= nodeMax"),
        ("vpcCidr", "10.0.0.0/24", "vpcCidr must hold at least a /20"),
        ("kubernetesVersion", "1.20", "atlas:kubernetesVersion: .*'1.35' or '1.36'"),
        ("hostname", "flights.example.com", "hostname needs certificateArn"),
        ("modelUri", "models:/flights-late@champion", "modelUri needs mlflowTrackingUri"),
        ("mlflowTrackingUri", "https://me:token@dagshub.com/a.mlflow", "atlas:mlflowTrackingUri: "),
        (
            "replicas",
            "3",
            "3 pods, the materialiser, and 1 more during a rolling update, don't fit: 1 t3.small hold 4",
        ),
        ("workers", "12", "podMemoryMib is 512, too little for 12 workers, .*: at least 832"),
        ("podMemoryMib", "100", "atlas:podMemoryMib: .*256.*'100'"),
        ("logRetentionDays", "31", "CloudWatch allows only these numbers of days"),
        ("disposable", "perhaps", "atlas:disposable: "),
        ("nodetype", "t3.small", "atlas:nodetype is not a setting; the settings are accountId, "),
    ],
)
def test_wrong_aws_setting_is_named_with_what_is_allowed(key: str, value: str, told: str) -> None:
    given = AWS | {f"atlas:{key}": value}
    if not told:  # one address is a network of its own
        assert isinstance(load_settings(given), AwsSettings)
        return
    with pytest.raises(SettingsError, match=told):
        load_settings(given)


def test_more_nodes_make_room_for_more_pods() -> None:
    found = load_settings(AWS | {"atlas:replicas": "4", "atlas:nodeMax": "2"})
    assert isinstance(found, AwsSettings)
    assert found.pod_room == 2 * (11 - 3) - 4


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_committed_aws_stack_files_are_valid(stack: str) -> None:
    assert isinstance(stack_settings(stack, REPOSITORY), AwsSettings)


def test_dev_stack_file_documents_every_setting() -> None:
    text = (REPOSITORY / "Pulumi.dev.yaml").read_text()
    missing = [name for name in map(to_camel, AwsSettings.model_fields) if f"atlas:{name}:" not in text]
    assert missing == []


def test_dev_stack_file_shows_the_true_defaults() -> None:
    shown = re.findall(r"^  # atlas:(\w+): ([^#\n]+)", (REPOSITORY / "Pulumi.dev.yaml").read_text(), re.MULTILINE)
    fields = {to_camel(name): field.default for name, field in AwsSettings.model_fields.items()}
    wrong = []
    for name, text in shown:
        default = fields[name]
        value = yaml.safe_load(text.strip())
        if default is not None and json.dumps(default) != json.dumps(value) and name != "maxReplicas":
            wrong.append((name, value, default))
    assert wrong == []


def test_secret_in_plain_text_is_refused_and_not_repeated(tmp_path: Path) -> None:
    lines = [f"  {key}: {value}" for key, value in AWS.items()]
    (tmp_path / "Pulumi.dev.yaml").write_text("\n".join(["config:", *lines, "  atlas:mlflowToken: hunter2", ""]))
    with pytest.raises(SettingsError, match="mlflowToken must be encrypted: `pulumi config set --secret") as raised:
        stack_settings("dev", tmp_path)
    assert "hunter2" not in str(raised.value)


def test_encrypted_secret_is_accepted(tmp_path: Path) -> None:
    lines = [f"  {key}: {value}" for key, value in AWS.items()]
    secret = "  atlas:mlflowToken: {secure: v1:abc}"
    (tmp_path / "Pulumi.dev.yaml").write_text("\n".join(["config:", *lines, secret, ""]))
    found = stack_settings("dev", tmp_path)
    assert isinstance(found, AwsSettings)
    assert found.mlflow_token is not None


BOOTSTRAP = {
    "atlas:environment": "bootstrap",
    "atlas:accountId": "123456789012",
    "atlas:repository": "repo:owner/name",
}


def test_bootstrap_has_the_documented_defaults() -> None:
    found = load_settings(BOOTSTRAP)
    assert isinstance(found, BootstrapSettings)
    assert (found.bucket, found.stacks) == ("atlas-state-123456789012-us-east-1", ("dev", "prod"))
    with_ids = load_settings(BOOTSTRAP | {"atlas:repository": "repo:owner@12/name@34"})
    assert isinstance(with_ids, BootstrapSettings)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("stacks", "[]", "atlas:stacks: .*at least 1"),
        ("stacks", '["a","b","c","d","e"]', "atlas:stacks: .*at most 4"),
        ("stacks", '["Dev"]', "atlas:stacks.0: "),
        ("repository", "owner/name", "atlas:repository: .*'owner/name'"),
        ("repository", "repo:owner/name:*", "atlas:repository: "),
        ("repository", "repo:owner/*", "atlas:repository: "),
        ("accountId", "1", "atlas:accountId: "),
        ("sessionHours", "12", "atlas:sessionHours: "),
        ("stateBucket", "Upper", "atlas:stateBucket: "),
    ],
)
def test_wrong_bootstrap_setting_is_named(key: str, value: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        load_settings(BOOTSTRAP | {f"atlas:{key}": value})


@pytest.mark.parametrize("key", ["accountId", "repository"])
def test_what_bootstrap_must_be_told(key: str) -> None:
    with pytest.raises(SettingsError, match=f"atlas:{key} is missing: "):
        load_settings({name: value for name, value in BOOTSTRAP.items() if name != f"atlas:{key}"})


def test_bootstrap_file_documents_every_setting_with_its_true_default() -> None:
    text = (REPOSITORY / "Pulumi.bootstrap.yaml").read_text()
    fields = {to_camel(name): field.default for name, field in BootstrapSettings.model_fields.items()}
    assert [name for name in fields if f"atlas:{name}:" not in text and name != "policyExceptions"] == []
    for name, shown in re.findall(r"^  # atlas:(\w+): ([^#\n]+)", text, re.MULTILINE):
        if fields[name] is not None:
            assert json.dumps(fields[name]) == json.dumps(yaml.safe_load(shown)), name
    assert isinstance(stack_settings("bootstrap", REPOSITORY), BootstrapSettings)
