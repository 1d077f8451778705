"""The question of the Cityscapes baselines: by which protocol were they measured?"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.experiment.schema import Experiment
from harness.reporting import published
from harness.reporting.entries import ABSENT_ENTRY, cell_entry, gain_text, hole, number
from harness.reporting.markup import Entry, Grid
from harness.reporting.writing import write_table

if TYPE_CHECKING:
    import pandas as pd

PROTOCOLS = ("whole", "ms_flip")
COLUMNS = (
    *("model", "published_baseline", "zoo_single_scale", "zoo_ms_flip", "equals", "published_contextrast"),
    *("gain_as_printed", "gain_like_for_like"),
    *(
        f"measured_{what}_{protocol}"
        for what in ("baseline", "gain", "gain_low", "gain_high")
        for protocol in PROTOCOLS
    ),
)


def write_zoo_table(experiment: Experiment, folder: Path, found: "Sequence[pd.DataFrame]") -> None:
    """Write `folder`/papers_cityscapes_baselines.*, if `found`, compared tables, has baselines of the model zoo's."""
    by_key = {(row.dataset, row.model, row.method, row.protocol): row for table in found for row in table.itertuples()}
    zoo = published.figures("modelzoo_cityscapes.csv")
    rows, lines = [], []
    for (dataset, model, baseline, method), of_model in zoo.groupby(
        ["dataset", "model", "method", "gain_of"], sort=False
    ):
        baselines = [by_key.get((dataset, model, baseline, protocol)) for protocol in PROTOCOLS]
        ours = [by_key.get((dataset, model, method, protocol)) for protocol in PROTOCOLS]
        known = next(filter(None, baselines), None), next(filter(None, ours), None)
        if known[0] is None or known[1] is None:
            continue
        base, value = known[0].published, known[1].published
        single, multi = of_model.set_index("protocol")["value"][["single_scale", "ms_flip"]]
        equal = "single scale" if base == single else "multi-scale, flip" if base == multi else "neither"
        rows.append(
            [
                Entry(model),
                *(number(base), number(single), number(multi), Entry(equal), number(value)),
                *(number(value - base, sign=True), number(value - multi, sign=True)),
                *(_level_entry(each) for each in baselines),
                *(_gain_entry(each) for each in ours),
            ]
        )
        measured = [getattr(each, name, None) for name in ("gain", "low", "high") for each in ours]
        means = [getattr(each, "mean", None) for each in baselines]
        lines.append([model, base, single, multi, equal, value, value - base, value - multi, *means, *measured])
    if not rows:
        return
    grid = Grid(
        name=f"papers_cityscapes_baselines-{experiment.name}",
        title="By which protocol were the published Cityscapes baselines measured?",
        columns=[
            *(("", ""), ("cross entropy, published", "paper"), ("cross entropy, published", "model zoo, single scale")),
            *(("cross entropy, published", "model zoo, ms_flip"), ("cross entropy, published", "paper's equals")),
            *(("Contextrast, published", "level"), ("Contextrast, published", "gain as printed")),
            ("Contextrast, published", "gain over the zoo's ms_flip"),
            *(("cross entropy, measured", protocol) for protocol in PROTOCOLS),
            *(("Contextrast's gain, measured", protocol) for protocol in PROTOCOLS),
        ],
        rows=rows,
        notes=[
            "The papers test with several scales and flip. Where their baseline equals the single-scale figure that "
            "mmsegmentation publishes for its own network, the gain as printed may compare two protocols; the gain "
            "like for like would be that over the multi-scale figure. Here both protocols are measured for both.",
            "Published: arXiv 2608.22679 tables III and VI; model zoo: mmsegmentation's metafile.yaml of each network.",
        ],
    )
    write_table(folder / "papers_cityscapes_baselines", [grid], COLUMNS, lines)


def _level_entry(row: Any) -> Entry:
    return cell_entry(row.cell) if row and row.cell else hole(row.verdict) if row else ABSENT_ENTRY


def _gain_entry(row: Any) -> Entry:
    if row and row.gain is not None:
        return Entry(gain_text(row.cell), f"n {row.runs}")
    return hole(row.verdict) if row else ABSENT_ENTRY
