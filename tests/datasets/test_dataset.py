import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import harness.datasets
from harness.datasets import load, prepare, resolve_root
from harness.datasets.dataset import Dataset
from harness.datasets.spec import Spec, read_specs
from harness.datasets.verify import verify
from harness.errors import UserError

CAMVID_YAML = Path(harness.datasets.__file__).parent / "camvid.yaml"


def with_spec(dataset, **update):
    return Dataset(dataset.spec.model_copy(update=update), dataset.root)


# the YAML


def edited_yaml(folder, **edits):
    content = yaml.safe_load(CAMVID_YAML.read_text()) | edits
    path = folder / "camvid.yaml"
    path.write_text(
        yaml.safe_dump({key: value for key, value in content.items() if value is not None}, sort_keys=False)
    )
    return path


def test_camvids_yaml_has_the_facts_of_the_segnet_version():
    camvid = load("camvid")
    assert len(camvid.classes) == 11
    assert (camvid.classes[0], camvid.colors[0]) == ("Sky", (128, 128, 128))
    assert (camvid.classes[4], camvid.colors[4]) == ("Pavement", (60, 40, 222))
    assert (camvid.classes[10], camvid.colors[10]) == ("Bicyclist", (0, 128, 192))
    assert camvid.splits == {"train": 367, "val": 101, "test": 233}
    assert (camvid.train_split, camvid.evaluation_split, camvid.ignore_index) == ("train", "test", 255)
    for split, images in camvid.splits.items():  # every pixel of 480x360 is counted once
        assert sum(camvid.class_pixels[split]) == images * 480 * 360


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"licence": None}, "licence is missing"),
        (
            {"licenze": "free"},
            r"unknown key 'licenze': did you mean licence\? allowed are base, categories, class",
        ),
        ({"licence": None, "license": "free"}, "unknown key 'license': did you mean licence"),
        ({"name": "kitti"}, "name is 'kitti', but must be the file's name, 'camvid'"),
        (
            {"layout": {"kind": "folders", "images": "a/{id}.png", "labels": "b/{id}.png", "ids": {"tset": []}}},
            "there is no split 'tset'",
        ),
        ({"train_split": "training"}, "there is no split 'training'; splits are train, val, test"),
        ({"class_pixels": {"train": [1, 2, 3]}}, "class_pixels.train has 3 numbers"),
        ({"ignored_labels": [3, 11]}, r"the label values \[3\] are given twice"),
        ({"ignored_labels": [256]}, "the label value 256 is larger than 255, the most that such labels hold"),
        ({"ignored_labels": 11}, "ignored_labels: must be a list of label values"),
        ({"ignored_labels": [-1]}, r"ignored_labels: -1 is no label value: give an integer of 0 or more, 'a..b' or"),
        (
            {"classes": [{"name": "a", "color": [0, 0, 0], "labels": []}]},
            "classes.0.labels: a class needs at least one",
        ),
        ({"classes": None}, "classes is missing"),
        ({"classes": [{"name": "a", "color": [0, 0, 0]}]}, "classes.0.labels is missing"),
        ({"clusters": "[^_"}, "clusters: '\\[\\^_' is no regular expression"),
        ({"layout": None}, "give either layout, or a list of them as layouts"),
        ({"layout": {"kind": "tree"}}, "layout must have 'kind' among 'list', 'folders', not 'tree'"),
        ({"layout": {"kind": "folders", "images": "a/{id}.png"}}, "layout.labels is missing"),
        ({"layout": {"kind": "list", "deep": True}}, "unknown key 'deep' in layout: allowed are"),
        ({"layout": None, "layouts": []}, "layouts must be a list with at least one entry"),
        ({"layout": None, "layouts": [{"kind": "list"}, {"kind": "list"}]}, "two of the layouts have the same name"),
        (
            {"layout": None, "layouts": [{"kind": "list"}, {"kind": "list", "lists": 1, "name": "b"}]},
            "layouts.1.lists must be text",
        ),
        (
            {"layout": {"kind": "folders", "images": "a/b.png", "labels": "b/{id}.png"}},
            "layout: images: the file's name in 'a/b.png' must hold {id} once",
        ),
        ({"ignored_classes": ["Cat"], "class_pixels": None}, "ignored_classes names 'Cat', which is no class"),
        ({"base": "camvid"}, "base: 'camvid' is no other data set's name"),
        (
            {"classes": [{"name": "a", "color": [0, 0, 0], "labels": [v]} for v in (0, 1)], "class_pixels": None},
            "two classes have the same name",
        ),
        ({"classes": [{"name": "a", "color": [0, 0], "labels": [0]}]}, "classes.0.color"),
    ],
)
def test_a_wrong_yaml_is_refused_with_its_key(tmp_path, edits, message):
    with pytest.raises(UserError, match=message) as caught:
        read_specs(edited_yaml(tmp_path, **edits))
    assert "camvid.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def write_yaml(path, **content):
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def two_layouts(path, **edits):
    """A data set whose labels are train ids in one layout and raw ids in the other."""
    content = {
        "name": path.stem,
        "title": "Pets",
        "licence": "none",
        "source": "none",
        "root_variable": "PETS_ROOT",
        "layouts": [
            {"kind": "folders", "name": name, "images": f"{name}/{{split}}/{{id}}.png", "values": name}
            | {"labels": f"{name}/{{split}}/{{id}}_label.png"}
            for name in ("train_ids", "ids")
        ],
        "classes": [
            {"name": "cat", "color": [1, 2, 3], "labels": {"ids": [7, "20..22"], "train_ids": [0]}},
            {"name": "dog", "color": [4, 5, 6], "labels": {"ids": [3], "train_ids": [1]}},
            {"name": "cow", "color": [4, 5, 6], "labels": {"ids": [4], "train_ids": [2]}},
        ],
        "ignored_labels": {"ids": ["0..2"], "train_ids": [255]},
        "splits": {"train": 5, "val": 2},
        "train_split": "train",
        "evaluation_split": "val",
    }
    return write_yaml(path, **(content | edits))


