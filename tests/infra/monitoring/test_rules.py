"""Checks rules and configurations with promtool and amtool, in this machine's version and the hosts' version."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic.alias_generators import to_snake

from infra.hosts.versions import ALERTMANAGER, NODE_EXPORTER, PROMETHEUS
from infra.monitoring.prometheus import RULES
from infra.settings import AwsSettings
from tests.infra.monitoring.rendered import prometheus_aws, rendered
from tests.infra.monitoring.running import EITHER, hosts_own, on_path
from tests.infra.monitoring.tools.build import pinned

pytestmark = pytest.mark.slow

RULES_FOUND = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
CASES = sorted(Path(__file__).parent.glob("rules*_test.yml"))
TO_THE_EVALUATION = [file for file in CASES if file.stem in ("rules_for_test", "rules_age_test")]
"""Those that say of each alert when it is pending for the last time, and when it fires."""


@pytest.fixture(params=EITHER)
def promtool(request: pytest.FixtureRequest) -> str:
    return EITHER[request.param]("promtool")


def told(*command: str) -> str:
    """The command's output; fails the test if the command fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in RULES_FOUND if "alert" in rule]


def test_rules_are_valid(promtool: str) -> None:
    assert "SUCCESS" in told(promtool, "check", "rules", str(RULES))


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_must_and_only_then(promtool: str, cases: Path, tmp_path: Path) -> None:
    assert "SUCCESS" in told(promtool, "test", "rules", str(prepared(cases, tmp_path)))


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    cases: list[dict[str, Any]] = [
        case
        for file in CASES
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test.get("alert_rule_test", [])
    ]
    names = {rule["alert"] for rule in alerts()}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names


@pytest.mark.parametrize("evaluations", [1, -1], ids=["later", "earlier"])
def test_case_of_every_alert_fails_when_it_fires_later_or_earlier(evaluations: int, tmp_path: Path) -> None:
    """Every `for` is made an evaluation longer, or shorter: a case of each alert expects it at the very evaluation."""
    seen: set[str] = set()
    for file in TO_THE_EVALUATION:
        with pytest.raises(AssertionError) as failed:
            told(on_path("promtool"), "test", "rules", str(prepared(file, tmp_path, evaluations)))
        seen |= set(re.findall(r'ALERTS\{alertname=\\?"(\w+)', str(failed.value)))
    assert seen == {rule["alert"] for rule in alerts() if "for" in rule}


def prepared(file: Path, folder: Path, evaluations: int = 0) -> Path:
    """A copy of the cases, with the groups of rules that they name, and every `for` so many evaluations longer."""
    cases = yaml.safe_load(file.read_text())
    named = cases.get("group_eval_order")
    if named is None:
        return file
    groups = [group for group in yaml.safe_load(RULES.read_text())["groups"] if group["name"] in named]
    for rule in (rule for group in groups for rule in group["rules"] if "for" in rule):
        longer = seconds(rule["for"]) + evaluations * seconds(cases["evaluation_interval"])
        rule["for"] = f"{max(0, longer)}s"
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    (folder / file.name).write_text(yaml.safe_dump({**cases, "rule_files": ["rules.yml"]}))
    return folder / file.name


def seconds(duration: str) -> int:
    """Seconds in a duration such as 30m."""
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert {"summary", "remedy"} == rule["annotations"].keys()
    named = re.findall(r"atlas:(\w+)", rule["annotations"]["remedy"])
    assert {to_snake(setting) for setting in named} <= AwsSettings.model_fields.keys()


def test_prometheus_reads_the_local_configuration(promtool: str, tmp_path: Path) -> None:
    assert_reads(promtool, rendered()["prometheus.local.yml"], tmp_path)


def test_prometheus_reads_the_configuration_of_its_host(tmp_path: Path) -> None:
    # Only with the hosts' version, because Debian's is built without Kubernetes.
    # The files that the configuration names must exist, but their content doesn't matter.
    for name in ("token", "kubeconfig", "cluster-ca.crt"):
        (tmp_path / name).touch()
    assert_reads(hosts_own("promtool"), prometheus_aws(str(tmp_path), str(tmp_path / "token")), tmp_path)


def assert_reads(promtool: str, text: str, folder: Path) -> None:
    (folder / "prometheus.yml").write_text(text)
    shutil.copy(RULES, folder / "rules.yml")
    output = told(promtool, "check", "config", str(folder / "prometheus.yml"))
    assert f"{folder}/prometheus.yml is valid" in output
    assert f"SUCCESS: {len(RULES_FOUND)} rules found" in output


def test_promtool_refuses_what_is_wrong(promtool: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(RULES.read_text().replace("sum(rate(", "sum(rat(", 1))
    with pytest.raises(AssertionError, match="unknown function"):
        told(promtool, "check", "rules", str(tmp_path / "rules.yml"))


def test_alertmanager_reads_its_configuration_and_tells_the_topic(tmp_path: Path) -> None:
    amtool = hosts_own("amtool")
    file = tmp_path / "alertmanager.yml"
    file.write_text(rendered()["alertmanager.yml"])
    assert "6 inhibit rules" in told(amtool, "check-config", str(file))
    for severity in ("page", "ticket"):
        assert told(amtool, "config", "routes", "test", f"--config.file={file}", f"severity={severity}") == "topic\n"


def test_amtool_refuses_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    file.write_text(rendered()["alertmanager.yml"].replace("sigv4:", "sigv5:"))
    with pytest.raises(AssertionError, match="sigv5"):
        told(hosts_own("amtool"), "check-config", str(file))


def test_tools_are_built_of_the_versions_that_the_hosts_install() -> None:
    hosts = {release.name: release.version for release in (PROMETHEUS, ALERTMANAGER, NODE_EXPORTER)}
    assert pinned() == hosts


@pytest.mark.parametrize("name", ["prometheus", "promtool", "alertmanager", "amtool", "node_exporter"])
def test_built_tool_says_its_version(name: str) -> None:
    version = {"prometheus": PROMETHEUS, "promtool": PROMETHEUS, "node_exporter": NODE_EXPORTER}.get(name, ALERTMANAGER)
    assert f"{name}, version {version.version} " in told(hosts_own(name), "--version")
