"""Records of any content: plan and tables pass over them, and a verb that needs one refuses it in one sentence."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import damaged, examples, json_values, mutated, outcome

from harness.evaluation.counts import DEFAULT_WIDTHS, Counts
from harness.evaluation.objects import SIZES
from harness.evaluation.record import save_counts, scores_of
from harness.experiment.schema import Experiment
from harness.runs.record import write_json

pytestmark = pytest.mark.slow
TABLES = ["region", *(f"{kind}@{width}" for kind in ("boundary", "trimap") for width in DEFAULT_WIDTHS)]
TABLES += [f"objects@{size}" for size in SIZES]


@pytest.fixture
def runs(experiment_file, tmp_path):
    """An experiment of two runs that are done; returns its file and the folder of the second run."""
    path = experiment_file()
    experiment = Experiment.load(path)
    random = np.random.default_rng(0)
    for run in experiment.runs():
        folder = run.folder(tmp_path / "results")
        folder.mkdir(parents=True)
        classes = ("sky", "road")
        tables = {name: random.integers(1, 99, (3, 2, 3)) for name in TABLES}
        counts = Counts(["a", "b", "c"], classes, {"whole": tables})
        save_counts(folder, counts, {"whole": np.ones((2, 2), np.int64)})
        provenance = {"device": {"type": "cpu", "name": "CPU", "threads": 1}, "data_fingerprint": "d" * 64}
        settings = experiment.settings(run) | {"data": "d", "initial_weights": None}
        training = {"key": run.key(), "method": settings["method"], "options": settings["options"], "status": "done"}
        training |= {
            "reason": None,
            "iterations": 10,
            "weights_hash": "0" * 64,
            "settings": settings,
            "fingerprint": "f" * 64,
        }
        training |= {"provenance": provenance, "started": "2026-01-01T00:00:00+00:00", "seconds": 5.0}
        of_training = {"protocols": ["whole"], "absent": "skip", "root": str(tmp_path), "class_pixels": [5, 5]}
        write_json(folder / "training.json", training | of_training)
        scores = scores_of(counts, "skip")
        write_json(folder / "record.json", training | {"absent": "skip", "split": "test", **scores})
    return path, folder


def read(path):
    """A record without its hash, as one from before there was one: what is in it is read although it was changed."""
    return {key: value for key, value in json.loads(path.read_text()).items() if key != "record_hash"}


def check(path, *verbs):
    for verb in verbs:
        status, _ = outcome(*verb, path, "--results", path.parent / "results")
        assert status in (0, 2)


PLAN, REPORT = ("plan",), ("report", "--part", "tables")


def test_whole_records_become_tables(runs):
    path, _ = runs
    check(path, PLAN, REPORT)
    table = (path.parent / "results/reports/tiny/tables/miou.csv").read_text()
    assert {line.split(",")[4] for line in table.splitlines()[1:]} == {"cross_entropy", "contextrast"}, table


@pytest.fixture
def replaced(runs):
    """A function that runs verbs while a file of the second run has other content; None for no file."""
    path, folder = runs

    def run(contents, *verbs):
        whole = {name: (folder / name).read_bytes() for name in contents}
        for name, content in contents.items():
            if content is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(content)
        try:
            check(path, *verbs)
        finally:
            for name, content in whole.items():
                (folder / name).write_bytes(content)

    return run


@examples(50)
@given(data=st.data())
def test_records_of_any_content(runs, replaced, data):
    content = data.draw(mutated(read(runs[1] / "record.json"), json_values))
    replaced({"record.json": json.dumps(content).encode()}, PLAN, REPORT)


@examples(100)
@given(data=st.data())
def test_training_records_of_any_content(runs, replaced, data):
    content = data.draw(mutated(read(runs[1] / "training.json"), json_values))
    replaced({"training.json": json.dumps(content).encode(), "record.json": None}, PLAN)


@examples(30)
@given(name=st.sampled_from(["record.json", "counts.npz"]), data=st.data())
def test_damaged_files(runs, replaced, name, data):
    replaced({name: data.draw(damaged((runs[1] / name).read_bytes()))}, REPORT)


arrays = st.sampled_from(
    [
        np.array(1),
        np.array([]),
        np.array(["a", "b", "c"]),
        np.array(["a", "a", "b"]),
        np.zeros((3, 2, 3), np.uint8),
        np.full((3, 2, 3), np.nan),
        np.full((3, 2, 3), -5),
        np.full((3, 2, 3), 2**62),
        np.zeros((0, 2, 3), int),
        np.zeros((3, 3, 3), int),
        np.array([b"\xff"]),
        np.array(["<script>", "road"]),
        np.array([1 + 2j]),
    ]
)


@examples(30)
@given(
    changes=st.dictionaries(
        st.sampled_from(["schema", "image_ids", "classes", "whole/region", "", "x/y"]), arrays | st.none()
    )
)
def test_counts_of_any_content(runs, replaced, changes):
    with np.load(runs[1] / "counts.npz", allow_pickle=False) as file:
        content = dict(file) | changes
    written = io.BytesIO()
    np.savez(written, **{name: array for name, array in content.items() if array is not None})
    replaced({"counts.npz": written.getvalue()}, REPORT)
