from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from harness.datasets.images import read_image, read_label
from harness.errors import UserError


def test_an_image_is_read_as_rgb(tmp_path: Path) -> None:
    expected = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(expected).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    assert np.array_equal(image, expected)


def test_a_jpeg_has_its_colours_in_rgb_order(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 20, 90)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - (200, 20, 90)).max() <= 3


def test_a_greyscale_image_gets_three_equal_channels(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.stack([grey] * 3, axis=-1))


def test_a_label_keeps_every_value(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(read_label(tmp_path / "a.png"), values)


@pytest.mark.parametrize(
    ("mode", "described"),
    [("P", "1-bit palette"), ("RGB", "8-bit RGB"), ("RGBA", "8-bit RGBA"), ("1", "1-bit greyscale")],
)
def test_a_label_of_another_kind_than_8_bit_greyscale_is_refused(tmp_path: Path, mode: str, described: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "label.png")
    with pytest.raises(UserError, match=f"label.png is a {described} PNG, but labels must be 8-bit greyscale"):
        read_label(tmp_path / "label.png")


def test_16_bit_files_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 4), 300, np.uint16))
    with pytest.raises(UserError, match=r"a\.png is a 16-bit greyscale PNG"):
        read_label(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png has 16 bits a channel"):
        read_image(tmp_path / "a.png")


def test_a_jpeg_label_is_refused(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "label.jpg")
    with pytest.raises(UserError, match=r"label\.jpg is no PNG"):
        read_label(tmp_path / "label.jpg")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_every_truncation_is_refused(tmp_path: Path, suffix: str) -> None:
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(whole)
    content = whole.read_bytes()
    for length in range(1, len(content)):
        cut.write_bytes(content[:length])
        with pytest.raises(UserError, match=f"cut{suffix} is (cut short|neither)"):
            read_image(cut)


def test_two_markers_without_a_header_between_are_cut_short(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\0IEND\xaeB`\x82")
    for read in (read_image, read_label):
        with pytest.raises(UserError, match=r"a\.png is cut short"):
            read(tmp_path / "a.png")


def test_bytes_behind_the_end_marker_do_no_harm(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("ab") as file:
        file.write(b"\0" * 16)
    assert (read_image(tmp_path / "a.png") == (1, 2, 3)).all()


def test_an_altered_byte_in_a_label_is_noticed(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 12, (16, 16), dtype=np.uint8)).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png cannot be decoded"):
        read_label(tmp_path / "a.png")


@pytest.mark.parametrize("read", [read_image, read_label])
def test_empty_missing_and_foreign_files_are_named(tmp_path: Path, read: Callable) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("<html>404</html>")
    for name, reason in (
        ("empty.png", r"empty \(0 bytes\)"),
        ("missing.png", "No such file"),
        ("text.png", "neither a PNG nor a JPEG"),
    ):
        with pytest.raises(UserError, match=f"{name}.*{reason}"):
            read(tmp_path / name)
