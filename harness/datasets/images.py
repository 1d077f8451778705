"""Decodes images and labels, and refuses files that a decoder would silently turn into something else."""

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
    """Read a PNG of 8-bit greyscale, or of indices into a palette, as uint8 [H, W]: the values as stored.

    Raises UserError, with a sentence that starts with the path, for a file that is missing, empty, cut short,
    unreadable, or of another kind.
    """
    content = _label_content(path)
    bits, kind = _png_kind(content)
    if kind == "palette":
        # OpenCV would give the palette's colours; the indices are the labels.
        try:
            with Image.open(io.BytesIO(content)) as image:
                return np.array(image, dtype=np.uint8)
        except (OSError, SyntaxError, ValueError):
            raise _undecodable(path) from None
    if (bits, kind) != (8, "greyscale"):
        raise UserError(f"{path} is a {bits}-bit {kind} PNG, but labels must be 8-bit greyscale")
    return _decode(path, content, cv2.IMREAD_UNCHANGED)


def read_color_label(path: Path) -> NDArray[np.int32]:
    """Read an RGB PNG of 8 bits a channel as int32 [H, W], 0xRRGGBB. Raises UserError as `read_label` does."""
    content = _label_content(path)
    bits, kind = _png_kind(content)
    if (bits, kind) != (8, "RGB"):
        raise UserError(f"{path} is a {bits}-bit {kind} PNG, but labels must be 8-bit RGB: their colours name classes")
    red, green, blue = np.moveaxis(_decode(path, content, cv2.IMREAD_COLOR_RGB).astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def read_mat_label(path: Path, field: str) -> NDArray[np.uint16]:
    """Read the label map `field` of a MATLAB file (up to version 7.2) as uint16 [H, W].

    Raises UserError, with a sentence that starts with the path, for a file that is missing, empty, unreadable or
    without that field, and for a field that is no map of integers from 0 to 65535.
    """
    from scipy.io import loadmat

    content = _bytes(path)
    try:
        found = loadmat(io.BytesIO(content), variable_names=[field])
    except Exception as error:  # scipy raises half a dozen kinds for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read as a MATLAB file ({reason}): copy or download it again") from None
    if field not in found:
        raise UserError(f"{path} has no field {field}, which must hold the label map")
    values = np.asarray(found[field])
    if values.ndim != 2 or values.dtype.kind not in "uif" or not values.size:
        raise UserError(f"{path}: the field {field} is no label map but {values.dtype} of shape {values.shape}")
    labels = values.astype(np.uint16)
    if not np.array_equal(labels, values):
        raise UserError(f"{path}: the field {field} holds values that are no integers from 0 to 65535")
    return labels


def _png_kind(content: bytes) -> tuple[int, str]:
    """Bits a channel and kind of pixels, from the header chunk, which comes first."""
    bits, color_type = content[24:26]
    return bits, PNG_COLOR_TYPES.get(color_type, "unknown")


def _label_content(path: Path) -> bytes:
    content = _content(path)
    if not content.startswith(PNG_START):
        raise UserError(f"{path} is no PNG, but labels must be PNG, since other formats alter values")
    return content


def _content(path: Path) -> bytes:
    """The bytes of an image file, after a look at both ends."""
    content = _bytes(path)
    if content.startswith(PNG_START):
        end = PNG_END
    elif content.startswith(JPEG_START):
        end = JPEG_END
    else:
        raise UserError(f"{path} is neither a PNG nor a JPEG: copy or download it again")
    if len(content) < SMALLEST or end not in content[-END_WITHIN:]:
        raise UserError(f"{path} is cut short (its end marker is missing): copy or download it again")
    return content


def _bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if not content:
        raise UserError(f"{path} is empty (0 bytes): copy or download it again")
    return content


def _decode(path: Path, content: bytes, flags: int) -> Array:
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise _undecodable(path)
    return np.asarray(decoded, dtype=np.uint8)


def _undecodable(path: Path) -> UserError:
    return UserError(f"{path} cannot be decoded: copy or download it again")
