"""docs/new-dataset.md, followed to the letter."""

import re
from pathlib import Path

import cv2
import layout_writer
import numpy as np
import pytest
import yaml

from harness import datasets
from harness.datasets.spec import ClassEntry, Spec, read_specs


@pytest.fixture
def page(repository: Path):
    return (repository / "docs" / "new-dataset.md").read_text()


def blocks(page: str, language: str):
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.fixture
def farm(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder of the user's own, with nothing in it but the page's YAML."""
    folder = tmp_path / "datasets"
    folder.mkdir()
    (folder / "farm.yaml").write_text(blocks(page, "yaml")[0])
    monkeypatch.setenv(datasets.FOLDERS_VARIABLE, str(folder))
    return folder


def test_the_pages_files_are_read_by_the_pages_yaml_and_python(page, farm, tmp_path, monkeypatch):
    names = re.findall(r"farm/(\S+\.(?:jpg|png))", page)
    assert len(names) == 4
    for name in names:
        path = tmp_path / "farm" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.array([[0, 1], [2, 3]], np.uint8)
        cv2.imwrite(str(path), np.zeros((2, 2, 3), np.uint8) if "photos" in name else values)
    dataset = datasets.load("farm", tmp_path / "farm")
    for split, key, cluster in (("train", "north_0001", "north"), ("test", "south_0001", "south")):
        (sample,) = dataset.samples(split)
        assert (sample.id, dataset.cluster(sample.id)) == (key, cluster)
        assert dataset.read(sample)[1].tolist() == [[255, 0], [1, 1]]
    monkeypatch.setenv("FARM_ROOT", str(tmp_path / "farm"))
    found: dict[str, np.ndarray] = {}
    exec(compile(blocks(page, "python")[0], "docs/new-dataset.md", "exec"), found)
    assert (found["image"].shape, found["label"].tolist()) == ((2, 2, 3), [[255, 0], [1, 1]])


def test_every_key_that_the_page_names_is_one(page: str, farm: Path, tmp_path: Path):
    """Each row of the table, put into the page's YAML, is accepted."""
    content = yaml.safe_load((farm / "farm.yaml").read_text())
    folders = {key: value for key, value in content["layout"].items() if key != "split_names"}
    flat = {"kind": "folders", "images": "photos/{id}.jpg", "labels": "masks/{id}.png"}
    colours = [
        {"name": "a", "color": [0, 0, 0], "labels": [[0, 128, 0], [0, 255, 0]]},
        {"name": "b", "color": [0, 0, 0], "labels": [[1, 2, 3]]},
    ]
    rows = dict(re.findall(r"^\| (`.*?) \| (.*) \|$", page, re.MULTILINE))
    edits = {
        "`kind: folders`": {"layout": folders},
        '`lists: "sets/{split}.txt"`': {"layout": flat},
        '`ids: {train: [["a_0001", "a_0400"]]}`': {"layout": flat},
        "`kind: list`": {"layout": {}},
        "`inside: farm-v1.1`": {"layout": folders},
        "`remark: text`": {"layout": folders},
        "`encoding: colors`": {"layout": folders, "classes": colours, "ignored_labels": []},
        "`encoding: mat`, `field: S`": {"layout": folders},
    }
    assert set(rows) == set(edits)
    for row, edit in edits.items():
        edited = content | edit
        for key in re.findall(r"`(.*?)`", row):
            edited["layout"] = edited["layout"] | yaml.safe_load(key)
        (tmp_path / "farm.yaml").write_text(yaml.safe_dump(edited))
        assert isinstance(read_specs(tmp_path / "farm.yaml")[0], Spec), row


def test_the_rest_of_the_page_is_accepted(farm: Path):
    content = yaml.safe_load((farm / "farm.yaml").read_text())
    content["layouts"] = [content["layout"] | {"name": name, "values": name} for name in ("ids", "train_ids")]
    del content["layout"]
    for number, entry in enumerate(content["classes"]):
        entry["labels"] = {"ids": [f"{10 * number + 10}..{10 * number + 19}"], "train_ids": [number]}
    content["ignored_labels"] = {"ids": [0], "train_ids": [255]}
    third = {"name": "barn", "color": [1, 1, 1], "labels": {"ids": [7], "train_ids": [2]}}
    content["classes"].append(third)
    (farm / "farm.yaml").write_text(yaml.safe_dump(content))
    (farm / "dry_farm.yaml").write_text("base: farm\nname: dry_farm\nignored_classes: [water]\n")
    ids, train_ids = datasets.load("dry_farm").specs
    assert [entry.name for entry in ids.classes] == ["field", "barn"]
    assert ids.classes[0] == ClassEntry(name="field", color=(120, 180, 60), labels=tuple(range(10, 20)))
    assert ids.ignored_labels == (0, *range(20, 30))
    assert train_ids.ignored_labels == (255, 1)


def test_the_writer_takes_the_pages_layout(farm: Path, tmp_path: Path):
    spec = datasets.load("farm").specs[0]
    root = layout_writer.write_scenes(tmp_path / "root", spec, {"train": 2, "test": 1}, (16, 16))
    assert len(list(root.glob("photos/train/train/train_*.jpg"))) == 2
