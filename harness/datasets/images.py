"""Decodes images and labels, and refuses files that a decoder would silently turn into something else."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError

PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
PNG_COLOR_TYPES = {0: "greyscale", 2: "RGB", 3: "palette", 4: "greyscale with transparency", 6: "RGBA"}
END_WITHIN = 1024  # bytes; some writers add a little after the end marker
SMALLEST = 45  # bytes: a PNG's signature, its header chunk and its end chunk

Array = NDArray[np.uint8]


def read_image(path: Path) -> Array:
    """Read a PNG or JPEG of 8 bits a channel as uint8 [H, W, 3] RGB; greyscale images get three equal channels.

    Raises UserError, with a sentence that starts with the path, for a file that is missing, empty, cut short,
    unreadable or of 16 bits.
    """
    content = _content(path)
    if content.startswith(PNG_START) and _png_kind(content)[0] == 16:
        raise UserError(f"{path} has 16 bits a channel, but images must have 8")
    return _decode(path, content, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def read_label(path: Path) -> Array:
    """Read an 8-bit greyscale PNG as uint8 [H, W], the values as stored.

    Raises UserError, with a sentence that starts with the path, for a file that is missing, empty, cut short,
    unreadable, or of another kind than 8-bit greyscale PNG.
    """
    content = _content(path)
    if not content.startswith(PNG_START):
        raise UserError(f"{path} is no PNG, but labels must be 8-bit greyscale PNG, since other formats alter values")
    bits, kind = _png_kind(content)
    if (bits, kind) != (8, "greyscale"):
        raise UserError(f"{path} is a {bits}-bit {kind} PNG, but labels must be 8-bit greyscale")
    return _decode(path, content, cv2.IMREAD_UNCHANGED)


def _png_kind(content: bytes) -> tuple[int, str]:
    """Bits a channel and kind of pixels, from the header chunk, which comes first."""
    bits, color_type = content[24:26]
    return bits, PNG_COLOR_TYPES.get(color_type, "unknown")


def _content(path: Path) -> bytes:
    """The file's bytes, after a look at both ends."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if not content:
        raise UserError(f"{path} is empty (0 bytes): copy or download it again")
    if content.startswith(PNG_START):
        end = PNG_END
    elif content.startswith(JPEG_START):
        end = JPEG_END
    else:
        raise UserError(f"{path} is neither a PNG nor a JPEG: copy or download it again")
    if len(content) < SMALLEST or end not in content[-END_WITHIN:]:
        raise UserError(f"{path} is cut short (its end marker is missing): copy or download it again")
    return content


def _decode(path: Path, content: bytes, flags: int) -> Array:
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise UserError(f"{path} cannot be decoded: copy or download it again")
    return np.asarray(decoded, dtype=np.uint8)
