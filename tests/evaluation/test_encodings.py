import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from harness import datasets
from harness.errors import UserError
from harness.evaluation.encodings import ENCODINGS, LabelTable, raw_values, read_picture

COLORS = [(128, 128, 128), (128, 0, 0), (192, 192, 128), (0, 0, 0)]
INDICES = np.array([[0, 1, 2], [3, 2, 1]], np.uint8)


def test_a_greyscale_png_has_values_and_no_colours(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), INDICES)
    picture = read_picture(tmp_path / "a.png")
    assert (picture.values == INDICES).all()
    assert picture.colors is None
    assert picture.shape == (2, 3)


def test_an_rgb_png_has_colours_and_no_values(tmp_path):
    Image.fromarray(np.array(COLORS, np.uint8)[INDICES]).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert picture.values is None
    assert picture.colors.tolist() == [[0x808080, 0x800000, 0xC0C080], [0, 0xC0C080, 0x800000]]
    assert picture.shape == (2, 3)


@pytest.mark.parametrize(("bits", "entries"), [(2, 4), (4, 16), (8, 17)])
def test_a_palette_png_has_both_whatever_its_depth(tmp_path, bits, entries):
    image = Image.fromarray(INDICES)
    image.putpalette([channel for color in COLORS for channel in color] + [7] * 3 * (entries - 4))
    image.save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[24:26] == bytes([bits, 3])
    picture = read_picture(tmp_path / "a.png")
    assert (picture.values == INDICES).all()
    assert picture.colors[:4].tolist() == [0x808080, 0x800000, 0xC0C080, 0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((2, 3), np.uint16), "16-bit greyscale"),
        (np.zeros((2, 3, 4), np.uint8), "8-bit RGBA"),
        (None, "cannot be read"),
    ],
)
def test_what_holds_no_label_map_is_refused_by_name(tmp_path, content, words):
    if content is not None:
        cv2.imwrite(str(tmp_path / "a.png"), content)
    with pytest.raises(UserError, match=rf"a\.png .*{words}"):
        read_picture(tmp_path / "a.png")


def test_a_palette_png_that_is_cut_short_is_refused_by_name(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 4, (50, 50), np.uint8))
    image.putpalette([channel for color in COLORS for channel in color])
    image.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"a\.png is cut short"):
        read_picture(tmp_path / "a.png")


# Cityscapes' ids of its 19 classes, from its labels.py.
CITYSCAPES_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


@pytest.mark.parametrize("suffix", ["labelIds", "labelTrainIds"])
def test_the_raw_ids_are_the_original_ones_where_the_labels_hold_train_ids(tmp_path, suffix):
    for kind, name in (("leftImg8bit", "leftImg8bit"), ("gtFine", f"gtFine_{suffix}")):
        (tmp_path / kind / "val" / "ulm").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / kind / "val" / "ulm" / f"ulm_000000_000019_{name}.png"), np.zeros((2, 2), np.uint8))
    dataset = datasets.load("cityscapes", tmp_path)
    assert dataset.spec.layout.name == ("original" if suffix == "labelIds" else "train_ids")
    assert raw_values(dataset) == [(value,) for value in CITYSCAPES_IDS]


def test_the_raw_ids_of_the_other_data_sets():
    assert raw_values(datasets.load("ade20k")) == [(value,) for value in range(1, 151)]
    assert raw_values(datasets.load("camvid")) == [(value,) for value in range(11)]
    assert raw_values(datasets.load("camvid_full"))[10] == (0x0080C0, 0xC000C0)  # Bicyclist, MotorcycleScooter
    assert raw_values(datasets.load("coco_stuff164k"))[11] == (12,)  # id 13, the first after one without masks


def stored(dataset, labels, encoding):
    """A label map as another program would write it, by a plain loop over the classes."""
    out = np.zeros((*labels.shape, 3) if encoding == "colors" else labels.shape, np.uint8)
    for train_id, entry in enumerate(dataset.specs[-1].classes):
        out[labels == train_id] = {"train_ids": train_id, "raw_ids": entry.labels[0], "colors": entry.color}[encoding]
    return out


@given(
    st.sampled_from(["camvid", "cityscapes"]),
    st.sampled_from(ENCODINGS),
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 10)),
)
def test_reading_turns_every_encoding_back_into_train_ids(tmp_path_factory, name, encoding, labels):
    dataset, path = datasets.load(name), tmp_path_factory.mktemp("encodings") / "a.png"
    Image.fromarray(stored(dataset, labels, encoding)).save(path)
    table, picture = LabelTable(dataset), read_picture(path)
    assert (table.read(picture, encoding) == labels).all()
    assert table.fault(picture, labels, encoding, np.ones(labels.shape, bool)) is None


def test_a_colour_that_two_classes_share_names_neither(tmp_path):
    dataset = datasets.load("ade20k")
    shared = [name for name, color in zip(dataset.classes, dataset.colors, strict=True) if color == (140, 140, 140)]
    assert len(shared) == 2
    Image.fromarray(np.full((2, 3, 3), 140, np.uint8)).save(tmp_path / "a.png")
    table, picture = LabelTable(dataset), read_picture(tmp_path / "a.png")
    labels = table.read(picture, "colors")
    assert (labels == 255).all()
    valid = np.array([[False, False, False], [False, True, True]])
    fault = table.fault(picture, labels, "colors", valid)
    assert "(140, 140, 140)" in fault
    assert "row 1, column 1" in fault
    assert all(name in fault for name in shared)
