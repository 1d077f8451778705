"""The question of the Cityscapes baselines: by which protocol were they measured?"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.experiment.schema import Experiment
from harness.reporting.entries import ABSENT_ENTRY, cell_entry, gain_text, hole, number
from harness.reporting.markup import Entry, Grid
from harness.reporting.published import figures
from harness.reporting.writing import write_table

if TYPE_CHECKING:
    import pandas as pd

PROTOCOLS = ("whole", "ms_flip")
COLUMNS = (
    *("model", "published_baseline", "zoo_single_scale", "zoo_ms_flip", "equals", "published_contextrast"),
    *("gain_as_printed", "gain_like_for_like"),
    *(f"measured_{name}_{each}" for name in ("baseline", "gain", "gain_low", "gain_high") for each in PROTOCOLS),
)


def write_zoo_table(experiment: Experiment, folder: Path, found: "pd.DataFrame") -> None:
    """Write `folder`/papers_cityscapes_baselines.*, if `found`, compared figures, has baselines of the model zoo's."""
    same = ["dataset", "split", "model", "metric", "setting"]
    keys = found[[*same, "method", "protocol"]].itertuples(index=False, name=None)
    by_key = dict(zip(keys, found.itertuples(), strict=True))
    zoo = figures("modelzoo_cityscapes.csv").groupby([*same, "method", "gain_of"], sort=False)
    rows, lines = [], []
    for (*key, baseline, method), of_model in zoo:
        baselines, ours = (
            [by_key.get((*key, each, protocol)) for protocol in PROTOCOLS] for each in (baseline, method)
        )
        if not any(baselines) or not any(ours):
            continue
        base, value = (next(filter(None, each)).published for each in (baselines, ours))
        single, multi = of_model.set_index("protocol")["value"][["single_scale", "ms_flip"]]
        equal = "single scale" if base == single else "multi-scale, flip" if base == multi else "neither"
        rows.append(
            [
                Entry(key[2]),
                *(number(base), number(single), number(multi), Entry(equal), number(value)),
                *(number(value - base, sign=True), number(value - multi, sign=True)),
                *map(_level, baselines),
                *map(_gain, ours),
            ]
        )
        means = [each and each.mean for each in baselines]
        gains = [each and getattr(each, name) for name in ("gain", "low", "high") for each in ours]
        lines.append([key[2], base, single, multi, equal, value, value - base, value - multi, *means, *gains])
    if not rows:
        return
    published, contextrast = "cross entropy, published", "Contextrast, published"
    grid = Grid(
        name=f"papers_cityscapes_baselines-{experiment.name}",
        title="By which protocol were the published Cityscapes baselines measured?",
        columns=[
            *(
                ("", ""),
                (published, "paper"),
                (published, "model zoo, single scale"),
                (published, "model zoo, ms_flip"),
            ),
            *((published, "paper's equals"), (contextrast, "level"), (contextrast, "gain as printed")),
            (contextrast, "gain over the zoo's ms_flip"),
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


def _level(row: Any) -> Entry:
    return cell_entry(row.cell) if row and row.cell else _none(row)


def _gain(row: Any) -> Entry:
    return Entry(gain_text(row.cell), f"n {row.runs}") if row and row.gain is not None else _none(row)


def _none(row: Any) -> Entry:
    return hole(row.verdict) if row else ABSENT_ENTRY
