"""Figures inside the page: their SVG, which takes the page's colours, and every file to download as a data address."""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

TYPES = {".csv": "text/csv", ".tex": "application/x-tex", ".pdf": "application/pdf", ".png": "image/png"}
NAMES = {".csv": "CSV", ".tex": "LaTeX", ".pdf": "PDF", ".png": "PNG"}
# Greys of a figure, from this level up, and what they become in the page: ink, quiet ink, lines, ground.
INKS = ((0xFF, "var(--ground)"), (0xCC, "var(--line)"), (0x66, "var(--text-quiet)"), (0x00, "currentColor"))


class Download(NamedTuple):
    """A link to a file that the page holds: what kind it is, the name to save it under, and its data address."""

    kind: str
    name: str
    address: str


@dataclass(frozen=True)
class Graphic:
    """A figure of the page: its SVG element, or why there is none; `name` is its file's, without a suffix.

    `arms` are those that can be shown by themselves; `empty`: it only says that there is nothing to draw.
    """

    name: str
    caption: str
    svg: str = ""
    missing: str = ""
    arms: Sequence[str] = ()
    empty: bool = False
    downloads: list[Download] = field(default_factory=list)


def graphic(folder: Path, name: str, caption: str) -> Graphic:
    """The figure `name` of `folder` with its PDF to download."""
    path = folder / f"{name}.svg"
    if not path.is_file():
        missing = f"{name} was not drawn; python -m harness report --part figures draws it."
        return Graphic(name, caption, missing=missing)
    svg = inline_svg(path.read_text(encoding="utf-8"), name, caption)
    arms = list(dict.fromkeys(re.findall(r'<g data-(?:arm|row)="([^"]*)"', svg)))
    return Graphic(name, caption, svg, arms=arms, empty="data-nothing=" in svg, downloads=downloads(folder, name))


def downloads(folder: Path, name: str, suffixes: tuple[str, ...] = (".csv", ".tex", ".pdf")) -> list[Download]:
    """Those of the files <name><suffix> of `folder` that exist, as links."""
    return [
        Download(NAMES[suffix], f"{name}{suffix}", data_address(path))
        for suffix in suffixes
        if (path := folder / f"{name}{suffix}").is_file()
    ]


def data_address(path: Path) -> str:
    """A file as an address that holds it."""
    return address(TYPES[path.suffix], path.read_bytes())


def address(kind: str, content: bytes) -> str:
    """The content of a file of a MIME type as an address that holds it."""
    return f"data:{kind};base64,{b64encode(content).decode('ascii')}"


def inline_svg(text: str, name: str, caption: str) -> Markup:
    """Matplotlib's SVG as an element of a page: its own ids, the page's inks, numbers as short as the eye needs.

    `text` is a file that this project wrote. What names in it contain is escaped there.
    """
    text = text[text.index("<svg") :]
    text = re.sub(r"(?s)<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r'<g id="([a-z]+)=([^"]*)"', r'<g data-\1="\2"', text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"#([0-9a-f]{2})\1\1\b", lambda grey: _ink(int(grey[1], 16)), text)
    text = re.sub(r"(?<=[ \"(,MLCQ-])(\d+\.\d{3,})(?=[ \",)pA-Z\n])", lambda number: f"{float(number[1]):.2f}", text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    opened, rest = text.split(">", 1)
    box = re.search(r'viewBox="([^"]+)"', opened)
    width, height = (float(part) for part in (box[1] if box else "0 0 1 1").split()[2:])
    label = Markup.escape(caption)
    opened = f'<svg role="img" aria-label="{label}" viewBox="0 0 {width:g} {height:g}" style="--width: {width:g}"'
    return Markup(f"{opened}>{rest}")


def _ink(level: int) -> str:
    return next(ink for least, ink in INKS if level >= least)
