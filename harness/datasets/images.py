"""Decodes images and labels, and rejects files that decoders would silently alter."""

import io
import struct
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.datasets.containers import Header, read_header
from harness.errors import UserError

# OpenCV's limits; PIL's are a sixth of them.
MOST_PIXELS, LONGEST_SIDE = 1 << 30, 1 << 20
HDF_START = b"\x89HDF\r\n\x1a\n"  # of MATLAB 7.3 files
ORIENTATION = 0x0112  # EXIF tag

Array = NDArray[np.uint8]


def read_image(path: Path) -> Array:
    """A PNG or JPEG of 8 bits per channel as uint8 [H, W, 3] RGB; greyscale images get three equal channels.

    Pixels are returned as stored: an EXIF orientation is not applied. Raises UserError, starting with the path, for a
    file that is missing, empty, cut short, damaged, unreadable, larger than 2^30 pixels, or of 16 bits.
    """
    content, header = _content(path)
    if header.bits == 16:
        raise UserError(f"{path} has 16 bits a channel, but images must have 8")
    return _decode(path, content, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def read_label(path: Path) -> Array:
    """The stored values, uint8 [H, W], of an 8-bit greyscale or palette PNG.

    Raises UserError as `read_image` does, and for other kinds of files.
    """
    content, header = _label_content(path)
    if header.kind == "palette":
        # The labels are the indices; OpenCV would return the palette's colours.
        try:
            with opened(io.BytesIO(content)) as image:
                return np.array(image, dtype=np.uint8)
        except (OSError, SyntaxError, ValueError):
            raise _undecodable(path) from None
    if (header.bits, header.kind) != (8, "greyscale"):
        raise UserError(f"{path} is {_kind(header)}, but labels must be 8-bit greyscale")
    return _decode(path, content, cv2.IMREAD_UNCHANGED)


def read_color_label(path: Path) -> NDArray[np.int32]:
    """An 8-bit RGB PNG as int32 [H, W], 0xRRGGBB. Raises UserError as `read_label` does."""
    content, header = _label_content(path)
    if (header.bits, header.kind) != (8, "RGB"):
        raise UserError(f"{path} is {_kind(header)}, but labels must be 8-bit RGB: their colours name classes")
    red, green, blue = np.moveaxis(_decode(path, content, cv2.IMREAD_COLOR_RGB).astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def read_mat_label(path: Path, field: str) -> NDArray[np.uint16]:
    """The label map `field` of a MATLAB file (up to version 7.2) as uint16 [H, W].

    Raises UserError, starting with the path, for an unreadable file, and for a field that is missing or not a map of
    integers from 0 to 65535.
    """
    from scipy.io import loadmat

    content = _bytes(path)
    if content.startswith(b"MATLAB 7.3") or content[512:520] == HDF_START:
        raise UserError(f"{path} is a MATLAB 7.3 file: load it in MATLAB and save it as -v7")
    try:
        found = loadmat(io.BytesIO(content), variable_names=[field])
    except Exception as error:  # scipy raises many types for damaged files
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


def opened(source: Path | io.BytesIO) -> Image.Image:
    """The picture opened by PIL, without its size limit and not yet decoded.

    Raises OSError or SyntaxError for other files.
    """
    Image.MAX_IMAGE_PIXELS = None
    return Image.open(source)


def orientation(path: Path) -> int:
    """The EXIF orientation of a picture, 1 to 8; 1 (upright) if it has none or cannot be read."""
    try:
        with opened(path) as image:
            found = image.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, KeyError, struct.error):
        return 1
    return found if found in range(1, 9) else 1


def _kind(header: Header) -> str:
    return f"an 8-bit {header.kind} PNG" if header.bits == 8 else f"a {header.bits}-bit {header.kind} PNG"


def _label_content(path: Path) -> tuple[bytes, Header]:
    content, header = _content(path)
    if header.kind == "JPEG":
        raise UserError(f"{path} is no PNG, but labels must be PNG, since other formats alter values")
    return content, header


def _content(path: Path) -> tuple[bytes, Header]:
    """Bytes and header of a picture. Raises UserError if it is incomplete or too large."""
    content = _bytes(path)
    header = read_header(content)
    if isinstance(header, str):
        raise UserError(f"{path} {header}: copy or download it again")
    if header.width * header.height > MOST_PIXELS or max(header.width, header.height) > LONGEST_SIDE:
        raise UserError(
            f"{path} is {header.width}x{header.height}, more than the {MOST_PIXELS:,} pixels (of {LONGEST_SIDE:,} a "
            "side) that can be decoded: cut it into parts"
        )
    return content, header


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
