"""What holds the house together beyond the contracts in pyproject.toml, which `make lint` checks with import-linter."""

from functools import cache
from pathlib import Path

import grimp
import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("infra", "ml", "service")
STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
UNLISTED = ("ml.data_params", "ml.files", "ml.logs", "ml.model_params", "ml.param_types", "ml.params")
"""Modules of stages that are no deps in dvc.yaml, which says why."""
LONGEST = 300
"""Lines of a module."""


@cache
def imports() -> grimp.ImportGraph:
    """Who imports whom, also inside functions."""
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def file_of(module: str) -> str:
    """The module's file, as a path in the repository."""
    path = Path(*module.split("."))
    return str(path / "__init__.py" if (REPOSITORY / path).is_dir() else path.with_suffix(".py"))


def test_the_image_holds_those_modules_of_ml_that_the_service_imports() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    held = {line.removeprefix("!") for line in lines if line.startswith("!ml/")}
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    for module in ("service.batch", *graph.find_descendants("service.batch")):  # not in the image
        graph.remove_module(module)
    imported = graph.find_upstream_modules("service", as_package=True)
    assert held == {"ml/__init__.py"} | {file_of(module) for module in imported}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_deps_are_the_modules_that_it_runs(stage: str) -> None:
    graph = grimp.build_graph("ml", cache_dir=None)
    for module in UNLISTED:
        graph.remove_module(module)
    main = STAGES[stage]["cmd"].removeprefix("python -m ")
    run = {file_of(module) for module in {main} | graph.find_upstream_modules(main)}
    deps = {dep for dep in STAGES[stage]["deps"] if dep.startswith("ml/")}
    covering = {file: {file, *map(str, Path(file).parents)} & deps for file in run}
    assert not {file for file, by in covering.items() if not by}, "a change of these would not run the stage again"
    assert deps == set().union(*covering.values()), "deps that the stage doesn't run"


def test_modules_are_short() -> None:
    lengths = {
        str(file.relative_to(REPOSITORY)): len(file.read_text().splitlines())
        for package in PACKAGES
        for file in (REPOSITORY / package).rglob("*.py")
    }
    long = {path: length for path, length in lengths.items() if length > LONGEST}
    assert not long, f"split what is longer than {LONGEST} lines"
