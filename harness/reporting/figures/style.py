"""What all figures share: sizes, colours, and how they are saved."""

import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path

from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from PIL import Image

from harness.compute import atomic
from harness.experiment.schema import Experiment
from harness.reporting.names import arm_name, arm_styles

COLUMN, PAGE = 3.5, 7.2  # inches: one and two columns of a paper
# Suffix -> dots per inch (of what is no line) and metadata, without the time.
FORMATS: dict[str, tuple[int, dict[str, None]]] = {
    ".png": (300, {}),
    ".pdf": (300, {"CreationDate": None}),
    ".svg": (120, {"Date": None}),
}
BASELINE_COLOR = "#4d4d4d"
NOTE = 6.0  # points, of the text under a figure
# Ids "kind=value" of SVG groups become data attributes on the page: "arm=" what is drawn of an arm, "row=" an arm's row
# of panels, "note=" the text below. A figure that only says why there is nothing to draw has the id NOTHING.
NOTHING = "nothing="

STYLE = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.linewidth": 0.4,
    "text.parse_math": False,  # a "$" in a name is a "$"
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "the same ids every time",
}


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, PDF and SVG; the same figure gives the same bytes.

    The PNG has at most 256 colours, which makes it a third as large and changes no pixel that an eye would notice.
    """
    for suffix, (dots, metadata) in FORMATS.items():
        if suffix == ".svg":  # thousands of points are a picture in it, or a page with it would be too large
            for points in figure.findobj(PathCollection):
                points.set_rasterized(True)
        with atomic.replacing(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, dpi=dots, metadata=metadata)
            if suffix == ".png":
                with Image.open(temporary) as drawn:
                    few = drawn.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
                few.save(temporary, "PNG", optimize=True, dpi=(dots, dots))
        figure.set_layout_engine(None)  # it is laid out now; once is enough


def sheet(width: float, height: float) -> Figure:
    """An empty figure of that many inches that lays its parts out so that nothing overlaps."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02))


def only_text(text: str, width: float = COLUMN) -> Figure:
    """A figure that says why there is none."""
    size = 7.0
    lines = _lines(text, 0.95 * width, size)
    figure = Figure(figsize=(width, 0.4 + 0.13 * len(lines)))
    figure.set_gid(NOTHING)
    figure.text(0.02, 0.5, "\n".join(lines), va="center", fontsize=size, color="0.3")
    return figure


def note(figure: Figure, text: str) -> None:
    """Say under a figure how to read it."""
    wrapped = "\n".join(_lines(text, float(figure.get_size_inches()[0])))
    figure.supxlabel(wrapped, fontsize=NOTE, x=0.02, ha="left").set_gid("note=")


def note_height(text: str, width: float) -> float:
    """The inches that `note` takes in a figure of that width."""
    return 0.1 * len(_lines(text, width)) + 0.08


def _lines(text: str, width: float, size: float = NOTE) -> list[str]:
    return textwrap.wrap(text, letters(width, size), break_on_hyphens=False)  # "python -m" is one thing


def letters(inches: float, size: float = NOTE) -> int:
    """How many letters of ordinary width fit."""
    return int(inches * 72 / (0.56 * size))


def arms_legend(figure: Figure, experiment: Experiment, arms: Collection[str], markers: bool = True) -> None:
    """A legend of `arms` above a figure, in as many columns as fit its width."""
    handles = [
        Line2D([], [], color=color, marker=marker if markers else None, ms=3.5, lw=1.2, label=arm_name(experiment, arm))
        for arm, (color, marker) in arm_styles(experiment).items()
        if arm in arms
    ]
    across = columns_that_fit([str(handle.get_label()) for handle in handles], float(figure.get_size_inches()[0]))
    figure.legend(handles=handles, loc="outside upper left", ncols=across, frameon=False, columnspacing=1.2)


def legend_height(names: Sequence[str], width: float) -> float:
    """The inches that a legend with these names takes."""
    return 0.14 * -(-len(names) // columns_that_fit(names, width)) + 0.08 if names else 0.0


def columns_that_fit(names: Sequence[str], width: float) -> int:
    """How many columns a legend of these names has: as few as give the fewest rows that fit the width."""
    longest = max(map(len, names), default=1)
    most = max(1, min(len(names), letters(width, 7) // (longest + 8)))  # 8 letters are the line and the space
    rows = max(1, -(-len(names) // most))
    return max(1, -(-len(names) // rows))
