"""README.md and docs/ taken apart: sections, tables, code blocks, links; for tests that hold them against the code."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.infra.recording.run import REPOSITORY

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
INDENTED = re.compile(r"(?:^ {4,}\S.*\n)+", re.MULTILINE)


@dataclass(frozen=True)
class Document:
    """One Markdown file."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def prose(self) -> str:
        """Without fenced code, whose comments look like headings."""
        return FENCE.sub("", self.text)

    @property
    def name(self) -> str:
        return str(self.path.relative_to(REPOSITORY))

    @property
    def anchors(self) -> set[str]:
        """What a link may name after #, as GitHub makes it of headings."""
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for _, title in HEADING.findall(self.prose)}

    @property
    def links(self) -> list[str]:
        return LINK.findall(self.prose)

    @property
    def running(self) -> str:
        """Running text: without code blocks."""
        return INDENTED.sub("", self.prose)

    @property
    def shell(self) -> list[str]:
        """The text of its shell blocks: fenced ones that name no other language, and indented ones."""
        fenced = [text for language, text in FENCE.findall(self.text) if language in {"", "bash", "sh", "console"}]
        return [*fenced, *INDENTED.findall(self.prose)]

    def whole(self, title: str) -> str:
        """What stands below this heading, code included, up to the next one of a line of its own."""
        _, found, rest = self.text.partition(f"\n## {title}\n")
        assert found, f"{self.name} has no section {title!r}"
        return rest.split("\n## ")[0]

    def section(self, title: str) -> str:
        """What stands below this heading, up to the next heading."""
        found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#+ |\Z)", self.prose, re.MULTILINE | re.DOTALL)
        assert found, f"{self.name} has no section {title!r}"
        return found[2]

    def rows(self, title: str) -> dict[str, list[str]]:
        """The section's table: what its first column names in `code` -> the other cells."""
        rows = {}
        for line in self.section(title).splitlines():
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
            for name in re.findall(r"`([^`]+)`", cells[0]) if line.startswith("|") else []:
                assert name not in rows, f"{self.name}, {title}: {name} stands there twice"
                rows[name] = cells[1:]
        return rows


def documents() -> list[Document]:
    """README.md and every file of docs/."""
    return [Document(REPOSITORY / "README.md"), *map(Document, sorted((REPOSITORY / "docs").glob("*.md")))]


def document(name: str) -> Document:
    return Document(REPOSITORY / "docs" / name)