def test_each_layout_has_its_own_label_values(tmp_path):
    train_ids, ids = read_specs(two_layouts(tmp_path / "pets.yaml"))
    assert [spec.layout.name for spec in (train_ids, ids)] == ["train_ids", "ids"]
    assert [entry.labels for entry in train_ids.classes] == [(0,), (1,), (2,)]
    assert [entry.labels for entry in ids.classes] == [(7, 20, 21, 22), (3,), (4,)]
    assert (train_ids.ignored_labels, ids.ignored_labels) == ((255,), (0, 1, 2))
    assert Spec.model_validate_json(ids.model_dump_json()) == ids


def test_a_layout_that_means_values_which_a_class_lacks_is_refused(tmp_path):
    path = two_layouts(tmp_path / "pets.yaml", ignored_labels={"ids": [0]})
    with pytest.raises(UserError, match=r"pets.yaml: ignored_labels has no label values 'train_ids', which a layout"):
        read_specs(path)


def test_a_base_gives_the_keys_that_a_file_leaves_out(tmp_path):
    two_layouts(tmp_path / "pets.yaml", other_counts={"val": [3]})
    path = write_yaml(tmp_path / "dogs.yaml", base="pets", name="dogs", title="Dogs", ignored_classes=["cat"])
    for spec, cat_labels in zip(read_specs(path), [(0,), (7, 20, 21, 22)], strict=True):
        assert (spec.name, spec.title, spec.root_variable) == ("dogs", "Dogs", "PETS_ROOT")
        assert [entry.name for entry in spec.classes] == ["dog", "cow"]
        assert set(cat_labels) <= set(spec.ignored_labels)
    layout = {"kind": "list", "values": "ids"}
    one = read_specs(write_yaml(tmp_path / "herd.yaml", base="dogs", name="herd", layout=layout))
    assert [(spec.layout.kind, len(spec.classes)) for spec in one] == [("list", 2)]


def test_bases_that_go_round_are_refused(tmp_path):
    for one, other in (("a", "b"), ("b", "a")):
        write_yaml(tmp_path / f"{one}.yaml", base=other)
    with pytest.raises(UserError, match=r"b.yaml: base: 'a' is no other data set's name"):
        read_specs(tmp_path / "a.yaml")


def test_a_colour_is_a_label_value(tmp_path):
    layout = {"kind": "folders", "images": "a/{id}.png", "labels": "b/{id}.png", "encoding": "colors"}
    classes = [{"name": name, "color": [0, 0, 0], "labels": [[1, 2, red]]} for name, red in (("a", 3), ("b", 255))]
    path = two_layouts(tmp_path / "p.yaml", layouts=[layout], classes=classes, ignored_labels=[[0, 0, 0]])
    spec = read_specs(path)[0]
    assert [entry.labels for entry in spec.classes] == [(0x010203,), (0x0102FF,)]


# which layout a root holds


def save(root, name, pixels):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / name), pixels)


def pets(root, layout, values):
    for split in ("train", "val"):
        save(root, f"{layout}/{split}/a.png", np.zeros((*np.shape(values), 3), np.uint8))
        save(root, f"{layout}/{split}/a_label.png", np.array(values, np.uint8))
    return root


