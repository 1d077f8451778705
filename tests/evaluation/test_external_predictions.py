import json
import os
import random
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from harness import datasets
from harness.checks.records import check_record
from harness.errors import UserError
from harness.evaluation.external_predictions import score_predictions
from harness.experiment.run import Run
from harness.runs.record import read_json


def truths(dataset, split="test"):
    return {sample.id: dataset.read_label(sample) for sample in dataset.samples(split)}


def guesses(dataset, split="test", seed=1):
    """The ground truth with a tenth of the pixels moved to the next class, and nothing ignored."""
    draw, found = np.random.default_rng(seed), {}
    for image_id, label in truths(dataset, split).items():
        wrong = (label == 255) | (draw.random(label.shape) < 0.1)
        found[image_id] = np.where(wrong, (label.astype(int) + 1) % dataset.num_classes, label).astype(np.uint8)
    return found


def write(folder, maps, encoding="train_ids", dataset=None, name="{}.png"):
    """Write maps of train ids as another program would; 255 becomes 255 or white."""
    for image_id, labels in maps.items():
        path = folder / name.format(image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        if encoding == "train_ids":
            image = Image.fromarray(labels)
        elif encoding == "raw_ids":
            raw = [entry.labels[0] for entry in dataset.specs[-1].classes] + [255] * 256
            image = Image.fromarray(np.array(raw, np.uint8)[labels])
        else:
            colors = np.full((256, 3), 255, np.uint8)
            colors[: dataset.num_classes] = dataset.colors
            if encoding == "colors":
                image = Image.fromarray(colors[labels])
            else:  # a palette, with the indices in an order of their own
                order = np.random.default_rng(3).permutation(256).astype(np.uint8)
                palette = np.empty_like(colors)
                palette[order] = colors
                image = Image.fromarray(order[labels])
                image.putpalette(palette.ravel().tolist())
        image.save(path)
    return folder


def brute_force(dataset, maps, split="test"):
    """mIoU, pixel accuracy and IoU by class, by a loop over classes."""
    truth = truths(dataset, split)
    true = np.concatenate([truth[image_id].ravel() for image_id in truth])
    guess = np.concatenate([maps[image_id].ravel() for image_id in truth])[true != 255]
    true = true[true != 255]
    found = {
        name: 100 * np.sum((true == c) & (guess == c)) / np.sum((true == c) | (guess == c))
        for c, name in enumerate(dataset.classes)
        if np.any((true == c) | (guess == c))
    }
    return np.mean(list(found.values())), 100 * np.mean(true == guess), found


# The data set `tiny` has three classes with the raw ids 0, 1, 2; raw ids that differ are tested with Cityscapes below.
@pytest.mark.parametrize(
    ("encoding", "told"),
    [("train_ids", "train_ids"), ("colors", "colors"), ("palette", "colors")],
)
def test_the_scores_are_those_of_a_plain_loop_however_the_maps_are_stored(tiny, tmp_path, encoding, told):
    maps = guesses(tiny)
    found = score_predictions(write(tmp_path / "theirs", maps, encoding, tiny), tiny)
    miou, accuracy, per_class = brute_force(tiny, maps)
    assert found["format"] == told
    assert (found["dataset"], found["split"], found["images"], found["absent"]) == ("tiny", "test", 3, "skip")
    assert 50 < miou < 95
    assert found["scores"]["miou"] == pytest.approx(miou, rel=1e-12)
    assert found["scores"]["pixel_accuracy"] == pytest.approx(accuracy, rel=1e-12)
    assert found["per_class"]["iou"] == pytest.approx(per_class, rel=1e-12)
    assert all(value is None or 0 <= value <= 100 for value in found["scores"].values())
    assert (found["record"], found["warnings"]) == (None, [])
    json.dumps(found, allow_nan=False)


def test_the_label_files_themselves_score_100_everywhere(tiny, tmp_path):
    # They hold 11 on ignored pixels, which is no class.
    (tmp_path / "labels").mkdir()
    for sample in tiny.samples("test"):
        shutil.copy(sample.label_path, tmp_path / "labels" / f"{sample.id}.png")
    scores = score_predictions(tmp_path / "labels", tiny)["scores"]
    assert {"miou", "boundary_miou@3px", "trimap_miou@0.02"} <= scores.keys()
    assert {value for value in scores.values() if value is not None} == {100.0}


def test_what_is_predicted_on_ignored_pixels_changes_nothing(tiny, tmp_path):
    maps = guesses(tiny)
    before = score_predictions(write(tmp_path / "one", maps), tiny)
    for image_id, label in truths(tiny).items():
        ignored = label == 255
        assert ignored.any()
        maps[image_id][ignored] = np.arange(ignored.sum()) * 37 % 256
    after = score_predictions(write(tmp_path / "two", maps), tiny)
    assert (after["scores"], after["per_class"]) == (before["scores"], before["per_class"])


def test_neither_the_order_of_the_files_nor_their_folders_matter(tiny, tmp_path):
    maps = guesses(tiny)
    first = score_predictions(write(tmp_path / "one", maps), tiny)
    shuffled = list(maps.items())
    random.Random(5).shuffle(shuffled)
    for number, (image_id, labels) in enumerate(shuffled):
        write(tmp_path / "two", {image_id: labels}, name=f"{9 - number}/deeper/{{}}.PNG")
    assert score_predictions(tmp_path / "two", tiny) == first


@pytest.mark.parametrize("name", ["{}_pred.png", "{}_gtFine_labelIds.png", "sub/{}.png"])
def test_a_file_may_be_named_after_its_image_with_something_behind(tiny, tmp_path, name):
    maps = guesses(tiny)
    plain = score_predictions(write(tmp_path / "plain", maps), tiny)["scores"]
    assert score_predictions(write(tmp_path / "named", maps, name=name), tiny)["scores"] == plain


def test_the_longest_name_wins(tiny_data, tmp_path):
    """The images a.png and a_b.png: a_b_pred.png is the prediction of the second."""
    for folder in ("test", "testannot"):
        for old, new in (("test_0", "a"), ("test_1", "a_b")):
            (tiny_data / folder / f"{old}.png").rename(tiny_data / folder / f"{new}.png")
    (tiny_data / "test.txt").write_text("test/a.png testannot/a.png\ntest/a_b.png testannot/a_b.png\n")
    dataset = datasets.load("tiny", tiny_data)
    maps = truths(dataset)
    found = score_predictions(write(tmp_path / "named", maps, name="{}_pred.png"), dataset)
    assert found["scores"]["miou"] == 100
    assert found["warnings"] == ["CamVid has 3 images in test, but 2 were scored"]


def spoil(folder, kind):
    """Damage the folder of predictions in one way."""
    victim = folder / "test_1.png"
    labels = cv2.imread(str(victim), cv2.IMREAD_UNCHANGED)
    if kind == "missing":
        victim.unlink()
    elif kind == "extra":
        shutil.copy(victim, folder / "test_7.png")
    elif kind == "twice":
        (folder / "sub").mkdir()
        shutil.copy(victim, folder / "sub" / "test_1_pred.png")
    elif kind == "size":
        cv2.imwrite(str(victim), labels[:-1])
    elif kind in (255, 3, 77):
        labels[30, 40] = kind
        cv2.imwrite(str(victim), labels)
    elif kind == "cut":
        victim.write_bytes(victim.read_bytes()[:-20])
    elif kind == "empty":
        victim.write_bytes(b"")
    elif kind == "jpeg":
        cv2.imwrite(str(folder / "a.jpg"), labels)
        (folder / "a.jpg").rename(victim)
    elif kind == "16-bit":
        cv2.imwrite(str(victim), labels.astype(np.uint16))
    else:
        cv2.imwrite(str(victim), np.zeros((*labels.shape, 3), np.uint8))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", ["no PNG named after test_1", "1 of 3"]),
        ("extra", ["test_7.png", "no image of the split"]),
        ("twice", ["sub/test_1_pred.png and ", "/test_1.png are both predictions of test_1"]),
        ("size", ["test_1.png is 48x31", "48x32"]),
        (255, ["test_1.png has the value 255", "row 30, column 40", "0..2", "fits 2 of 3 files"]),
        (3, ["test_1.png has the value 3", "row 30, column 40", "0..2"]),
        (77, ["test_1.png has the value 77", "row 30, column 40", "0..2"]),
        ("cut", ["test_1.png is cut short"]),
        ("empty", ["test_1.png is empty"]),
        ("jpeg", ["test_1.png is no PNG"]),
        ("16-bit", ["test_1.png is a 16-bit greyscale PNG"]),
        ("mixed", ["test_1.png is RGB", "fits 2 of 3 files"]),
    ],
)
@pytest.mark.parametrize("encoding", [None, "train_ids"])
def test_a_bad_file_is_refused_by_name_and_nothing_is_written(tiny, tmp_path, kind, words, encoding):
    from harness.runs.external_arms import external_run

    spoil(write(tmp_path / "theirs", guesses(tiny)), kind)
    results = tmp_path / "results"
    with pytest.raises(UserError) as caught:
        run = external_run(results, "tiny", "theirs")
        score_predictions(tmp_path / "theirs", tiny, encoding=encoding, run=run, results=results)
    for word in words:
        if encoding is None or "fits" not in word:
            assert word in str(caught.value)
    assert str(caught.value).count("\n") == 0
    assert not results.exists()


