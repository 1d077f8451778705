"""Files from outside: whole, of numbers, and the ones that their names say, or one sentence."""

import random

import pytest
import torch

from harness.errors import UserError
from harness.models.checkpoints import read


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {"backbone.a": torch.arange(4096.0), "backbone.b": torch.ones(3)}}, path)
    return path


def test_a_whole_file_is_read(saved):
    assert sorted(read(saved).state) == ["backbone.a", "backbone.b"]


@pytest.mark.parametrize(
    "text", ["Repository not found", "<!DOCTYPE html>\n<html>", "version https://git-lfs\noid 1\n"]
)
def test_text_in_place_of_a_checkpoint_is_shown(tmp_path, text):
    (tmp_path / "a.pth").write_text(text)
    with pytest.raises(UserError, match=r"a\.pth is text") as caught:
        read(tmp_path / "a.pth")
    assert text.split("\n")[0] in str(caught.value)


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "a.pth").touch()
    with pytest.raises(UserError, match=r"a\.pth is empty"):
        read(tmp_path / "a.pth")


def test_one_altered_byte_of_a_tensor_is_noticed(saved):
    content = bytearray(saved.read_bytes())
    content[content.index(torch.arange(4096.0).numpy().tobytes()) + 5000] ^= 1
    saved.write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.pth is damaged"):
        read(saved)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_named(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"weights\.pth is damaged or cut short"):
        read(saved)


@pytest.mark.parametrize("seed", range(40))
def test_any_bytes_end_in_one_sentence(tmp_path, seed):
    numbers = random.Random(seed)
    start = numbers.choice([b"", b"\x80\x02", b"\x80\x05", b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."])
    (tmp_path / "a.pth").write_bytes(start + numbers.randbytes(numbers.choice([1, 30, 400])))
    with pytest.raises(UserError, match=r"a\.pth"):
        read(tmp_path / "a.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_no_numbers_are_refused(tmp_path, value):
    torch.save({"a": torch.ones(3), "b.weight": torch.tensor([0.0, value]), "n": torch.tensor(3)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"NaN or infinity in b\.weight: "):
        read(tmp_path / "a.pth")


def test_the_mark_in_a_name_is_the_beginning_of_the_sha256(saved):
    digest = read(saved).sha256
    right, wrong = saved.with_name(f"fcn-{digest[:8]}.pth"), saved.with_name("fcn-a989b146.pth")
    for path in (right, wrong):
        path.write_bytes(saved.read_bytes())
    assert read(right).sha256 == digest
    with pytest.raises(UserError, match=f"does not match the hash in its name: its sha256 begins with {digest[:8]}"):
        read(wrong)
