"""The notes of a release: the first lines of its commits, which say what changed for users."""

import re
import subprocess
from pathlib import Path

from infra.errors import StepError


def notes_of(root: Path, tag: str) -> str:
    """Markdown: a line for each commit since the previous version tag, without merges, the newest first.

    Raises StepError when the tag doesn't exist, or isn't a version.
    """
    if not re.fullmatch(r"v\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?", tag):
        raise StepError(f"{tag!r} is not a version: tags of releases are v1.2.3, or v1.2.3-rc.1")
    if _git(root, "rev-parse", "--verify", "--quiet", f"refs/tags/{tag}") is None:
        raise StepError(f"there is no tag {tag} here: `git fetch --tags`, or `git tag {tag} && git push origin {tag}`")
    before = _git(root, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", f"{tag}^")
    subjects = _git(root, "log", "--no-merges", "--format=%s (%h)", f"{before}..{tag}" if before else tag) or ""
    since = f"Since {before}" if before else "The first release"
    return "\n".join([f"{since}:", "", *(f"- {line}" for line in subjects.splitlines())]) + "\n"


def _git(root: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
