"""detectron2's sem_seg_predictions.json, against a plain encoder of COCO's run-length code."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness import datasets
from harness.errors import UserError
from harness.evaluation.coco_masks import decode
from harness.evaluation.external_predictions import score_predictions
from harness.evaluation.record import write_map


def encode(mask):
    """The compressed code, as COCO's description has it, written one run and one character at a time."""
    runs, last = [0], False
    for value in mask.T.ravel().tolist():
        if value != last:
            runs.append(0)
            last = value
        runs[-1] += 1
    text = ""
    for place, run in enumerate(runs):
        number = run - (runs[place - 2] if place > 2 else 0)
        while True:
            five, number = number % 32, number // 32  # floor: the sign stays
            done = (number == 0 and five < 16) or (number == -1 and five >= 16)
            text += chr(48 + five + (0 if done else 32))
            if done:
                break
    return {"size": list(mask.shape), "counts": text}


@given(hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.booleans()))
def test_masks_are_decoded(mask):
    assert (decode(encode(mask)) == mask).all()


def test_masks_equal_pycocotools_where_it_imports():
    mask_util = pytest.importorskip("pycocotools.mask")
    mask = np.zeros((300, 200), bool)
    mask[20:250, 30:180] = True
    mask[::7] ^= np.random.default_rng(0).random((43, 200)) < 0.5
    theirs = mask_util.encode(np.asfortranarray(mask[:, :, None], np.uint8))[0]
    theirs["counts"] = theirs["counts"].decode()
    assert encode(mask) == theirs
    assert (decode(theirs) == mask).all()


def test_a_known_mask_by_hand():
    # Two columns of three: down the first 0 1 1, down the second 1 0 0: runs 1, 3, 2.
    assert decode({"size": [3, 2], "counts": "132"}).tolist() == [[False, True], [True, False], [True, False]]


@pytest.fixture
def predicted(tiny_data, tmp_path):
    """Predictions of the data set `tiny` as detectron2 writes them and as PNGs; returns the two places."""
    dataset, entries = datasets.load("tiny", tiny_data), []
    for number, sample in enumerate(dataset.samples("test")):
        labels = np.random.default_rng(number).integers(0, 3, (32, 48)).astype(np.uint8)
        write_map(tmp_path / "maps" / f"{sample.id}.png", labels)
        for c in np.unique(labels):
            entry = {"file_name": str(sample.image_path), "category_id": int(c), "segmentation": encode(labels == c)}
            entries.append(entry)
    (tmp_path / "inference").mkdir()
    path = tmp_path / "inference" / "sem_seg_predictions.json"
    path.write_text(json.dumps(entries))
    return dataset, path, tmp_path / "maps"


def test_the_scores_are_those_of_the_same_maps_as_pngs(predicted):
    dataset, path, maps = predicted
    expected = score_predictions(maps, dataset, encoding="train_ids")
    for given_as in (path, path.parent):
        assert score_predictions(given_as, dataset) == expected
    with pytest.raises(UserError, match="leave --format out"):
        score_predictions(path, dataset, encoding="colors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entries: entries.append(entries[0]), "two masks of .* overlap"),
        (lambda entries: entries[0]["segmentation"].update(counts="1"), "do not fill"),
        (lambda entries: entries[0].pop("category_id"), "category_id"),
        (lambda entries: entries[0].update(category_id=300), "is not detectron2's"),
        (lambda entries: entries.pop(0), "255"),  # pixels without a class
        (lambda entries: entries.clear(), "no PNG named after"),
    ],
)
def test_a_wrong_file_is_refused(predicted, change, words):
    dataset, path, _ = predicted
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=words):
        score_predictions(path, dataset)


def test_text_that_is_no_json_is_refused(predicted):
    dataset, path, _ = predicted
    path.write_text("predictions")
    with pytest.raises(UserError, match=r"sem_seg_predictions\.json is not detectron2's"):
        score_predictions(path, dataset)
