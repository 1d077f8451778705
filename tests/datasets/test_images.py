import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from harness.datasets.images import read_color_label, read_image, read_label, read_mat_label
from harness.errors import UserError


def test_an_image_is_read_as_rgb(tmp_path):
    expected = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(expected).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    assert np.array_equal(image, expected)


def test_a_greyscale_image_gets_three_equal_channels(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.stack([grey] * 3, axis=-1))


def test_a_label_keeps_every_value(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(read_label(tmp_path / "a.png"), values)


@pytest.mark.parametrize(
    ("mode", "described"),
    [
        ("RGB", "8-bit RGB"),
        ("RGBA", "8-bit RGBA"),
        ("1", "1-bit greyscale"),
        ("LA", "8-bit greyscale with transparency"),
    ],
)
def test_a_label_without_8_bit_values_is_refused(tmp_path, mode, described):
    Image.new(mode, (4, 4)).save(tmp_path / "label.png")
    with pytest.raises(UserError, match=f"label.png is an? {described} PNG, but labels must be 8-bit greyscale"):
        read_label(tmp_path / "label.png")


@pytest.mark.parametrize(("colours", "bits"), [(2, 1), (4, 2), (16, 4), (256, 8)])
def test_a_palette_label_holds_its_indices_and_not_its_colours(tmp_path, colours, bits):
    indices = (np.arange(256) % colours).astype(np.uint8).reshape(16, 16)
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(np.random.default_rng(0).integers(0, 256, 3 * colours, dtype=np.uint8).tobytes())
    image.save(tmp_path / "label.png", bits=bits)
    assert (tmp_path / "label.png").read_bytes()[24:26] == bytes([bits, 3])  # bits, palette
    label = read_label(tmp_path / "label.png")
    assert label.dtype == np.uint8
    assert np.array_equal(label, indices)


def test_a_colour_label_is_read_as_packed_rgb(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "label.png")
    expected = [[int(f"{r:02x}{g:02x}{b:02x}", 16) for r, g, b in row] for row in rgb.tolist()]
    assert read_color_label(tmp_path / "label.png").tolist() == expected


@pytest.mark.parametrize(("mode", "described"), [("L", "8-bit greyscale"), ("RGBA", "8-bit RGBA"), ("P", "palette")])
def test_a_colour_label_must_be_rgb(tmp_path, mode, described):
    Image.new(mode, (4, 4)).save(tmp_path / "label.png")
    with pytest.raises(UserError, match=rf"label\.png is an? .*{described} PNG, but labels must be 8-bit RGB"):
        read_color_label(tmp_path / "label.png")


# MATLAB files


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float64"])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_mat_labels_field_is_read_among_others(tmp_path, dtype, compressed):
    label = np.random.default_rng(0).integers(0, 183, (5, 7)).astype(dtype)
    names = np.array(["person", "sky"], dtype=object)
    fields = {"captions": names, "regionMapStuff": np.full((5, 7), 9, np.uint16), "S": label, "names": names}
    savemat(tmp_path / "a.mat", fields, do_compression=compressed)
    read = read_mat_label(tmp_path / "a.mat", "S")
    assert read.dtype == np.uint16
    assert np.array_equal(read, label)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.array([[0.5, 1]]), "holds values that are no integers from 0 to 65535"),
        (np.array([[-1, 1]]), "holds values that are no integers from 0 to 65535"),
        (np.array([[65536, 1]]), "holds values that are no integers from 0 to 65535"),
        (np.array([[np.nan, 1]]), "holds values that are no integers from 0 to 65535"),
        (np.zeros((2, 2, 2)), r"is no label map but float64 of shape \(2, 2, 2\)"),
        (np.zeros((0, 0)), "is no label map"),
        ("person", "is no label map"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_a_field_that_is_no_label_map_is_refused(tmp_path, value, reason):
    savemat(tmp_path / "a.mat", {"S": value})
    with pytest.raises(UserError, match=rf"a\.mat: the field S {reason}"):
        read_mat_label(tmp_path / "a.mat", "S")


def test_a_mat_file_without_the_field_is_refused(tmp_path):
    savemat(tmp_path / "a.mat", {"LabelMap": np.zeros((2, 2))})
    with pytest.raises(UserError, match=r"a\.mat has no field S"):
        read_mat_label(tmp_path / "a.mat", "S")


def test_a_truncated_mat_file_is_refused_or_whole(tmp_path):
    label = np.random.default_rng(0).integers(0, 183, (16, 16)).astype(np.uint8)
    savemat(tmp_path / "whole.mat", {"S": label}, do_compression=True)
    content = (tmp_path / "whole.mat").read_bytes()
    for length in range(1, len(content)):
        (tmp_path / "a.mat").write_bytes(content[:length])
        with pytest.raises(UserError, match=r"a\.mat (cannot be read as a MATLAB file|has no field S)"):
            read_mat_label(tmp_path / "a.mat", "S")


def test_empty_missing_and_foreign_mat_files_are_named(tmp_path):
    (tmp_path / "empty.mat").touch()
    (tmp_path / "text.mat").write_text("<html>404</html>" * 20)
    for name, reason in (
        ("empty.mat", r"is empty \(0 bytes\)"),
        ("missing.mat", "cannot be read: No such file"),
        ("text.mat", "cannot be read as a MATLAB file"),
    ):
        with pytest.raises(UserError, match=f"{name} {reason}") as caught:
            read_mat_label(tmp_path / name, "S")
        assert "\n" not in str(caught.value)


def test_a_jpeg_label_is_refused(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "label.jpg")
    with pytest.raises(UserError, match=r"label\.jpg is no PNG"):
        read_label(tmp_path / "label.jpg")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_every_truncation_is_refused(tmp_path, suffix):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(whole)
    content = whole.read_bytes()
    for length in range(1, len(content)):
        cut.write_bytes(content[:length])
        with pytest.raises(UserError, match=f"cut{suffix} is (cut short|neither)"):
            read_image(cut)


def test_two_markers_without_a_header_between_are_damaged(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\0IEND\xaeB`\x82")
    for read in (read_image, read_label):
        with pytest.raises(UserError, match=r"a\.png is damaged \(it has no header"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("read", [read_image, read_label])
def test_empty_missing_and_foreign_files_are_named(tmp_path, read):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("<html>404</html>")
    for name, reason in (
        ("empty.png", r"empty \(0 bytes\)"),
        ("missing.png", "No such file"),
        ("text.png", "neither a PNG nor a JPEG"),
    ):
        with pytest.raises(UserError, match=f"{name}.*{reason}"):
            read(tmp_path / name)
