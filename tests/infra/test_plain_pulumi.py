"""`pulumi up`, `preview` and `destroy` typed by hand: the real engine's command, which runs infra/__main__.py.

The language host is Pulumi's own where the engine's release has it, else tests/infra/support/language_host.py.
"""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from infra.engine.install import ensure
from tests.infra.conftest import Checkout
from tests.infra.support import language_host, warm
from tests.infra.support.homes import home_without_logs

pytestmark = pytest.mark.slow

IDENTITY = {"Account": "123456789012", "Arn": "arn:aws:sts::123456789012:assumed-role/deploy/me"}
AWS = {
    "environment": "aws",
    "accountId": "123456789012",
    "disposable": True,
    "adminPrincipals": ["arn:aws:iam::123456789012:role/deploy"],
    "apiAccessCidrs": [],
    "serviceCidrs": ["10.0.0.0/8"],
    "image": f"123456789012.dkr.ecr.us-east-1.amazonaws.com/other@sha256:{'a' * 64}",
}
"""A valid AWS stack."""


@dataclass(frozen=True, slots=True)
class Typed:
    """The command `pulumi` in a copy of the repository."""

    checkout: Checkout
    environment: dict[str, str]

    def pulumi(self, *arguments: str, code: int = 0) -> str:
        """Run it to its end; returns all that it printed."""
        done = subprocess.run(
            [self.environment["PULUMI"], *arguments, "--non-interactive", "--color", "never"],
            cwd=self.checkout.path,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        assert (done.returncode == 0) == (code == 0), done.stdout
        return done.stdout

    def refused(self, *arguments: str) -> str:
        """The only error that it printed, after it failed."""
        said = self.pulumi(*arguments, code=1)
        assert "Traceback" not in said, said
        assert 'File "' not in said
        assert "exit code" not in said
        (told,) = (
            line for line in said.splitlines() if line.strip().startswith("error: ") if "failed" not in line[:16]
        )
        return told.strip().removeprefix("error: ")

    def stack(self, name: str, **settings: object) -> None:
        """Write Pulumi.<name>.yaml with these settings, and create the stack."""
        config = {f"atlas:{key}": value for key, value in settings.items()}
        (self.checkout.path / f"Pulumi.{name}.yaml").write_text(yaml.safe_dump({"config": config}))
        self.pulumi("stack", "init", name)


@pytest.fixture
def typed(checkout: Checkout, tmp_path: Path) -> Typed:
    engine = ensure(lambda _: None)
    path = [] if engine.with_name("pulumi-language-python").exists() else [language_host.put_on_path(tmp_path / "host")]
    python = checkout.path / ".venv/bin/python"  # where Pulumi.yaml says that it is
    python.parent.mkdir(parents=True)
    python.symlink_to(warm.python())
    environment = os.environ | {
        "PULUMI": str(engine),
        "PATH": os.pathsep.join([*map(str, path), str(tmp_path / "bin"), str(engine.parent), os.environ["PATH"]]),
        "ATLAS_PYTHON": str(warm.python()),
        "PULUMI_BACKEND_URL": (tmp_path / "state").as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "",
        "PULUMI_HOME": str(home_without_logs(tmp_path / "pulumi")),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    }
    (tmp_path / "state").mkdir()
    return Typed(checkout, environment)


@pytest.fixture
def aws_cli(tmp_path: Path) -> Callable[[str, int], None]:
    """Put an AWS CLI on PATH whose answer to `sts get-caller-identity`, and its exit status, are these."""

    def put(answer: str, code: int) -> None:
        script = tmp_path / "bin" / "aws"
        script.parent.mkdir(exist_ok=True)
        to = ">&2" if code else ""
        script.write_text(
            f"#!/bin/sh\nif [ $1 = --version ]; then echo aws-cli/2.31.0; exit; fi\necho '{answer}' {to}\nexit {code}\n"
        )
        script.chmod(0o755)

    return put


def test_local_stack_comes_up_shows_a_change_and_leaves_nothing(typed: Typed) -> None:
    typed.pulumi("stack", "init", "local")
    typed.pulumi("up", "--yes", "--skip-preview")
    assert typed.checkout.predict()["predictions"]
    assert "unchanged" in typed.pulumi("preview", "--expect-no-changes")
    typed.checkout.configure(logLevel="debug")
    said = typed.pulumi("preview")
    assert "1 to update" in said
    assert "process service" in " ".join(said.split()) or "service" in said
    typed.pulumi("destroy", "--yes", "--skip-preview")
    typed.checkout.assert_nothing_left()


@pytest.mark.parametrize("command", [("preview",), ("up", "--yes")])
def test_a_wrong_setting_is_a_line(typed: Typed, command: tuple[str, ...]) -> None:
    typed.pulumi("stack", "init", "local")
    typed.checkout.configure(logLevel="loud")
    assert typed.refused(*command).startswith("atlas:logLevel: ")


def test_a_missing_bundle_is_a_line(typed: Typed) -> None:
    typed.pulumi("stack", "init", "local")
    (typed.checkout.path / "models/bundle/bundle.json").unlink()
    assert typed.refused("preview").endswith("make one with `make repro`, or fetch it with `dvc pull`")


def test_missing_credentials_are_a_line(typed: Typed, aws_cli: Callable[[str, int], None]) -> None:
    typed.stack("tried", **AWS)
    aws_cli('Unable to locate credentials. You can configure credentials by running "aws configure".', 253)
    assert typed.refused("preview").startswith("AWS gives no identity (Unable to locate credentials.")


def test_another_account_is_a_line(typed: Typed, aws_cli: Callable[[str, int], None]) -> None:
    typed.stack("tried", **{**AWS, "accountId": "210987654321"})
    aws_cli(json.dumps(IDENTITY), 0)
    assert typed.refused("preview").startswith("these credentials belong to account 123456789012, the stack to 2109")


def test_a_secret_in_plain_text_is_a_line(typed: Typed) -> None:
    typed.stack("tried", **AWS, mlflowToken="hunter2")
    told = typed.refused("preview")
    assert told == "atlas:mlflowToken must be encrypted: `pulumi config set --secret mlflowToken …`"


@pytest.mark.parametrize("command", [("preview",), ("up", "--yes", "--skip-preview")])
def test_an_image_that_is_not_there_is_a_line_before_anything_is_created(
    typed: Typed, aws_cli: Callable[[str, int], None], moto: str, command: tuple[str, ...]
) -> None:
    own = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/atlas-tried/flask-app@sha256:{'a' * 64}"
    typed.stack("tried", **{**AWS, "image": own})
    aws_cli(json.dumps(IDENTITY), 0)
    typed.environment.update({name: value for name, value in os.environ.items() if name.startswith("AWS_")})
    assert "which atlas:image in Pulumi.tried.yaml names: nothing changed" in typed.refused(*command)


def test_a_zone_that_the_account_does_not_have_is_a_line_of_the_preview(
    typed: Typed, aws_cli: Callable[[str, int], None], moto: str
) -> None:
    typed.stack("tried", **AWS, zones=["a", "z"])
    aws_cli(json.dumps(IDENTITY), 0)
    typed.environment.update({name: value for name, value in os.environ.items() if name.startswith("AWS_")})
    assert typed.refused("preview").startswith("atlas:zones names z, but this account has no zone us-east-1z: ")
