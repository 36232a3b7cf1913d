"""The engine is found in its order, and what can't be had is told in one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pulumi.automation import PulumiCommand

from infra.engine import install
from infra.errors import EngineError

pytestmark = pytest.mark.slow

VERSION = install.pinned_version()


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty cache and nothing of ours on PATH, where nothing can be downloaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")

    def refused(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(PulumiCommand, "install", refused)
    return tmp_path


def test_python_package_and_go_module_have_the_pinned_version() -> None:
    from importlib.metadata import version

    assert version("pulumi") == VERSION
    assert f"github.com/pulumi/pulumi/pkg/v3 v{VERSION} " in Path(install.__file__).with_name("go.mod").read_text()


def test_pinned_engine_on_path_comes_first(machine: Path) -> None:
    on_path = executable(machine / "bin/pulumi", f"echo v{VERSION}")
    executable(install.cached(VERSION), f"echo v{VERSION}")
    assert install.ensure(print) == on_path


def test_other_version_on_path_is_passed_over_for_the_cached_one(machine: Path) -> None:
    executable(machine / "bin/pulumi", "echo v3.1.0")
    cached = executable(install.cached(VERSION), f"echo v{VERSION}")
    assert install.ensure(print) == cached


def test_official_release_is_put_in_the_cache_with_its_companions(monkeypatch: pytest.MonkeyPatch) -> None:
    def release(root: str, version: object) -> None:
        executable(Path(root, "bin/pulumi"), f"echo v{version}")
        executable(Path(root, "bin/pulumi-language-python"), "true")

    monkeypatch.setattr(PulumiCommand, "install", release)
    found = install.ensure(print)
    assert found == install.cached(VERSION)
    assert found.with_name("pulumi-language-python").exists()
    assert [path.name for path in found.parents[2].iterdir()] == [f"v{VERSION}"]


def test_engine_is_built_where_it_cannot_be_downloaded(machine: Path) -> None:
    # The stand-in for Go writes what it was asked to link, with the version that the flags set.
    told = machine / "told"
    executable(
        machine / "bin/go",
        f"""echo "$@" > {told}
version=$(echo "$@" | sed 's/.*version.Version=\\(v[0-9.]*\\).*/\\1/')
while [ "$1" != -o ]; do shift; done
printf '#!/bin/sh\\necho %s\\n' "$version" > "$2"; chmod +x "$2" """,
    )
    lines: list[str] = []
    found = install.ensure(lines.append)
    assert found == install.cached(VERSION)
    assert install.version_of(found) == VERSION
    assert told.read_text().split()[-1] == install.PACKAGE
    assert [path.name for path in found.parent.iterdir()] == ["pulumi"]
    assert "official release" in lines[0]
    assert "building" in lines[1]


def test_failed_build_tells_go_s_own_words_and_leaves_nothing(machine: Path) -> None:
    executable(machine / "bin/go", "echo 'go: module lookup refused' >&2; exit 1")
    with pytest.raises(EngineError, match=r"failed:\n(?s:.*)module lookup refused"):
        install.ensure(print)
    assert list(install.cached(VERSION).parent.iterdir()) == []


def test_damaged_engine_in_the_cache_is_replaced(machine: Path) -> None:
    executable(install.cached(VERSION), "exit 1")
    executable(machine / "bin/go", "exit 1")
    with pytest.raises(EngineError, match="failed"):
        install.ensure(print)


def test_engine_is_asked_for_its_version_only_until_it_was_found_good_and_again_when_it_changed(machine: Path) -> None:
    asked = machine / "asked"
    engine = executable(install.cached(VERSION), f"echo >> {asked}; echo v{VERSION}")
    assert [install.ensure(print) for _ in range(3)] == [engine] * 3
    assert asked.read_text() == "\n"
    executable(engine, "exit 1")
    executable(machine / "bin/go", "exit 1")
    with pytest.raises(EngineError, match="failed"):
        install.ensure(print)


def test_machine_without_go_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **_: None if name == "go" else which(name))
    lines: list[str] = []
    with pytest.raises(EngineError, match=r"install it from pulumi\.com, or install Go 1\.26 or newer"):
        install.ensure(lines.append)
    assert [line for line in lines if "build" in line] == [], "no build is promised that can't begin"


def test_script_prints_nothing_but_the_path(machine: Path) -> None:
    on_path = executable(machine / "bin/pulumi", f"echo v{VERSION}")
    done = subprocess.run(
        [sys.executable, "-m", "infra.engine.install"],
        capture_output=True,
        text=True,
        check=True,
        cwd=install.REPOSITORY,
        env=dict(os.environ),
    )
    assert (done.stdout, done.stderr) == (f"{on_path}\n", "")
