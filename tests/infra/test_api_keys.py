"""The file of the API keys: what `up` accepts, the service can use; and a changed key leaves pods alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from infra.api_keys import read_api_keys
from infra.errors import SettingsError
from service.access.keys import KeysError, parse_entries
from tests.infra.support.aws import API_KEYS, up
from tests.infra.test_manifests import of_kind

HASH = "ab" * 32
GOOD: list[Any] = [
    [],
    [{"name": "shop", "sha256": HASH}],
    [{"name": "shop", "sha256": HASH}, {"name": "shop", "sha256": HASH[2:] + "cd"}],
    [{"name": "A.b_c-9", "sha256": HASH, "expires": "2027-01-01T00:00:00Z", "per_second": 5, "burst": 3}],
    [{"name": "shop", "sha256": HASH, "expires": "2027-01-01T00:00:00+02:00", "per_second": 0.5}],
    [{"name": "shop", "sha256": HASH, "expires": None, "per_second": None}],
]
BAD: list[Any] = [
    [{"name": "shop"}],
    [{"name": "a b", "sha256": HASH}],
    [{"name": "", "sha256": HASH}],
    [{"name": "shop\n", "sha256": HASH}],
    [{"name": "-x", "sha256": HASH}],
    [{"name": "x" * 64, "sha256": HASH}],
    [{"name": "shop", "sha256": HASH.upper()}],
    [{"name": "shop", "sha256": HASH, "key": "x"}],
    [{"name": "shop", "sha256": HASH, "expires": "2027-01-01T00:00:00"}],
    [{"name": "shop", "sha256": HASH, "per_second": 0}],
    [{"name": "shop", "sha256": HASH, "per_second": "5"}],
    [{"name": "shop", "sha256": HASH, "burst": 5}],
    [{"name": "shop", "sha256": HASH, "per_second": 5, "burst": 1.5}],
    [{"name": "shop", "sha256": HASH}, {"name": "other", "sha256": HASH}],
    [{"name": "shop", "sha256": f"{number:064x}"} for number in range(1001)],
    "shop",
]


@pytest.mark.parametrize("entries", [*GOOD, *BAD])
def test_what_up_accepts_the_service_can_use(tmp_path: Path, entries: Any) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": entries}))
    if entries in GOOD:
        assert read_api_keys(path) == path.read_text()
        assert len(parse_entries(path.read_bytes())) == len(entries)
        return
    with pytest.raises(SettingsError, match=r"^apiKeysFile: .*keys\.json: ") as refused:
        read_api_keys(path)
    assert "\n" not in str(refused.value)
    with pytest.raises(KeysError):
        parse_entries(path.read_bytes())


def test_a_file_that_is_not_there_or_not_json_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"No such file or directory: `atlas key new NAME --file .*` makes it"):
        read_api_keys(tmp_path / "keys.json")
    (tmp_path / "keys.json").write_text("{")
    with pytest.raises(SettingsError, match="Invalid JSON"):
        read_api_keys(tmp_path / "keys.json")


@pytest.mark.slow
def test_pods_mount_the_keys_and_prometheus_needs_none() -> None:
    """By the name of the Secret and without dependency on its value, so that a new key changes no pod."""
    secret = next(
        call.inputs
        for call in up("full").world.existing().values()
        if call.token == "kubernetes:core/v1:Secret" and "keys.json" in call.inputs["stringData"]
    )
    assert "immutable" not in secret
    assert API_KEYS.read_text() in str(secret["stringData"]["keys.json"]) or json.dumps(API_KEYS.read_text())[1:-1] in (
        json.dumps(secret["stringData"])
    )
    pod = of_kind("full", "Deployment")["spec"]["template"]["spec"]
    volume = next(each for each in pod["volumes"] if each["name"] == "api-keys")
    assert volume["secret"] == {"secretName": secret["metadata"]["name"]}
    (container,) = pod["containers"]
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "api-keys")
    assert mount == {"name": "api-keys", "mountPath": "/etc/atlas/api-keys", "readOnly": True}
    settings = of_kind("full", "ConfigMap")["data"]
    assert settings["API_KEYS_FILE"] == "/etc/atlas/api-keys/keys.json"
    assert settings["METRICS_NETWORKS"].endswith("/32")
    state = {each["urn"]: each for each in up("full").state()}
    (own,) = (each for each in state.values() if each["urn"].endswith("kubernetes:core/v1:Secret::flask-app-api-keys"))
    assert state[own["provider"].rsplit("::", 1)[0]]["inputs"]["enableSecretMutable"] == "true"


@pytest.mark.slow
def test_without_the_setting_pods_have_no_keys() -> None:
    assert "api-keys" not in str(of_kind("base", "Deployment"))
    assert not {"API_KEYS_FILE", "METRICS_NETWORKS"} & of_kind("base", "ConfigMap")["data"].keys()
