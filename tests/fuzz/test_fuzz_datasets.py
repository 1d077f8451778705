"""Data set files of any content, their label maps above all, are read or refused in one sentence."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mutations import ODD_YAML, damaged, examples, mutated, outcome, values

from harness import datasets
from harness.errors import UserError

TINY = yaml.safe_load((datasets.FOLDER / "camvid.yaml").read_text())
TINY |= {
    "name": "tiny",
    "splits": {"train": 6, "val": 2, "test": 3},
    "class_pixels": {},
    "size": None,
    "classes": TINY["classes"][:3],
}
pytestmark = pytest.mark.slow
labels = st.lists(
    st.integers(-1, 300)
    | st.sampled_from(["1..3", "3..1", "0..99999", "..", "1..", [0, 0, 0], [1, 2], [256, 0, 0], [1.5, 0, 0], 2**70])
    | values,
    max_size=4,
)


@pytest.fixture
def path(tiny_data):
    return datasets.FOLDER / "tiny.yaml"


def check(path):
    """`verify` on the whole set if its file can be read at all."""
    try:
        datasets.load("tiny")
    except UserError as error:
        assert "tiny.yaml" in str(error)
        assert "\n" not in str(error)
        return 2
    return outcome("verify", "--dataset", "tiny", "--root", path.parent.parent / "tiny", "--results", path.parent)[0]


def test_the_unchanged_file_verifies(path):
    path.write_text(yaml.safe_dump(TINY))
    assert check(path) == 0


@examples(300)
@given(content=mutated(TINY))
def test_keys_and_values_of_any_kind(path, content):
    path.write_text(yaml.dump(content, allow_unicode=True), encoding="utf-8")
    assert check(path) in (0, 2)


@examples(200)
@given(maps=st.lists(labels, min_size=2, max_size=3), ignored=labels)
def test_label_maps_of_any_kind(path, maps, ignored):
    classes = [entry | {"labels": given} for entry, given in zip(TINY["classes"], maps, strict=False)]
    path.write_text(yaml.dump(TINY | {"classes": classes, "ignored_labels": ignored}))
    assert check(path) in (0, 2)


@examples(100)
@given(content=damaged(yaml.safe_dump(TINY).encode()))
def test_damaged_text(path, content):
    path.write_bytes(content)
    assert check(path) in (0, 2)


@examples(50)
@given(key=st.sampled_from(sorted(TINY)), odd=st.sampled_from(ODD_YAML))
def test_values_that_only_yaml_knows(path, key, odd):
    path.write_text(f"{yaml.safe_dump({name: TINY[name] for name in TINY if name != key})}\n{key}: {odd}\n")
    assert check(path) in (0, 2)
