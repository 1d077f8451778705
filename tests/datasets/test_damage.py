"""Damaged, turned and huge pictures, wherever they are read."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from harness.datasets import images
from harness.datasets.cache import shapes
from harness.datasets.containers import Header, read_header
from harness.datasets.images import orientation, read_image, read_label, read_mat_label
from harness.datasets.jpeg_damage import HOLE, inspectors
from harness.datasets.verify import verify
from harness.errors import UserError
from harness.evaluation.encodings import read_picture

SIZE = (96, 128)  # height, width


def jpeg(**options):
    """A JPEG of noise over a slope."""
    noise = np.random.default_rng(0).integers(0, 60, (*SIZE, 3)) + np.arange(SIZE[1])[None, :, None]
    buffer = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def with_hole(content, share, length):
    start = int(share * len(content))
    return content[:start] + bytes(length) + content[start + length :]


# structure


@pytest.mark.parametrize("progressive", [False, True])
def test_the_header_of_a_jpeg_is_read(progressive):
    assert read_header(jpeg(progressive=progressive)) == Header(8, "JPEG", SIZE[1], SIZE[0])


@pytest.mark.parametrize("behind", [1, 2000, 100_000])
def test_bytes_behind_the_end_of_a_whole_picture_do_no_harm(tmp_path, behind):
    (tmp_path / "a.jpg").write_bytes(jpeg() + bytes(behind))
    assert read_image(tmp_path / "a.jpg").shape == (*SIZE, 3)
    content = cv2.imencode(".png", np.full((4, 5), 7, np.uint8))[1].tobytes()
    (tmp_path / "a.png").write_bytes(content + bytes(behind))
    assert read_label(tmp_path / "a.png").tolist() == [[7] * 5] * 4


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_jpeg_that_is_cut_is_cut_short_though_its_thumbnail_has_an_end(tmp_path, share):
    thumbnail = b"Exif\0\0" + jpeg()[:3000] + b"\xff\xd9"
    whole = jpeg()
    content = whole[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + whole[2:]
    (tmp_path / "a.jpg").write_bytes(content)
    assert read_image(tmp_path / "a.jpg").shape == (*SIZE, 3)
    (tmp_path / "a.jpg").write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="cut short"):
        read_image(tmp_path / "a.jpg")


def test_an_altered_byte_of_a_png_is_noticed_wherever_it_is():
    content = cv2.imencode(".png", np.random.default_rng(0).integers(0, 9, (6, 7), dtype=np.uint8))[1].tobytes()
    assert read_header(content) == Header(8, "greyscale", 7, 6)
    for place in range(len(content)):
        altered = bytearray(content)
        altered[place] ^= 1
        assert isinstance(read_header(bytes(altered)), str), place


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"<!DOCTYPE html><html>", "web page"), (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer")],
)
def test_what_lies_in_place_of_a_picture_is_named(tmp_path, content, words):
    (tmp_path / "a.png").write_bytes(content)
    for read in (read_image, read_label):
        with pytest.raises(UserError, match=rf"a\.png is neither a PNG nor a JPEG but a {words}"):
            read(tmp_path / "a.png")


# damage that decoders repair


@pytest.mark.parametrize("progressive", [False, True])
def test_a_hole_in_the_coded_pixels_of_a_jpeg_is_noticed(tmp_path, progressive):
    content = jpeg(progressive=progressive)
    with inspectors(1) as looking:
        (tmp_path / "a.jpg").write_bytes(content)
        assert looking.fault(tmp_path / "a.jpg") == ""
        for share in (0.1, 0.3, 0.4):
            (tmp_path / "b.jpg").write_bytes(with_hole(content, share, 400))
            assert "is damaged" in looking.fault(tmp_path / "b.jpg")
        assert looking.fault(tmp_path / "a.jpg") == ""  # what was said of another file is not said of this one
        assert looking.fault(tmp_path / "missing.jpg") == ""  # which reading it says


def test_a_few_bytes_before_the_end_marker_are_no_damage(tmp_path):
    content = jpeg()
    (tmp_path / "a.jpg").write_bytes(content[:-2] + bytes(3) + content[-2:])
    with inspectors(1) as looking:
        assert looking.fault(tmp_path / "a.jpg") == ""


def test_verify_names_a_damaged_jpeg(make_tree, tmp_path):
    dataset = make_tree(tmp_path / "camvid", ".jpg")
    sample = dataset.samples("test")[1]
    cv2.imwrite(str(sample.label_path), np.zeros(SIZE, np.uint8))
    sample.image_path.write_bytes(with_hole(jpeg(), 0.5, 400))
    with pytest.raises(UserError, match=rf"test: test/{sample.image_path.name} is damaged \("):
        verify(dataset, tmp_path / "verify.json")


def test_a_hole_that_decodes_without_a_word_is_a_warning(make_tree, tmp_path):
    dataset = make_tree(tmp_path / "camvid", ".jpg")
    sample = dataset.samples("test")[1]
    content = sample.image_path.read_bytes()  # a comment of zeros, which is no part of the pixels
    comment = b"\xff\xfe" + (HOLE + 2).to_bytes(2, "big") + bytes(HOLE)
    sample.image_path.write_bytes(content[:2] + comment + content[2:])
    (warning,) = verify(dataset, tmp_path / "verify.json")["warnings"]
    assert f"test: 1 JPEG with 1,024 zero bytes in a row, first test/{sample.image_path.name}" in warning


# orientation


def test_orientations_are_reported_of_images_and_labels(tree, tmp_path):
    sample = tree.samples("test")[0]
    pixels = read_image(sample.image_path)
    label = read_label(sample.label_path)
    exif = Image.Exif()
    exif[images.ORIENTATION] = 3
    Image.fromarray(pixels).save(sample.image_path, exif=exif)
    Image.fromarray(label).save(sample.label_path, exif=exif)
    assert (orientation(sample.image_path), orientation(sample.label_path)) == (3, 3)
    assert np.array_equal(read_image(sample.image_path), pixels)  # both as stored
    assert np.array_equal(read_label(sample.label_path), label)
    (warning,) = verify(tree, tmp_path / "verify.json")["warnings"]
    assert "test: 2 files with an EXIF rotation" in warning
    assert f"test/{sample.image_path.name} (orientation 3)" in warning


def test_a_label_of_the_turned_photograph_is_explained(tree, tmp_path):
    sample = tree.samples("test")[0]
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6
    Image.fromarray(read_image(sample.image_path)).save(sample.image_path, exif=exif)
    cv2.imwrite(str(sample.label_path), np.rot90(read_label(sample.label_path)))
    with pytest.raises(UserError, match="after its EXIF rotation"):
        verify(tree, tmp_path / "verify.json")


# size


def test_pils_limit_does_not_hold(tmp_path, tree, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for sample in tree.samples("test"):
        Image.fromarray(read_label(sample.label_path)).convert("P").save(sample.label_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    verify(tree, tmp_path / "verify.json")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert shapes(tree, tree.samples("test")) == [(10, 12)] * 4
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_picture(tree.samples("test")[0].label_path).shape == (10, 12)


def test_what_opencv_cannot_decode_is_refused_by_its_header(tmp_path):
    content = bytearray(cv2.imencode(".png", np.zeros((4, 5), np.uint8))[1].tobytes())
    content[16:24] = (40_000).to_bytes(4, "big") * 2
    import zlib

    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content)
    for read in (read_image, read_label):
        with pytest.raises(UserError, match=r"a\.png is 40000x40000, more than"):
            read(tmp_path / "a.png")


# MATLAB


@pytest.mark.parametrize("start", [b"MATLAB 7.3 MAT-file, Platform: GLNXA64", bytes(512) + images.HDF_START])
def test_a_matlab_7_3_file_is_to_be_saved_again(tmp_path, start):
    (tmp_path / "a.mat").write_bytes(start + bytes(600))
    with pytest.raises(UserError, match=r"a\.mat is a MATLAB 7\.3 file.*save it as -v7") as caught:
        read_mat_label(tmp_path / "a.mat", "S")
    assert "download" not in str(caught.value)
