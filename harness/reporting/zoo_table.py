"""The question of the Cityscapes baselines: by which protocol were they measured?"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.experiment.schema import Experiment
from harness.reporting.entries import ABSENT_ENTRY, cell_entry, gain_text, hole, number
from harness.reporting.markup import Entry, Grid
from harness.reporting.names import method_name
from harness.reporting.published import figures
from harness.reporting.writing import write_table

if TYPE_CHECKING:
    import pandas as pd

PROTOCOLS = ("whole", "ms_flip")
ZOO = ("single_scale", "ms_flip")  # protocols of the model zoo
SAME = ["dataset", "split", "model", "metric", "setting"]
NOTES = [
    "The papers test with several scales and flip. Where their baseline equals the single-scale figure that "
    "mmsegmentation publishes for its own network, the gain as printed may compare two protocols; the gain "
    "like for like would be that over the multi-scale figure. Here both protocols are measured for both.",
    "Published: arXiv 2608.22679 tables III and VI; model zoo: mmsegmentation's metafile.yaml of each network.",
]


def write_zoo_table(experiment: Experiment, folder: Path, found: "pd.DataFrame") -> None:
    """Write `folder`/papers_cityscapes_baselines.*, if `found`, compared figures, has baselines of the model zoo's."""
    zoo = figures("modelzoo_cityscapes.csv")
    (baseline, method), *_ = zoo[["method", "gain_of"]].itertuples(index=False)
    keys = found[[*SAME, "method", "protocol"]].itertuples(index=False, name=None)
    by_key = dict(zip(keys, found.itertuples(), strict=True))
    rows, lines = [], []
    for key, of_model in zoo.groupby(SAME, sort=False):
        theirs, ours = ([by_key.get((*key, each, protocol)) for protocol in PROTOCOLS] for each in (baseline, method))
        if not any(theirs) or not any(ours):
            continue
        base, value = (next(filter(None, each)).published for each in (theirs, ours))
        single, multi = of_model.set_index("protocol")["value"][list(ZOO)]
        equal = "single scale" if base == single else "multi-scale, flip" if base == multi else "neither"
        gains = value - base, value - multi
        texts = [*map(number, (base, single, multi)), Entry(equal), number(value)]
        texts += [number(gain, sign=True) for gain in gains]
        rows.append([Entry(of_model["model"].iloc[0]), *texts, *map(_level, theirs), *map(_gain, ours)])
        measured = [each and each.mean for each in theirs]
        measured += [each and getattr(each, name) for name in ("gain", "low", "high") for each in ours]
        lines.append([of_model["model"].iloc[0], base, single, multi, equal, value, *gains, *measured])
    if not rows:
        return
    names = method_name(baseline).lower(), method_name(method)
    headings = ["paper", "model zoo, single scale", "model zoo, ms_flip", "paper's equals"]
    grid = Grid(
        name=f"papers_cityscapes_baselines-{experiment.name}",
        title="By which protocol were the published Cityscapes baselines measured?",
        columns=[
            ("", ""),
            *((f"{names[0]}, published", heading) for heading in headings),
            *((f"{names[1]}, published", each) for each in ("level", "gain as printed", "gain over the zoo's ms_flip")),
            *((f"{names[0]}, measured", protocol) for protocol in PROTOCOLS),
            *((f"{names[1]}'s gain, measured", protocol) for protocol in PROTOCOLS),
        ],
        rows=rows,
        notes=NOTES,
    )
    header = ["model", "published_baseline", *(f"zoo_{protocol}" for protocol in ZOO), "equals", f"published_{method}"]
    header += ["gain_as_printed", "gain_like_for_like"]
    header += [
        f"measured_{name}_{each}" for name in ("baseline", "gain", "gain_low", "gain_high") for each in PROTOCOLS
    ]
    write_table(folder / "papers_cityscapes_baselines", [grid], header, lines)


def _level(row: Any) -> Entry:
    return cell_entry(row.cell) if row and row.cell else _none(row)


def _gain(row: Any) -> Entry:
    return Entry(gain_text(row.cell), f"n {row.runs}") if row and row.gain is not None else _none(row)


def _none(row: Any) -> Entry:
    return hole(row.verdict) if row else ABSENT_ENTRY
