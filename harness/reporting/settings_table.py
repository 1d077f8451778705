"""The papers' training settings next to an experiment's."""

from pathlib import Path

from harness.experiment.schema import Experiment
from harness.reporting.markup import Entry, Grid
from harness.reporting.published import training_settings
from harness.reporting.verdicts import AGREES, COMPARED, DIFFERS, Row, compared_settings
from harness.reporting.writing import write_table

COLUMNS = ("dataset", "model", "setting", "published", "ours", "agrees", "source")


def write_settings_table(experiment: Experiment, folder: Path) -> None:
    """Write `folder`/papers_training_settings.* for the pairs of an experiment that the papers print, if any."""
    rows = training_settings()
    found = [compared_settings(experiment, rows[pair]) for pair in experiment.pairs() if pair in rows]
    if not found:
        return
    shown = []
    for of_pair in found:
        differs = any(row["agrees"] == DIFFERS for row in of_pair)
        texts = [of_pair[0]["dataset"], of_pair[0]["model"], "differs" if differs else "as published"]
        shown.append([*map(Entry, texts[:2]), *map(_entry, of_pair), Entry(texts[2])])
    grid = Grid(
        name=f"papers_training_settings-{experiment.name}",
        title="Training settings",
        columns=[("", "data set"), ("", "model"), *(("", name.replace("_", " ")) for name in COMPARED), ("", "")],
        rows=shown,
        notes=[
            "What this experiment trains with; in brackets what is published, if that differs. Bold: it "
            "differs, and the pair has no verdict. In brackets but not bold: not taken as printed. AdamW has no "
            "momentum of that meaning, and "
            + ", ".join(
                f"{row['model']} has a {name.replace('_', ' ')} of {value:g}"
                for row in rows.values()
                for name, value in row["instead"].items()
            )
            + ", as in mmsegmentation.",
            "Settings that the papers do not print are mmsegmentation's: see config/paper.yaml.",
            f"Published: {', '.join(dict.fromkeys(row['source'] for row in rows.values()))}.",
        ],
        stubs=2,
    )
    write_table(
        folder / "papers_training_settings",
        [grid],
        COLUMNS,
        ([row[name] for name in COLUMNS] for each in found for row in each),
    )


def _entry(row: Row) -> Entry:
    printed = "" if row["agrees"] == AGREES else f"published {row['published']}"
    return Entry(row["ours"], printed, strong=row["agrees"] == DIFFERS)
