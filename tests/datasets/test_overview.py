import json

import layout_writer
import pytest

from harness import datasets
from harness.datasets.overview import overview, whereabouts
from harness.datasets.verify import verify


@pytest.fixture(autouse=True)
def no_roots(monkeypatch):
    for name in datasets.names():
        monkeypatch.delenv(datasets.load(name).root_variable, raising=False)


def test_without_any_data_the_facts_are_there_and_nothing_is_found(tmp_path):
    found = overview(tmp_path)
    assert list(found) == datasets.names()
    assert found["cityscapes"] == {
        "title": "Cityscapes",
        "classes": 19,
        "splits": {"train": 2975, "val": 500},
        "root_variable": "CITYSCAPES_ROOT",
        "root": None,
        "found": None,
        "why": "",
        "verified": False,
    }
    assert found["scenes"]["root"].startswith(str(tmp_path / "data" / "scenes-"))  # where it will be rendered
    assert found["scenes"]["found"] is None
    assert json.loads(json.dumps(found)) == found


@pytest.mark.slow
def test_a_root_is_found_with_its_layout_and_verified_once_checked(tmp_path, monkeypatch):
    counts = {"train": 1, "val": 1, "test": 1}
    cityscapes, camvid = datasets.load("cityscapes").specs[1], datasets.load("camvid").specs[0]
    root = layout_writer.write_scenes(tmp_path / "cityscapes", cityscapes, counts, (16, 16))
    monkeypatch.setenv("CITYSCAPES_ROOT", str(root))
    roots = {"camvid": layout_writer.write_scenes(tmp_path / "camvid", camvid, counts, (16, 16))}
    found = overview(tmp_path, roots)
    assert (found["cityscapes"]["root"], found["cityscapes"]["found"]) == (str(root), "original")
    assert (found["camvid"]["root"], found["camvid"]["found"]) == (str(roots["camvid"]), "yes")
    assert not found["cityscapes"]["verified"]
    verify(datasets.load("cityscapes", root), datasets.report_path("cityscapes", tmp_path))
    assert overview(tmp_path)["cityscapes"]["verified"]
    listed = overview(tmp_path)
    assert whereabouts(listed["cityscapes"]) == f"in {root}, layout original, verified"
    assert "set ADE20K_ROOT" in whereabouts(listed["ade20k"])
    assert whereabouts(found["camvid"]) == f"in {roots['camvid']}, not verified yet"
    # A report about another folder says nothing about this one.
    other = layout_writer.write_scenes(tmp_path / "other", cityscapes, counts, (16, 16))
    assert not overview(tmp_path, {"cityscapes": other})["cityscapes"]["verified"]


def test_a_mistake_in_one_yaml_leaves_the_others_listed(tmp_path, monkeypatch):
    for name in ("scenes", "camvid"):
        (tmp_path / f"{name}.yaml").write_text((datasets.FOLDER / f"{name}.yaml").read_text())
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    monkeypatch.setattr(datasets, "FOLDER", tmp_path)
    found = overview(tmp_path)
    assert "mine.yaml" in whereabouts(found["mine"])
    assert found["camvid"]["classes"] == 11


@pytest.mark.parametrize("report", ["", "[]", "{}", '{"fingerprint": null, "root": "ROOT"}', '{"fingerprint": "a"}'])
def test_a_report_that_is_damaged_or_failed_verifies_nothing(tmp_path, report):
    spec = datasets.load("ade20k").specs[0]
    root = layout_writer.write_scenes(tmp_path / "ade20k", spec, {"train": 1, "val": 1}, (16, 16))
    path = datasets.report_path("ade20k", tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(report.replace("ROOT", str(root)))
    found = overview(tmp_path, {"ade20k": root})["ade20k"]
    assert (found["found"], found["verified"]) == ("yes", False)


def test_a_root_that_holds_something_else_is_not_found(tmp_path):
    (tmp_path / "images").mkdir()
    found = overview(tmp_path, {"ade20k": tmp_path, "coco_stuff10k": tmp_path / "nowhere"})
    assert (found["ade20k"]["root"], found["ade20k"]["found"]) == (str(tmp_path), None)
    assert found["coco_stuff10k"]["found"] is None
    assert whereabouts(found["ade20k"]).startswith(f"not in {tmp_path}: the root ")
