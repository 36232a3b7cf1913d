"""Every command in README.md and docs/ is one that its tool takes: asked of the tool's own parser where it has one."""

import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec

import botocore.session
import click
import pytest
from botocore import xform_name
from botocore.exceptions import UnknownServiceError
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser

from infra.cli import main
from infra.engine.install import ensure
from tests.docs.documents import documents
from tests.infra.recording.run import REPOSITORY

pytestmark = pytest.mark.slow

BIN = ".venv/bin/"
SEPARATORS = frozenset({"|", "||", "&&", ";", "&", "(", ")"})
ASSIGNMENT = re.compile(r"[A-Za-z_]+=.*", re.DOTALL)
BEFORE = re.compile(rf"([A-Za-z_]+=('[^']*'|\"[^\"]*\"|\S)*\s+)*({re.escape(BIN)})?")
"""What can stand before a tool's name in running text."""
INSIDE = re.compile(r"\$\(([^()]*)\)")
VARIABLES = frozenset({"PATH", "AWS_PROFILE"})
"""That are no one's in particular; others stand in docs/reference.md."""


def commands_in(text: str) -> Iterator[list[str]]:
    """Words of each command of a shell block; comments, assignments before it and redirections are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("atlas: "):  # what it says, not what one says to it
            continue
        for inside in INSIDE.findall(line):
            yield from commands_in(inside)
        lexer = shlex.shlex(INSIDE.sub("…", line).strip().removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for token in [*lexer, ";"]:
            if token in SEPARATORS:
                yield from [words] if words else []
                words = []
            elif words or not ASSIGNMENT.fullmatch(token):
                words.append(token)


def written() -> list[tuple[str, list[str]]]:
    """Document and words of every command: in blocks, and in running text between back-ticks."""
    found = []
    for document in documents():
        inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", document.running)]
        tools = tuple(f"{tool} " for tool in TOOLS)
        for text in [*document.shell, *(code for code in inline if BEFORE.sub("", code, count=1).startswith(tools))]:
            try:
                commands = list(commands_in(text))
            except ValueError as error:
                raise ValueError(f"{document.name}: no shell could read this ({error}):\n{text}") from None
            found += [(document.name, words) for words in commands if (document.name, words) not in found]
    return found


def flags(words: Sequence[str]) -> set[str]:
    """The options among them, without values."""
    return {word.partition("=")[0] for word in words if re.match(r"-{1,2}[A-Za-z]", word)}


def check_atlas(words: Sequence[str]) -> None:
    name, *options = words
    command = main.get_command(click.Context(main), name)
    assert command, f"there is no atlas {name}"
    if isinstance(command, click.Group) and options:
        name, *options = options
        command = command.get_command(click.Context(command), name)
        assert command, f"there is no atlas {' '.join(words[:2])}"
    command.make_context(name, [option for option in options if option != "…"])


def check_make(words: Sequence[str]) -> None:
    text = (REPOSITORY / "Makefile").read_text()
    for word in words:
        name, assigned, _ = word.partition("=")
        known = rf"\$\(?{name}\)?\b|\$\({name}\)" if assigned else rf"^{name}:"
        assert re.search(known, text, re.MULTILINE), f"the Makefile has no {name}"


def check_dvc(words: Sequence[str]) -> None:
    get_main_parser().parse_args(list(words))


def check_python(words: Sequence[str]) -> None:
    if words[0] == "-m":
        assert find_spec(words[1]), f"there is no module {words[1]}"
    else:
        assert (REPOSITORY / words[0]).is_file(), f"there is no {words[0]}"


def check_taskset(words: Sequence[str]) -> None:
    """It runs another command on some processors: that one is checked."""
    option, processors, tool, *rest = words
    assert option == "-c", option
    assert re.fullmatch(r"[\d,-]+", processors), processors
    ALL[tool.removeprefix(BIN)](rest)


def check_pytest(words: Sequence[str]) -> None:
    for word in words:
        assert word.startswith("-") or (REPOSITORY / word).exists(), f"there is no {word}"


AWS_OWN = {
    # Commands of the CLI that are no calls of an API.
    "configure": set(),
    "eks update-kubeconfig": {"--region", "--name", "--alias"},
    "eks get-token": {"--region", "--cluster-name"},
    "logs tail": {"--region", "--since", "--follow"},
    "s3 cp": {"--version-id"},
    "s3 ls": {"--recursive"},
    "sso login": {"--profile"},
}
AWS_ANYWHERE = {"--region", "--query", "--output", "--profile", "--no-cli-pager"}


@cache
def aws_service(name: str) -> "botocore.model.ServiceModel":
    return botocore.session.Session().get_service_model(name)


def check_aws(words: Sequence[str]) -> None:
    if words == ["--version"]:
        return
    given = flags(words)
    for own, known in AWS_OWN.items():
        if " ".join(words).startswith(own):
            assert given <= known | AWS_ANYWHERE, given
            return
    service = aws_service({"s3api": "s3"}.get(words[0], words[0]))
    operations = {xform_name(name, "-"): name for name in service.operation_names}
    assert words[1] in operations, f"aws {words[0]} has no {words[1]}"
    shape = service.operation_model(operations[words[1]]).input_shape
    known = {f"--{xform_name(member, '-')}" for member in (shape.members if shape else ())}
    required = {f"--{xform_name(member, '-')}" for member in (shape.required_members if shape else ())}
    assert given <= known | AWS_ANYWHERE, given - known
    assert required <= given, f"aws {words[0]} {words[1]} needs {required - given}"


@cache
def help_of(*words: str) -> str:
    """What the pinned Pulumi engine says of a command."""
    engine = ensure(lambda _: None)
    told = subprocess.run([engine, *words, "--help"], capture_output=True, text=True, timeout=60, check=True)
    return told.stdout


def check_pulumi(words: Sequence[str]) -> None:
    depth = 0
    while (
        depth < len(words)
        and re.search(r"^\w", words[depth])
        and re.search(rf"^ +{re.escape(words[depth])} ", help_of(*words[:depth]), re.MULTILINE)
    ):
        depth += 1
    assert depth, f"there is no pulumi {words[0]}"
    known = set(re.findall(r"(?<!\w)(--?[a-z][\w-]*)", help_of(*words[:depth])))
    assert flags(words) <= known, flags(words) - known


KUBECTL = {
    "apply": {"-f"},
    "describe": {"--namespace"},
    "drain": {"--ignore-daemonsets", "--delete-emptydir-data"},
    "get": {"--namespace", "--all-namespaces", "--selector"},
    "logs": {"--namespace", "--selector", "--tail", "--previous"},
    "rollout": {"--namespace"},
    "top": {"--all-namespaces"},
    "annotate": set(),
    "edit": set(),
    "label": set(),
    "scale": set(),
    "set": set(),
}
DOCKER = {
    "build": {"-t"},
    "buildx": {"--load", "--tag", "--target"},
    "run": {"-p", "-e"},
}


def check_kubectl(words: Sequence[str]) -> None:
    rest = words[2:] if words[0] == "--namespace" else words
    assert flags(rest) <= KUBECTL[rest[0]], words


def check_docker(words: Sequence[str]) -> None:
    assert flags(words) <= DOCKER[words[0]], words


def check_export(words: Sequence[str]) -> None:
    """Only variables that the reference explains."""
    known = (REPOSITORY / "docs/reference.md").read_text()
    for word in words:
        name = word.partition("=")[0]
        assert f"`{name}`" in known or name in VARIABLES, f"docs/reference.md says nothing of {name}"


TOOLS = {
    "atlas": check_atlas,
    "aws": check_aws,
    "docker": check_docker,
    "dvc": check_dvc,
    "kubectl": check_kubectl,
    "make": check_make,
    "pulumi": check_pulumi,
}
ALL = {**TOOLS, "export": check_export, "pytest": check_pytest, "python": check_python, "taskset": check_taskset}
TRUSTED = {"apt-get", "cat", "cd", "curl", "gh", "git", "go", "jq", "journalctl", "systemctl"}
"""Nothing here can say whether these are right."""


@pytest.mark.parametrize(
    ("document", "words"), [pytest.param(d, w, id=f"{d}: {shlex.join(w)[:60]}") for d, w in written()]
)
def test_command_is_one_that_its_tool_takes(document: str, words: list[str]) -> None:
    tool = words[0].removeprefix(BIN)
    if tool in TRUSTED:
        return
    assert tool in ALL, f"{document}: what is {tool}?"
    try:
        ALL[tool](words[1:])
    except (click.UsageError, DvcParserError, UnknownServiceError) as error:
        pytest.fail(f"{document}: {shlex.join(words)}: {error}")