def test_the_first_layout_that_a_root_holds_is_read(tmp_path):
    specs = read_specs(two_layouts(tmp_path / "pets.yaml"))
    root = pets(tmp_path / "root", "ids", [[7, 22, 3], [4, 1, 0]])
    only_ids = Dataset(specs, root)
    assert only_ids.spec == specs[1]
    assert only_ids.found_layout() == specs[1].layout
    assert only_ids.read(only_ids.samples("val")[0])[1].tolist() == [[0, 0, 1], [2, 255, 255]]
    pets(root, "train_ids", [[0, 0, 1], [2, 255, 255]])
    both = Dataset(specs, root)
    assert both.spec == specs[0]
    assert both.samples("val")[0].label_path == root / "train_ids/val/a_label.png"
    assert both.read_label(both.samples("val")[0]).tolist() == [[0, 0, 1], [2, 255, 255]]
    assert both.fingerprint() != only_ids.fingerprint()


def test_a_root_without_the_data_set_is_named_with_the_layouts_that_were_looked_for(tmp_path):
    dataset = Dataset(read_specs(two_layouts(tmp_path / "pets.yaml")), tmp_path)
    for ask in (dataset.folder, lambda: dataset.samples("val"), dataset.fingerprint):
        with pytest.raises(UserError, match=r"holds pets\.yaml; needed are train_ids/train/\*\.png"):
            ask()
    pets(tmp_path, "ids", [[7]])
    assert dataset.spec.layout.name == "ids"  # it is looked for again until it is found


# finding data sets and roots


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(
        UserError, match=r"unknown data set 'camvit': did you mean camvid\? allowed are .*camvid, .*scenes"
    ):
        load("camvit")


def test_the_given_root_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("CAMVID_ROOT", "/from/environment")
    assert resolve_root("camvid", Path("/given")) == Path("/given")
    assert resolve_root("camvid") == Path("/from/environment")


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_root_the_sentence_says_the_three_ways(monkeypatch, value):
    monkeypatch.delenv("CAMVID_ROOT", raising=False)
    if value is not None:
        monkeypatch.setenv("CAMVID_ROOT", value)
    for ask in (lambda: resolve_root("camvid"), lambda: load("camvid").samples("test")):
        with pytest.raises(UserError, match=r"no root: set CAMVID_ROOT, or roots\.camvid .* or pass --root DIR"):
            ask()


def test_a_rendered_sets_root_changes_with_its_settings(monkeypatch, tmp_path):
    monkeypatch.delenv("SCENES_ROOT", raising=False)
    spec = load("scenes").spec
    root = resolve_root("scenes", results=tmp_path)
    assert root.parent == tmp_path / "data"
    assert root.name.startswith("scenes-")
    assert resolve_root("scenes", results=tmp_path) == root
    others = [
        spec.model_copy(update={"generator": spec.generator.model_copy(update={"seed": spec.generator.seed + 1})}),
        spec.model_copy(update={"splits": {**spec.splits, "test": 1}}),
    ]
    for other in others:
        monkeypatch.setattr(harness.datasets, "_specs", lambda name, other=other: (other,))
        assert resolve_root("scenes", results=tmp_path) != root


def test_a_small_rendered_set_can_be_read_and_verified(tmp_path):
    spec = load("scenes").spec.model_copy(update={"splits": {"train": 2, "val": 1, "test": 1}})
    scenes = Dataset(spec, tmp_path / "scenes")
    prepare(scenes)
    report = verify(scenes, tmp_path / "verify.json")
    size = f"{spec.generator.width}x{spec.generator.height}"
    found = {split: each["sizes"] for split, each in report["splits"].items()}
    assert found == {"train": {size: 2}, "val": {size: 1}, "test": {size: 1}}
    before = {path: path.stat().st_mtime_ns for path in scenes.folder().rglob("*")}
    prepare(scenes)  # it is rendered once
    assert {path: path.stat().st_mtime_ns for path in scenes.folder().rglob("*")} == before


