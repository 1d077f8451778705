"""The papers' training settings beside an experiment's."""

from pathlib import Path

from harness.experiment.schema import Experiment
from harness.reporting.markup import Entry, Grid
from harness.reporting.published import training_settings
from harness.reporting.verdicts import COMPARED, differing, setting_text
from harness.reporting.writing import write_table

COLUMNS = ("dataset", "model", "setting", "published", "ours", "agrees", "source")
AGREES, ODDITY, DIFFERS = "yes", "printed oddity", "no"


def write_settings_table(experiment: Experiment, folder: Path) -> None:
    """Write `folder`/papers_training_settings.* for the pairs of an experiment that the papers print, if any."""
    rows, shown, lines = training_settings(), [], []
    for row in (rows[pair] for pair in experiment.pairs() if pair in rows):
        dataset, model = row["dataset"], row["model"]
        schedule = experiment.schedule_of(dataset, model)
        wrong = {name for name, _, _ in differing(experiment, row)}
        entries = [Entry(dataset), Entry(model)]
        for name in COMPARED:
            ours, theirs = setting_text(getattr(schedule, name)), setting_text(row[name])
            agrees = DIFFERS if name in wrong else AGREES if ours == theirs else ODDITY
            entries.append(
                Entry(
                    ours,
                    "" if agrees == AGREES else f"published {theirs}",
                    strong=agrees == DIFFERS,
                )
            )
            lines.append([dataset, model, name, theirs, ours, agrees, row["source"]])
        shown.append([*entries, Entry("differs" if wrong else "as published")])
    if not shown:
        return
    grid = Grid(
        name=f"papers_training_settings-{experiment.name}",
        title="Training settings",
        columns=[("", "data set"), ("", "model"), *(("", name.replace("_", " ")) for name in COMPARED), ("", "")],
        rows=shown,
        notes=[
            "What this experiment trains with; in brackets what is published, where it is something else. Bold: it "
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
    write_table(folder / "papers_training_settings", [grid], COLUMNS, lines)
