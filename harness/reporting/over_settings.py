"""Several data sets and networks at once: one line an arm, its mean gain for this grid and for settings like it."""

from collections.abc import Sequence
from pathlib import Path

from harness.experiment.schema import Experiment
from harness.reporting.entries import ABSENT_ENTRY, interval_text
from harness.reporting.markup import DETAILS, Entry, Grid, points
from harness.reporting.measured import Measured
from harness.reporting.names import arm_name, baseline_name
from harness.reporting.writing import write_table
from harness.statistics.settings import MeanGain, Setting, mean_gains

COLUMNS = (
    *("protocol", "arm", "settings", "gain", "low", "high"),
    *("low_like", "high_like", "smallest", "largest"),
)


def over_settings(experiment: Experiment, measured: Sequence[Measured]) -> dict[str, MeanGain]:
    """The mean gain in mIoU, by the first protocol, of every arm, the largest first; {} for a single setting."""
    if len(measured) < 2:
        return {}
    protocol = experiment.protocols[0]
    settings = [
        Setting(
            each.image_ids,
            {cell.arm: cell.gain for cell in each.region if cell.protocol == protocol and cell.gain},
        )
        for each in measured
    ]
    found = mean_gains(settings)
    return dict(sorted(found.items(), key=lambda item: -item[1].difference))


def settings_grid(experiment: Experiment, measured: Sequence[Measured]) -> list[Grid]:
    """The table over all settings, none for a single one or without intervals."""
    found = over_settings(experiment, measured)
    if not found:
        return []
    names = "; ".join(each.title for each in measured)
    rows = [
        [
            Entry(arm_name(experiment, arm)),
            Entry(str(mean.settings)),
            Entry(
                f"{points(mean.difference, True)} {interval_text(mean.low, mean.high)}",
                strong=mean.excludes_zero,
            ),
            Entry(interval_text(mean.low_like, mean.high_like)) if mean.low_like is not None else ABSENT_ENTRY,
            Entry(f"{points(mean.smallest, True)} to {points(mean.largest, True)}"),
        ]
        for arm, mean in found.items()
    ]
    return [
        Grid(
            name=f"settings-{experiment.name}",
            title="Mean gain in mIoU over all data sets and networks",
            columns=[
                ("", each) for each in ("", "settings", "this grid [95 %]", "settings like these [95 %]", "range")
            ],
            rows=rows,
            notes=[
                f"Gain over {baseline_name(experiment)} in points, the mean over settings: {names}.",
                "This grid: these very settings, for all arms at once; bold: it leaves out 0. Settings like these: a "
                "new data set and network of the kind, by Student's t over the settings.",
                f"How the intervals are made, and what they do not know: {DETAILS}.",
            ],
        )
    ]


def write_settings(experiment: Experiment, folder: Path, measured: Sequence[Measured]) -> None:
    """Write `folder`/settings.* if there are several settings with intervals."""
    if grids := settings_grid(experiment, measured):
        lines = [
            [
                *(experiment.protocols[0], arm, mean.settings, mean.difference, mean.low, mean.high),
                *(mean.low_like, mean.high_like, mean.smallest, mean.largest),
            ]
            for arm, mean in over_settings(experiment, measured).items()
        ]
        write_table(folder / "settings", grids, COLUMNS, lines)
