"""Prometheus's own tool on the rules and on the rendered configuration."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.monitoring.prometheus import RULES, local_jobs, prometheus_config

CASES = sorted(Path(__file__).parent.glob("*_test.yml"))


@pytest.fixture(scope="module")
def promtool() -> str:
    binary = shutil.which("promtool")
    if binary is None:
        pytest.skip("promtool is not on PATH: `apt-get install prometheus`")
    return binary


def told(*command: str) -> str:
    """What the command printed; fails the test when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_are_valid(promtool: str) -> None:
    assert "SUCCESS" in told(promtool, "check", "rules", str(RULES))


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_must_and_only_then(promtool: str, cases: Path) -> None:
    told(promtool, "test", "rules", str(cases))


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    cases: list[dict[str, Any]] = [
        case
        for file in CASES
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test.get("alert_rule_test", [])
    ]
    alerts = {rule["alert"] for rule in rules if "alert" in rule}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == alerts


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]
                assert {"summary", "remedy"} <= rule["annotations"].keys(), rule["alert"]


def test_rendered_configuration_is_the_golden_file(promtool: str, tmp_path: Path) -> None:
    text = prometheus_config("15s", "rules.yml", local_jobs("127.0.0.1:5000", "127.0.0.1:9090"))
    assert text == Path(__file__).with_name("prometheus.golden.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(text)
    (tmp_path / "rules.yml").write_text(RULES.read_text())
    assert "SUCCESS" in told(promtool, "check", "config", str(tmp_path / "prometheus.yml"))
