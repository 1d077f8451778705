"""docs/datasets.md says what the YAMLs say."""

import re
from pathlib import Path

import pytest

from harness import datasets


@pytest.fixture
def rows(repository: Path) -> dict[str, str]:
    """The table's row of every data set."""
    page = (repository / "docs" / "datasets.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    return {name: line for line in lines for name in re.findall(r"`(\w+)`", line.split(" | ")[0])}


def test_every_data_set_has_a_row(rows: dict[str, str]) -> None:
    assert len(rows) == 11  # whoever adds a data set need not touch this page
    assert set(rows) <= set(datasets.names())


def test_a_row_has_the_sets_classes_counts_and_root_variable(rows: dict[str, str]) -> None:
    for name, row in rows.items():
        dataset = datasets.load(name)
        if "_voc_order" in name:
            continue  # its row points to the one above
        for split, count in dataset.splits.items():
            assert all(str(number) in row for number in dataset.accepted_counts(split)), (name, split)
            assert f"{count} {split}" in row
        if name != "scenes":
            assert dataset.root_variable in row
        first = row.split(" | ")[0]
        assert f"{dataset.num_classes} classes" in first or name == "pascal_context60"


def test_a_row_has_the_folders_of_every_layout(rows: dict[str, str]) -> None:
    for name, row in rows.items():
        for spec in datasets.load(name).specs:
            if spec.layout.kind == "list" or spec.layout.name == "prepared" or "_voc_order" in name:
                continue
            folder = spec.layout.labels.split("{split}")[0].split("/")[0]
            assert folder in row or "{train,val}/{image,label}" in row, (name, spec.layout.name)