def test_nothing_is_rendered_for_a_downloaded_set(tmp_path):
    prepare(load("camvid", tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


# reading


def test_read_gives_rgb_and_train_ids_with_void_ignored(tree):
    sample = tree.samples("test")[0]
    image, label = tree.read(sample)
    stored = cv2.imread(str(sample.label_path), cv2.IMREAD_UNCHANGED)
    bgr = cv2.imread(str(sample.image_path), cv2.IMREAD_COLOR)
    assert 11 in stored
    assert (image.dtype, image.shape, label.dtype) == (np.uint8, (10, 12, 3), np.uint8)
    assert np.array_equal(image, bgr[..., ::-1])
    assert np.array_equal(label, np.where(stored == 11, 255, stored))


def test_a_label_value_outside_the_table_is_named(tree):
    sample = tree.samples("test")[0]
    label = np.zeros((10, 12), np.uint8)
    label[3, 4] = 77
    cv2.imwrite(str(sample.label_path), label)
    with pytest.raises(UserError, match=f"{sample.label_path} has the value 77, but labels may hold 0..11$"):
        tree.read(sample)


def test_a_label_of_another_size_is_named_with_both_sizes(tree):
    sample = tree.samples("test")[0]
    cv2.imwrite(str(sample.label_path), np.zeros((12, 10), np.uint8))
    message = rf"{sample.label_path} is 10x12 \(width x height\), but its image is 12x10$"
    with pytest.raises(UserError, match=message):
        tree.read(sample)


def test_a_wrong_list_stops_samples_with_its_first_line(tree):
    sample = tree.samples("test")[1]
    sample.image_path.unlink()
    sample.label_path.unlink()
    message = rf"CamVid in .*: test.txt line 2 names the image test/{sample.id}.png, .* \(and 1 more problem\)"
    with pytest.raises(UserError, match=message):
        tree.samples("test")


def test_an_empty_list_stops_samples(tree):
    (tree.root / "val.txt").write_text("\n")
    with pytest.raises(UserError, match=rf"CamVid in {tree.root}: the list of the split val names no image"):
        tree.samples("val")


@pytest.mark.parametrize(("name", "cluster"), [("Seq05VD_f00000", "Seq05VD"), ("0016E5_07959", "0016E5")])
def test_camvids_cluster_is_the_video(name, cluster):
    assert load("camvid").cluster(name) == cluster


# the fingerprint


def test_the_fingerprint_is_that_of_every_copy(tree, tmp_path):
    copy = shutil.copytree(tree.root, tmp_path / "copy")
    for path in copy.rglob("*.*"):
        os.utime(path, (1, 1))
    for path in copy.glob("*.txt"):  # as if made on another machine
        path.write_text("\n".join(" ".join(f"/a/b/{name}" for name in line.split()) for line in path.open()))
    assert Dataset(tree.spec, copy).fingerprint() == tree.fingerprint()
    assert with_spec(tree, title="another title").fingerprint() == tree.fingerprint()


def one_label_pixel(tree, sample):
    label = cv2.imread(str(sample.label_path), cv2.IMREAD_UNCHANGED)
    label[0, 0] = (label[0, 0] + 1) % 12
    cv2.imwrite(str(sample.label_path), label)
    return tree


def image_size(tree, sample):
    with sample.image_path.open("ab") as file:
        file.write(b"\0")
    return tree


def meaning(tree, sample):
    return with_spec(tree, classes=tree.spec.classes[:10], ignored_labels=(10, 11))


def shorter_list(tree, sample):
    (tree.root / "test.txt").write_text(f"{sample.image_path} {sample.label_path}\n")
    return tree


@pytest.mark.parametrize("change", [one_label_pixel, image_size, meaning, shorter_list])
def test_the_fingerprint_changes_with(tree, change):
    before = tree.fingerprint()
    assert change(tree, tree.samples("test")[0]).fingerprint() != before


def test_splits_have_fingerprints_of_their_own(tree):
    train, test = tree.fingerprint(["train"]), tree.fingerprint(["test"])
    image_size(tree, tree.samples("test")[0])
    assert tree.fingerprint(["train"]) == train
    assert tree.fingerprint(["test"]) != test


# the real data


def test_real_camvid_has_its_counts_and_class_table(camvid_root):
    camvid = load("camvid", camvid_root)
    assert {split: len(camvid.samples(split)) for split in camvid.splits} == camvid.splits
    assert {camvid.cluster(sample.id) for sample in camvid.samples("test")} == {"0001TP", "Seq05VD"}
    known = json.loads((camvid_root / "class_pixels.json").read_text())
    assert [*camvid.classes, "Void"] == known["classes"]
    assert {split: list(counts) for split, counts in camvid.class_pixels.items()} == known["pixels"]


def test_real_camvid_is_found_through_the_original_lists(camvid_root, tmp_path):
    for folder in ("test", "testannot"):
        (tmp_path / folder).symlink_to(camvid_root / folder)
    lines = (camvid_root / "test.txt").read_text().replace(".jpg", ".png").splitlines()
    original = "\n".join(" ".join(f"/SegNet/CamVid/{name}" for name in line.split()) for line in lines)
    (tmp_path / "test.txt").write_text(original)
    ids = [sample.id for sample in load("camvid", tmp_path).samples("test")]
    assert ids == [sample.id for sample in load("camvid", camvid_root).samples("test")]


def test_a_real_camvid_image_is_rgb_of_480x360(camvid_root):
    camvid = load("camvid", camvid_root)
    sample = camvid.samples("test")[100]  # by day: the sky is bluer than it is red
    image, label = camvid.read(sample)
    assert image.shape == (360, 480, 3)
    sky = image[label == 0].mean(axis=0)
    assert sky[2] > sky[0]
