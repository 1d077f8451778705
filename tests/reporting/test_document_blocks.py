import re
import subprocess

import pytest

from harness.errors import UserError
from harness.reporting.blocks import filled, refresh


def test_a_block_is_filled_from_its_file_and_the_rest_stays(tmp_path):
    (tmp_path / "table.md").write_text("| a |\n|---|\n")
    document = tmp_path / "README.md"
    document.write_text("before\n<!-- begin table.md -->\nold\n<!-- end -->\nafter <!-- end -->\n")
    assert refresh(document)
    expected = "before\n<!-- begin table.md -->\n\n| a |\n|---|\n\n<!-- end -->\nafter <!-- end -->\n"
    assert document.read_text() == expected
    assert not refresh(document)


def test_a_missing_file_is_named(tmp_path):
    (tmp_path / "README.md").write_text("<!-- begin nowhere.md -->\n<!-- end -->\n")
    with pytest.raises(UserError, match=r"nowhere\.md"):
        refresh(tmp_path / "README.md")


def test_the_readmes_blocks_hold_what_their_files_hold(repository):
    documents = ["README.md", "results/reference/README.md"]
    for name in (*documents, "docs/metrics.md", "docs/diagnosis.md", "docs/submit-results.md"):
        document = repository / name
        assert filled(document) == document.read_text(), f"run: python -m harness refresh {document.name}"


def prose(document):
    """A document without its code blocks, which have no headings and links."""
    return re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)


def anchors(document):
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_within_the_documents_leads_somewhere(repository):
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=repository, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(repository / name)):
            if target.startswith(("http://", "https://")):
                continue
            path, _, anchor = target.partition("#")
            folder = repository if path.startswith("/") else (repository / name).parent
            document = folder / path.lstrip("/") if path else repository / name
            assert document.exists(), f"{name}: {target}"
            assert not anchor or anchor in anchors(document), f"{name}: {target}"
