"""The committed tables and figures follow from the committed records, by the command that the README names."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from browser import CHROMIUM, browsing

from harness.experiment.schema import Experiment
from harness.reporting.repeats import write_repeats
from harness.reporting.tables import write_tables
from harness.runs.record import Record
from harness.statistics.scores import score

REPOSITORY = Path(__file__).parents[2]
REFERENCE = REPOSITORY / "results" / "reference"
REPORTS = sorted(path for path in REFERENCE.glob("*/reports/*") if path.is_dir())  # of a machine's experiment

# Drawing one takes a quarter of a minute: one of them here, the others in `make test-all`.
DRAWN = [
    pytest.param(path, marks=[] if path == REFERENCE / "h100/reports/camvid-small" else pytest.mark.exhaustive)
    for path in REPORTS
]
NAMES = [f"{path.parts[-3]}-{path.name}" for path in REPORTS]

# Tables of single runs, without a report: {(machine, table): (experiment file, what is set in it)}.
SINGLE = {
    # The same network from its ImageNet weights and from scratch.
    ("epyc", "initial_weights"): (
        "camvid-small",
        "models=[lite0_fpn, lite0_fpn_scratch]",
        "arms={cross_entropy: {}}",
        "seeds=[0]",
        "protocols=[whole]",
    ),
}
# What is set for the report of an experiment of which a part was run: {(machine, experiment): settings}.
SET = {("h200", "camvid"): ["models=[lite0_fpn]"]}


def settings_of(committed: Path) -> list[str]:
    return SET.get((committed.parts[-3], committed.name), [])


def linked(committed: Path, results: Path) -> Path:
    """A results folder with the runs of a committed report's machine, which are only read."""
    (results / "runs").symlink_to(committed.parents[1] / "runs")
    return results


@pytest.mark.slow
@pytest.mark.parametrize("committed", REPORTS, ids=NAMES)
def test_the_reference_tables_are_made_again_from_their_records(committed, tmp_path):
    experiment = Experiment.load(REPOSITORY / "config" / f"{committed.name}.yaml", settings_of(committed))
    write_tables(experiment, linked(committed, tmp_path))
    made = tmp_path / "reports" / committed.name / "tables"
    assert files(committed / "tables") == files(made)
    for path in (committed / "tables").iterdir():
        if path.suffix == ".csv":
            tables = [pd.read_csv(folder / path.name) for folder in (made, path.parent)]
            pd.testing.assert_frame_equal(*tables, check_exact=False, rtol=1e-9)
        else:
            assert (made / path.name).read_text() == path.read_text(), path.name


@pytest.fixture(scope="module", params=DRAWN, ids=NAMES)
def reports(request, tmp_path_factory) -> tuple[Path, Path]:
    """The committed report of an experiment, and the one that is made now from its records."""
    committed, results = request.param, tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "harness", "report", f"config/{committed.name}.yaml"]
    command += ["--results", str(linked(committed, results))]
    command += [word for setting in settings_of(committed) for word in ("--set", setting)]
    made = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return committed, results / "reports" / committed.name


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_the_reference_figures_are_made_again_from_their_records(reports):
    committed, made = (report / "figures" for report in reports)
    for path in committed.glob("*.png"):
        theirs, ours = (cv2.imread(str(folder / path.name)).astype(int) for folder in (committed, made))
        assert theirs.shape == ours.shape, path.name
        assert np.abs(theirs - ours).max() <= 8, path.name  # of 255: a coordinate's last digit moves no pixel


def test_committed_figures_are_small_and_a_document_shows_each():
    documents = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REFERENCE.glob("*.md")]
    texts = "".join(path.read_text() for path in documents)
    listed = subprocess.run(
        ["git", "ls-files", "results/reference"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    figures = [path for path in map(Path, listed.stdout.splitlines()) if "figures" in path.parts]
    assert figures
    for path in figures:
        assert path.relative_to("results/reference").as_posix() in texts, path
        assert (REPOSITORY / path).stat().st_size < 2**20, path


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
def test_the_reference_page_shows_tables_and_figures(reports, tmp_path):
    _, made = reports
    with browsing(tmp_path) as browser:
        browser.open(made / "report.html")
        shown = browser.run(
            "[...document.querySelectorAll('#board-0 td [data-runs]')].map((each) => each.textContent.trim())"
        )
        drawn = browser.run("[...document.querySelectorAll('figure.sheet')].map((each) => each.dataset.name)")
        empty = browser.run("document.querySelectorAll('figure.sheet:not(:has(svg path))').length")
        height = browser.run("document.documentElement.scrollHeight")
        assert browser.complaints == []
    table = pd.read_csv(made / "tables" / "miou.csv")
    means = table[table["protocol"] == "whole"]["mean"].dropna()
    assert len(means) > 1
    assert {f"{mean:.2f}" for mean in means} <= set(shown)
    there = {path.stem for path in (made / "figures").glob("*.svg") if "nothing=" not in path.read_text()}
    in_tables = {"miou"} | {name for name in there if name.startswith("classes_")}
    assert set(drawn) == there - in_tables
    assert empty == 0
    assert height < 5 * 900
    assert (made / "report.html").stat().st_size < 5e6


@pytest.mark.parametrize(("machine", "table"), SINGLE)
def test_the_tables_of_single_runs_are_made_again_from_the_records(machine, table, tmp_path):
    config, *settings = SINGLE[machine, table]
    experiment = Experiment.load(REPOSITORY / "config" / f"{config}.yaml", [*settings, f"name={config}"])
    linked(REFERENCE / machine / "reports" / config, tmp_path)
    write_tables(experiment, tmp_path)
    made = (tmp_path / "reports" / config / "tables" / "miou.md").read_text()
    assert made == (REFERENCE / machine / "reports" / f"{table}.md").read_text()


@pytest.mark.parametrize(("first", "second"), [("epyc", "h100"), ("h100", "h200")])
def test_the_tables_of_same_seeds_are_made_again_from_the_records(first, second, tmp_path):
    made = write_repeats(REFERENCE / first, REFERENCE / second, "whole", tmp_path / "same_seed.md")
    assert made.read_text() == (REFERENCE / second / "reports" / "same_seed.md").read_text()


@pytest.mark.slow
def test_the_reference_records_scores_follow_from_their_counts():
    from harness.evaluation.counts import Counts

    folders = [path.parent for path in REFERENCE.rglob("record.json")]
    assert folders
    for folder in folders:
        record, counts = Record.load(folder / "record.json"), Counts.load(folder / "counts.npz")
        for protocol, tables in counts.tables.items():
            scores, per_class = score(tables, counts.classes, record.absent)
            stored = record.scores[protocol]
            # Metrics that came after a record are not in it.
            shared = stored.keys() & scores.keys()
            assert {"miou", "pixel_accuracy", "boundary_miou@3px"} <= shared
            assert {name: scores[name] for name in shared} == {name: stored[name] for name in shared}
            of_classes = record.per_class[protocol]
            assert {name: per_class[name] for name in of_classes} == of_classes
        assert record.provenance.dirty is False
