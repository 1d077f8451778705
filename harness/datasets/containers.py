"""Checks, without decoding, that a PNG or JPEG file is complete."""

import re
import struct
import zlib
from dataclasses import dataclass

PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
PNG_COLOR_TYPES = {0: "greyscale", 2: "RGB", 3: "palette", 4: "greyscale with transparency", 6: "RGBA"}
# In entropy-coded data FF is followed by 00, a restart marker D0 to D7, or a fill byte FF.
MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
CUT_SHORT = "is cut short (its end marker is missing)"


@dataclass(frozen=True)
class Header:
    """A picture's bits per channel, kind of pixels ("JPEG" for a JPEG) and size."""

    bits: int
    kind: str
    width: int
    height: int


def read_header(content: bytes) -> Header | str:
    """The header of a complete picture, or else what is wrong with it, as text that follows the file's name.

    A PNG's checksums are verified. A JPEG has none, so its pixels may still be damaged (`jpeg_damage`). Bytes after the
    end marker are ignored.
    """
    if content.startswith(PNG_START):
        return _png(content)
    if content.startswith(JPEG_START):
        return _jpeg(content)
    return f"is neither a PNG nor a JPEG{_instead(content)}"


def _png(content: bytes) -> Header | str:
    header, place = None, len(PNG_START)
    while place + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            break
        if zlib.crc32(content[place + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            return f"is damaged (the checksum of its part {kind.decode('latin-1')} is wrong)"
        if kind == b"IHDR" and length == 13:
            width, height, bits, color = struct.unpack_from(">IIBB", content, place + 8)
            header = Header(bits, PNG_COLOR_TYPES.get(color, "unknown"), width, height)
        if kind == b"IEND":
            return header or "is damaged (it has no header)"
        place = end + 4
    return CUT_SHORT


def _jpeg(content: bytes) -> Header | str:
    header, place = None, 2
    while found := MARKER.search(content, place):
        marker = found[1][0]
        if marker == END_OF_IMAGE:
            return header or "is damaged (it has no header)"
        if found.end() + 2 > len(content):
            break
        length = struct.unpack_from(">H", content, found.end())[0]
        if marker in START_OF_FRAME and found.end() + 7 <= len(content):
            bits, height, width = struct.unpack_from(">BHH", content, found.end() + 2)
            header = Header(bits, "JPEG", width, height)
        place = found.end() + (length if marker not in (0x01, 0xD8) else 0)
    return CUT_SHORT


def _instead(content: bytes) -> str:
    """What the file is instead of a picture, if that is a common mistake; otherwise ""."""
    start = content[:200].lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return " but a Git LFS pointer (git lfs pull brings the file)"
    if start.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return " but a web page, as after a refused download"
    return ""
