"""What holds the house together beyond the contracts in pyproject.toml, which `make lint` checks with import-linter."""

import ast
from functools import cache
from pathlib import Path

import grimp
import pytest
import yaml

from ml.params import Params

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("infra", "ml", "service")
STAGES = {
    name: stage.get("do", stage)  # what is the same for each item of `foreach`
    for name, stage in yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"].items()
}
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


def with_packages(modules: set[str]) -> set[str]:
    """The files of modules, and of the packages that they are in."""
    return {file_of(module) for module in modules | {module.rpartition(".")[0] for module in modules}}


def imported_by_the_service() -> set[str]:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    for module in ("service.batch", *graph.find_descendants("service.batch")):  # not in the image
        graph.remove_module(module)
    return graph.find_upstream_modules("service", as_package=True)


def test_the_image_holds_those_modules_of_ml_that_the_service_imports() -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    app = dockerfile.partition(" AS app\n")[2].partition("COPY service")[0]
    held = {word for word in app.replace("\\\n", " ").split() if word.endswith(".py")}
    assert held == with_packages(imported_by_the_service())


def test_the_image_of_a_model_with_views_also_holds_those_that_the_materialiser_imports() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    held = {line.removeprefix("!") for line in lines if line.startswith("!ml/")}
    materialiser = {"ml.materialize"} | imports().find_upstream_modules("ml.materialize")
    assert held == with_packages(imported_by_the_service() | materialiser)


def files_run(stage: str) -> set[str]:
    """The files of the modules that a stage runs and that decide its outputs."""
    graph = grimp.build_graph("ml", cache_dir=None)
    for module in UNLISTED:
        graph.remove_module(module)
    main = STAGES[stage]["cmd"].split()[2]  # python -m MODULE
    return {file_of(module) for module in {main} | graph.find_upstream_modules(main)}


def sections_read(source: str) -> set[str]:
    """The sections of params.yaml that functions read: `params.SECTION`, where `params` has the type Params."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    found: set[str] = set()
    for function in functions:
        given = [each.annotation for each in function.args.args if each.arg == "params"]
        if any(kind is None or ast.unparse(kind) != "Params" for kind in given):  # a section, such as DataParams
            continue
        attributes = [node for node in ast.walk(function) if isinstance(node, ast.Attribute)]
        found |= {node.attr for node in attributes if ast.unparse(node.value) == "params"}
    return found & set(Params.model_fields)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_deps_are_the_modules_that_it_runs(stage: str) -> None:
    run = files_run(stage)
    deps = {dep for dep in STAGES[stage]["deps"] if dep.startswith("ml/")}
    covering = {file: {file, *map(str, Path(file).parents)} & deps for file in run}
    assert not {file for file, by in covering.items() if not by}, "a change of these would not run the stage again"
    assert deps == set().union(*covering.values()), "deps that the stage doesn't run"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_params_are_the_sections_that_its_code_reads(stage: str) -> None:
    read: set[str] = set().union(*(sections_read((REPOSITORY / file).read_text()) for file in files_run(stage)))
    undeclared = read - set(STAGES[stage]["params"])
    assert not undeclared, "a change of these would not run the stage again"


def test_modules_are_short() -> None:
    lengths = {
        str(file.relative_to(REPOSITORY)): len(file.read_text().splitlines())
        for package in PACKAGES
        for file in (REPOSITORY / package).rglob("*.py")
    }
    long = {path: length for path, length in lengths.items() if length > LONGEST}
    assert not long, f"split what is longer than {LONGEST} lines"
