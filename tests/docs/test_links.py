"""Every link in README.md and docs/ leads somewhere, and every page is found from the index."""

import pytest

from tests.docs.documents import Document, documents
from tests.infra.recording.run import REPOSITORY

LINKS = [(document, link) for document in documents() for link in document.links if "://" not in link]


@pytest.mark.parametrize(("document", "link"), LINKS, ids=lambda value: getattr(value, "name", value))
def test_link_leads_to_a_file_and_a_heading(document: Document, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (document.path.parent / path).resolve() if path else document.path
    assert target.exists(), f"{document.name}: there is no {path}"
    assert target.is_relative_to(REPOSITORY)
    if anchor:
        assert anchor in Document(target).anchors, f"{document.name}: {path} has no heading for #{anchor}"


def test_every_page_is_in_the_index() -> None:
    index = Document(REPOSITORY / "docs/README.md")
    linked = {link.partition("#")[0] for link in index.links}
    pages = {document.path.name for document in documents() if document.path.parent.name == "docs"}
    assert pages - {"README.md"} <= linked, "docs/README.md says nothing of them"
