"""The question of the Cityscapes baselines: by which protocol were they measured?"""

from collections.abc import Sequence
from pathlib import Path

from harness.experiment.schema import Experiment
from harness.reporting import published, verdicts
from harness.reporting.claims import Finding
from harness.reporting.entries import ABSENT_ENTRY, cell_entry, gain_text, hole, number
from harness.reporting.markup import Entry, Grid
from harness.reporting.writing import write_table

FILE = "modelzoo_cityscapes.csv"
DATASET, METHOD, BASELINE = "cityscapes", "contextrast", "cross_entropy"
PROTOCOLS = ("whole", verdicts.PROTOCOL)
COLUMNS = (
    *("model", "published_baseline", "zoo_single_scale", "zoo_ms_flip", "equals", "published_contextrast"),
    *("gain_as_printed", "gain_like_for_like"),
    *(
        f"measured_{what}_{protocol}"
        for what in ("baseline", "gain", "gain_low", "gain_high")
        for protocol in PROTOCOLS
    ),
)


def write_zoo_table(experiment: Experiment, folder: Path, found: Sequence[Finding]) -> None:
    """Write `folder`/papers_cityscapes_baselines.*, if `found` has baselines of Cityscapes.

    `found` are the findings of the main table and of other backbones.
    """
    by_key = {
        (each.claim.figure.model, each.claim.figure.method, each.protocol): each
        for each in found
        if each.claim.figure.dataset == DATASET
    }
    zoo = {(row.model, row.protocol): row for row in published.zoo_figures(published.FOLDER / FILE)}
    rows, lines = [], []
    for model in dict.fromkeys(model for model, _ in zoo):
        baselines = [by_key.get((model, BASELINE, protocol)) for protocol in PROTOCOLS]
        ours = [by_key.get((model, METHOD, protocol)) for protocol in PROTOCOLS]
        known = next((each for each in baselines if each), None), next((each for each in ours if each), None)
        if known[0] is None or known[1] is None:
            continue
        base, method = known[0].claim.figure.value, known[1].claim.figure.value
        single, multi = zoo[model, "single_scale"].value, zoo[model, verdicts.PROTOCOL].value
        equal = "single scale" if base == single else "multi-scale, flip" if base == multi else "neither"
        gains = [each.cell.gain if each and each.cell else None for each in ours]
        rows.append(
            [
                Entry(model),
                *(number(base), number(single), number(multi), Entry(equal), number(method)),
                *(number(method - base, sign=True), number(method - multi, sign=True)),
                *(cell_entry(each.cell) if each and each.cell else _none(each) for each in baselines),
                *(_gain_entry(each) for each in ours),
            ]
        )
        means = [each.cell.spread.mean if each and each.cell and each.cell.spread else None for each in baselines]
        lines.append(
            [
                *(model, base, single, multi, equal, method, method - base, method - multi, *means),
                *(gain.difference if gain else None for gain in gains),
                *(gain.low if gain else None for gain in gains),
                *(gain.high if gain else None for gain in gains),
            ]
        )
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


def _none(finding: Finding | None) -> Entry:
    return hole(finding.verdict.kind) if finding else ABSENT_ENTRY


def _gain_entry(finding: Finding | None) -> Entry:
    if finding is None or finding.cell is None or finding.cell.gain is None:
        return _none(finding)
    runs = f"n {len(finding.cell.values)}"
    return Entry(gain_text(finding.cell), runs)
