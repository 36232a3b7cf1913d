"""A release's notes: what changed for users, as the commits' first lines say it."""

import re
import subprocess
from pathlib import Path

from infra.errors import StepError


def notes_of(root: Path, tag: str) -> str:
    """Markdown: a line for each commit since the version tag before, merges left out, the newest first.

    Raises StepError when there is no such tag, or it is no version.
    """
    if not re.fullmatch(r"v\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?", tag):
        raise StepError(f"{tag!r} is no version: tags of releases are v1.2.3, or v1.2.3-rc.1")
    if _git(root, "rev-parse", "--verify", "--quiet", f"refs/tags/{tag}") is None:
        raise StepError(f"there is no tag {tag} here: `git fetch --tags`, or `git tag {tag} && git push origin {tag}`")
    before = _git(root, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", f"{tag}^")
    subjects = _git(root, "log", "--no-merges", "--format=%s (%h)", f"{before}..{tag}" if before else tag) or ""
    since = f"Since {before}" if before else "The first release"
    return "\n".join([f"{since}:", "", *(f"- {line}" for line in subjects.splitlines())]) + "\n"


def _git(root: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