def test_several_bad_files_are_counted_and_the_first_named(tiny, tmp_path):
    folder = write(tmp_path / "theirs", {image_id: labels[1:] for image_id, labels in guesses(tiny).items()})
    with pytest.raises(UserError, match=r"test_0\.png is 48x31 .* \(2 more files cannot be used\)"):
        score_predictions(folder, tiny)


def test_a_colour_of_no_class_is_refused_with_the_pixel(tiny, tmp_path):
    folder = write(tmp_path / "theirs", guesses(tiny), "colors", tiny)
    pixels = np.asarray(Image.open(folder / "test_2.png")).copy()
    pixels[20, 5] = (1, 2, 3)
    Image.fromarray(pixels).save(folder / "test_2.png")
    with pytest.raises(
        UserError, match=r"test_2\.png has the colour \(1, 2, 3\) .*row 20, column 5.* no class's of tiny"
    ):
        score_predictions(folder, tiny)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoding": "train_id"}, "did you mean train_ids"),
        ({"absent": "skipp"}, "did you mean skip"),
        ({"protocol": "hole"}, "did you mean whole"),
        ({"split": "tset"}, "did you mean test"),
    ],
)
def test_a_misspelt_option_is_named_with_the_nearest_match(tiny, tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        score_predictions(write(tmp_path / "theirs", guesses(tiny)), tiny, **options)


def test_folders_without_predictions_are_refused(tiny, tmp_path):
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        score_predictions(tmp_path / "nowhere", tiny)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no PNG named after test_0 \(3 of 3.*complete it"):
        score_predictions(tmp_path / "empty", tiny)
    np.savez(tmp_path / "empty" / "test_0.npz", np.zeros((2, 2), np.uint8))
    with pytest.raises(UserError, match=r"named after test_0 .*save test_0\.npz as an 8-bit PNG"):
        score_predictions(tmp_path / "empty", tiny)


def test_hidden_files_and_other_kinds_do_not_count(tiny, tmp_path):
    folder = write(tmp_path / "theirs", guesses(tiny))
    (folder / "._test_0.png").write_bytes(b"what macOS leaves")
    (folder / "log.txt").write_text("done")
    assert score_predictions(folder, tiny)["images"] == 3


def test_another_split_and_another_rule_for_absent_classes(tiny, tmp_path):
    maps = {image_id: np.zeros_like(label) for image_id, label in truths(tiny, "val").items()}
    folder = write(tmp_path / "theirs", maps)
    scores = [score_predictions(folder, tiny, split="val", absent=rule)["scores"]["miou"] for rule in ("skip", "zero")]
    assert scores[0] == pytest.approx(brute_force(tiny, maps, "val")[0])
    assert scores[0] == scores[1]  # every class is in the ground truth
    with pytest.raises(UserError, match="no image of the split"):
        score_predictions(folder, tiny)


def test_head_mid_and_tail_come_from_the_training_split_as_verified(tiny, tmp_path):
    from harness.datasets.verify import verify

    maps = guesses(tiny)
    folder, results = write(tmp_path / "theirs", maps), tmp_path / "results"
    assert "miou_tail" not in score_predictions(folder, tiny, results=results)["scores"]
    verify(tiny, datasets.report_path("tiny", results))
    scores = score_predictions(folder, tiny, results=results)["scores"]
    pixels = np.bincount(np.concatenate([label.ravel() for label in truths(tiny, "train").values()]), minlength=3)[:3]
    per_class = list(brute_force(tiny, maps)[2].values())
    by_frequency = [per_class[c] for c in np.argsort(-pixels)]
    assert [scores[f"miou_{group}"] for group in ("head", "mid", "tail")] == pytest.approx(by_frequency)


# Cityscapes: names with something behind, raw ids that differ from train ids.
@pytest.fixture
def cityscapes(tmp_path):
    """Two images of 40x24 pixels in Cityscapes' own layout, with all 19 classes and a margin that is ignored."""
    root = tmp_path / "cityscapes"
    dataset = datasets.load("cityscapes")
    raw = np.array([entry.labels[0] for entry in dataset.specs[-1].classes], np.uint8)
    for number, city in enumerate(("frankfurt", "munster")):
        ids = np.repeat(np.arange(20 * number, 20 * number + 40) % 19, 24).reshape(40, 24).T
        label = raw[ids]
        label[:, :2] = 3  # out of roi
        name = f"{city}_000000_00000{number}"
        for kind, suffix, content in (
            ("leftImg8bit", "leftImg8bit", np.zeros((24, 40, 3), np.uint8)),
            ("gtFine", "gtFine_labelIds", label),
        ):
            folder = root / kind / "val" / city
            folder.mkdir(parents=True)
            cv2.imwrite(str(folder / f"{name}_{suffix}.png"), content)
    return datasets.load("cityscapes", root)


@pytest.mark.parametrize("name", ["{}.png", "{}_leftImg8bit.png", "results/{}_pred.png"])
@pytest.mark.parametrize("encoding", ["train_ids", "raw_ids", "colors"])
def test_cityscapes_predictions_are_read_in_every_encoding_under_every_official_name(
    cityscapes, tmp_path, encoding, name
):
    maps = guesses(cityscapes, "val")
    found = score_predictions(write(tmp_path / "theirs", maps, encoding, cityscapes, name), cityscapes)
    assert found["format"] == encoding
    assert found["scores"]["miou"] == pytest.approx(brute_force(cityscapes, maps, "val")[0], rel=1e-12)
    assert "500 images in val, but 2 were scored" in found["warnings"][0]


def test_raw_ids_with_a_palette_of_greys_are_raw_ids(cityscapes, tmp_path):
    # As mmsegmentation's CityscapesMetric writes them.
    maps = guesses(cityscapes, "val")
    for path in write(tmp_path / "theirs", maps, "raw_ids", cityscapes).iterdir():
        Image.open(path).convert("P").save(path)
        assert Image.open(path).mode == "P"
    found = score_predictions(tmp_path / "theirs", cityscapes)
    assert found["format"] == "raw_ids"
    assert found["scores"]["miou"] == pytest.approx(brute_force(cityscapes, maps, "val")[0], rel=1e-12)


def test_ids_that_could_be_train_ids_or_raw_ids_are_not_guessed(cityscapes, tmp_path):
    # 7, 8, 11, 12 and 13 are the raw ids of road ... fence and the train ids of traffic sign ... bicycle.
    maps = {image_id: np.minimum(label, 4) for image_id, label in truths(cityscapes, "val").items()}
    folder = write(tmp_path / "theirs", maps, "raw_ids", cityscapes)
    with pytest.raises(UserError, match=r"read as train_ids and as raw_ids.*--format train_ids or --format raw_ids"):
        score_predictions(folder, cityscapes)
    found = {each: score_predictions(folder, cityscapes, encoding=each) for each in ("train_ids", "raw_ids")}
    assert found["raw_ids"]["scores"]["miou"] == pytest.approx(brute_force(cityscapes, maps, "val")[0], rel=1e-12)
    assert found["train_ids"]["scores"]["miou"] < found["raw_ids"]["scores"]["miou"]


def test_one_file_in_the_folder_settles_the_encoding_for_all(cityscapes, tmp_path):
    maps = {image_id: np.full_like(label, 4) for image_id, label in truths(cityscapes, "val").items()}
    maps["munster_000000_000001"][0, 30] = 18  # bicycle, 33 as a raw id
    assert score_predictions(write(tmp_path / "theirs", maps, "raw_ids", cityscapes), cityscapes)["format"] == "raw_ids"
    maps["munster_000000_000001"][0, 30] = 0
    assert score_predictions(write(tmp_path / "ours", maps), cityscapes)["format"] == "train_ids"


def test_a_palette_png_that_two_ways_of_reading_fit_is_not_guessed_either(cityscapes, tmp_path):
    """A palette PNG of train ids in the classes' colours; as raw ids its values 7, 8, 11 would be classes too."""
    maps = {
        image_id: np.choose(label % 3, (7, 8, 11)).astype(np.uint8)
        for image_id, label in truths(cityscapes, "val").items()
    }
    for image_id, labels in maps.items():
        image = Image.fromarray(labels)
        image.putpalette([channel for color in cityscapes.colors for channel in color])
        (tmp_path / "theirs").mkdir(exist_ok=True)
        image.save(tmp_path / "theirs" / f"{image_id}.png")
    with pytest.raises(UserError, match="--format"):  # colours say the same as train ids, raw ids do not
        score_predictions(tmp_path / "theirs", cityscapes)
    scores = [
        score_predictions(tmp_path / "theirs", cityscapes, encoding=each)["scores"] for each in ("train_ids", "colors")
    ]
    assert scores[0] == scores[1]


def test_void_predictions_are_refused_or_wrong(cityscapes, tmp_path):
    maps = guesses(cityscapes, "val")
    for labels in maps.values():
        labels[2:5] = 255
    folder = write(tmp_path / "theirs", maps, "raw_ids", cityscapes)
    with pytest.raises(UserError, match="255"):
        score_predictions(folder, cityscapes, encoding="raw_ids")
    with pytest.raises(UserError, match="--format"):
        score_predictions(folder, cityscapes, void_is_wrong=True)
    run, results = Run("official", "cityscapes", "hrnet_w48", "theirs", 0), tmp_path / "results"
    found = score_predictions(folder, cityscapes, encoding="raw_ids", void_is_wrong=True, run=run, results=results)
    miou, accuracy, per_class = brute_force(cityscapes, maps, "val")
    assert found["void"] == "wrong"
    assert found["scores"]["miou"] == pytest.approx(miou, rel=1e-12)
    assert found["scores"]["pixel_accuracy"] == pytest.approx(accuracy, rel=1e-12)
    assert found["per_class"]["iou"] == pytest.approx(per_class, rel=1e-12)
    assert read_json(run.folder(results) / "record.json")["settings"]["void"] == "wrong"
    problems = check_record(run.folder(results))
    assert not [each for each in problems if "confusion" in each or "scores" in each or "per_class" in each]


def test_category_iou_is_the_iou_of_maps_of_categories(cityscapes, tmp_path):
    maps = guesses(cityscapes, "val")
    found = score_predictions(write(tmp_path / "theirs", maps, "train_ids"), cityscapes, encoding="train_ids")
    # The categories of Cityscapes' label table, in order of train id.
    of_class = np.array([0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6, 6, 6, 6, 6, 6, *[255] * 237])
    names = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
    truth = truths(cityscapes, "val")
    true = np.concatenate([of_class[truth[each]].ravel() for each in truth])
    guess = np.concatenate([of_class[maps[each]].ravel() for each in truth])[true != 255]
    true = true[true != 255]
    iou = [100 * np.sum((true == c) & (guess == c)) / np.sum((true == c) | (guess == c)) for c in range(7)]
    assert found["per_class"]["category_iou"] == pytest.approx(dict(zip(names, iou, strict=True)), rel=1e-12)
    assert found["scores"]["category_miou"] == pytest.approx(np.mean(iou), rel=1e-12)
    assert found["scores"]["category_miou"] > found["scores"]["miou"]


@pytest.mark.slow
def test_a_perfect_prediction_of_camvid_scores_100(tmp_path):
    if "CAMVID_ROOT" not in os.environ:
        pytest.skip("set CAMVID_ROOT to a CamVid folder (480x360, 11 classes) to run this")
    dataset = datasets.load("camvid", datasets.resolve_root("camvid"))
    folder = write(tmp_path / "theirs", truths(dataset, "val"), "colors", dataset)
    found = score_predictions(folder, dataset, split="val")
    assert (found["format"], found["images"], found["warnings"]) == ("colors", 101, [])
    assert {found["scores"][metric] for metric in ("miou", "miou_tail", "boundary_miou@0.02", "trimap_miou@3px")} == {
        100.0
    }
