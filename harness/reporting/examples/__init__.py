"""Example pictures: the same test images for every arm, chosen by a rule, with what is predicted and what is wrong."""

import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

from harness.compute import atomic
from harness.errors import UserError
from harness.experiment.schema import Experiment
from harness.reporting.examples.choice import Examples, gather
from harness.reporting.examples.sheet import FONT, examples_figure
from harness.reporting.figures.style import PAGE, STYLE
from harness.reporting.names import setting_name

DOTS_PER_INCH = 250


def gather_examples(
    experiment: Experiment, results: Path, roots: Mapping[str, Path] | None = None
) -> tuple[list[Examples], list[str]]:
    """The examples of every (data set, model), and for those that cannot be shown a line that says why.

    `roots` are the data sets' folders; default: the experiment's, else those that the environment names.
    """
    found, reasons = [], []
    for dataset, model in experiment.pairs():
        try:
            found.append(gather(experiment, results, dataset, model, (roots or {}).get(dataset)))
        except UserError as error:
            reasons.append(f"no examples for {setting_name(dataset, model)}: {error}")
    return found, reasons


def write_examples(experiment: Experiment, results: Path, roots: Mapping[str, Path] | None = None) -> list[Path]:
    """Write figures/examples.png of `results`/reports/<experiment> and return the files that were written.

    With several data sets or models, examples.png shows the first pair and examples_<dataset>_<model>.png the others.
    What cannot be drawn (no data, no label maps) is left out, with a line on standard error that says why; if nothing
    can be, this line is what examples.png shows.
    """
    folder = Path(results) / "reports" / experiment.name / "figures"
    written: list[Path] = []
    found, reasons = gather_examples(experiment, results, roots)
    for reason in reasons:
        print(reason, file=sys.stderr)
    for each in found:
        path = folder / (f"examples_{each.dataset.name}_{each.model}.png" if written else "examples.png")
        with sns.axes_style("white"), mpl.rc_context(STYLE):  # type: ignore[arg-type]
            _save(examples_figure(experiment, each), path)
        written.append(path)
    if not written:
        _save(_only_text(reasons[0]), folder / "examples.png")
    return written


def _save(figure: Figure, path: Path) -> None:
    with atomic.replacing(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)


def _only_text(text: str) -> Figure:
    lines = textwrap.wrap(text, 100)
    figure = Figure(figsize=(PAGE, 0.4 + 0.15 * len(lines)))
    figure.text(0.02, 0.5, "\n".join(lines), va="center", fontsize=FONT)
    return figure
