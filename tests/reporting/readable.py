"""Whether a person can read what a figure says: texts inside it, and none on another."""

import itertools

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def texts(figure: Figure) -> list:
    """The visible texts of a figure, drawn, with their boxes in pixels."""
    figure.set_dpi(60)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = [text for text in figure.findobj(mpl.text.Text) if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in shown]
    # Ticks outside an axis's limits exist, but are not drawn.
    outside = {
        id(label.label1)
        for axis in figure.axes
        for which in (axis.xaxis, axis.yaxis)
        for label in which.get_major_ticks() + which.get_minor_ticks()
        if not min(which.get_view_interval()) <= label.get_loc() <= max(which.get_view_interval())
    }
    slanted = {id(text) for text in shown if text.get_rotation() % 90}  # their boxes overlap where they do not
    return [
        (name, box)
        for text, (name, box) in zip(shown, boxes, strict=True)
        if id(text) not in outside and id(text) not in slanted
    ]


def assert_readable(figure: Figure) -> None:
    """Every text lies inside the figure, none on another."""
    drawn = texts(figure)
    width, height = figure.get_size_inches() * figure.dpi
    for name, box in drawn:
        assert box.x0 >= -1, name
        assert box.y0 >= -1, name
        assert box.x1 <= width + 1, name
        assert box.y1 <= height + 1, name
    for (name, box), (other, other_box) in itertools.combinations(drawn, 2):
        overlap_x = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
        overlap_y = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
        assert min(overlap_x, overlap_y) <= 2, (name, other)
