"""Whether a file of weights is whole and of numbers, before anything is made of it."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from harness.errors import UserError
from harness.models import HASH_IN_NAME

AGAIN = "download it again"
ZIP_START = b"PK\x03\x04"
SHOWN = 3


def check_file(path: Path, sha256: str) -> None:
    """Raise UserError if the file at `path`, with this sha256, is text, is damaged, or is not the one its name says.

    A torch file is a zip archive, whose parts have checksums that torch does not compare. A publisher's mark in the
    name, as in fcn_hr48_...-a989b146.pth, is the beginning of the sha256.
    """
    with path.open("rb") as file:
        start = file.read(200)
    if not start:
        raise UserError(f"{path} is empty (0 bytes): {AGAIN}")
    if _is_text(start):
        raise UserError(f"{path} is no checkpoint but text ({_first_line(start)!r}): {AGAIN}")
    mark = HASH_IN_NAME.search(path.name)
    if mark and not sha256.startswith(mark[1]):
        raise UserError(
            f"{path} is not the file that its name says: its sha256 begins with {sha256[: len(mark[1])]}, not "
            f"{mark[1]}; {AGAIN}, or rename a file of your own"
        )
    if start.startswith(ZIP_START):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise UserError(f"{path} is damaged or cut short ({error}): {AGAIN}") from None
        if damaged:
            raise UserError(f"{path} is damaged (the checksum of its part {damaged} is wrong): {AGAIN}")


def check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise UserError if a tensor holds NaN or infinity: a network that scores the class 0 everywhere."""
    wrong = [name for name, tensor in state.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UserError(
            f"{path} holds values that are no numbers (NaN or infinite) in {', '.join(wrong[:SHOWN])}{more}: its "
            "training diverged, or the file is damaged"
        )


def _is_text(start: bytes) -> bool:
    """Whether a file that begins so is a page or a message; safetensors' and torch's files hold other bytes."""
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\r\n\t" for letter in text)


def _first_line(start: bytes) -> str:
    return start.decode("utf-8").strip().split("\n")[0][:60]
