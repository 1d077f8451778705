"""What `check-record` finds in a run that was tampered with, broken or taken from elsewhere."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.checks.records import check_record, check_records
from harness.errors import UserError
from harness.evaluation.counts import Counts
from harness.runs.record import read_json, write_json
from harness.training import board


@pytest.fixture
def handed_in(request, tmp_path):
    """A copy of a committed run on real CamVid, under the folders that its key names."""
    path = "runs/camvid-small/camvid/lite0_fpn/contextrast/seed0"
    shutil.copytree(request.config.rootpath / "results" / "reference" / "epyc" / path, tmp_path / path)
    return tmp_path / path


def rewrite(folder, change):
    """Change a record and give it a valid hash again, as somebody who forges does."""
    record = read_json(folder / "record.json")
    change(record)
    write_json(folder / "record.json", record)


def edit_counts(folder, change):
    counts = Counts.load(folder / "counts.npz")
    change(counts)
    counts.save(folder / "counts.npz")


@pytest.mark.slow
def test_the_committed_runs_pass(request):
    found = check_records(request.config.rootpath / "results" / "reference")
    assert len(found) >= 3
    assert set(map(tuple, found.values())) == {()}


def test_a_changed_byte_of_a_hashed_record_is_found(handed_in):
    rewrite(handed_in, lambda record: None)  # now it has a hash
    path = handed_in / "record.json"
    path.write_text(path.read_text().replace('"seconds": 2', '"seconds": 1'))
    (problem,) = check_record(handed_in)
    assert "was changed after it was written" in problem


def better(record):
    record["scores"]["whole"]["miou"] += 0.01


def better_class(record):
    record["per_class"]["whole"]["iou"]["Pole"] += 0.01


def better_tail(record):
    record["scores"]["ms_flip"]["miou_tail"] += 0.01


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (better, "scores.whole.miou is 5"),
        (better_class, "per_class.whole.iou is not what the counts give"),
        (better_tail, "scores.ms_flip.miou_tail"),
        (lambda record: record["scores"].pop("ms_flip"), "scores are for whole, counts for whole, ms_flip"),
        (
            lambda record: record["scores"]["whole"].update(fwiou=99.0),
            "scores.whole.fwiou is 99.0, but the counts give",
        ),
        (lambda record: record["per_class"]["whole"].update(dice={"Sky": 1.0}), "per_class.whole.dice is not what"),
        (lambda record: record["settings"]["schedule"].update(batch=16), "fingerprint is not that of settings"),
        (lambda record: record["options"].update(weight=5.0), "settings.options"),
        (lambda record: record["provenance"].update(data_fingerprint="0" * 64), "settings.data"),
        (lambda record: record["provenance"].update(dirty=True), "not committed"),
        (lambda record: record["provenance"].update(commit="abc"), "provenance.commit"),
        (lambda record: record["provenance"].update(commit=None), "provenance.commit is unknown"),
        (lambda record: record["key"].update(seed=1), "its key says camvid-small/camvid/lite0_fpn/contextrast/seed1"),
        (lambda record: record["key"].pop("arm"), "key.arm is missing"),
        (lambda record: record["key"].update(seed="0"), "key.seed"),
        (lambda record: record.update(status="great"), "status"),
        (lambda record: record.update(weights_hash=None), "weights_hash is missing"),
        (lambda record: record.update(iterations=1499), "its schedule asks for 1500"),
        (lambda record: record.update(status="diverged", scores={}), "there is no reason"),
        (lambda record: record.update(status="diverged", reason="so"), "there are scores"),
        (lambda record: record.update(absent="never"), "absent must be"),
        (lambda record: record.update(split="attic"), "split is 'attic'"),
        (lambda record: record["key"].update(dataset="camwid"), "camwid"),
        (lambda record: record.update(files={"counts.npz": "0" * 64}), "not the file that its record was made with"),
    ],
)
def test_a_forged_or_broken_record_is_found(handed_in, change, said):
    rewrite(handed_in, change)
    problems = check_record(handed_in)
    assert any(said in problem for problem in problems), problems


def test_a_metric_that_a_record_lacks_or_this_version_does_not_know_is_no_problem(handed_in):
    rewrite(handed_in, lambda record: record["scores"]["whole"].pop("boundary_miou@3px"))
    rewrite(handed_in, lambda record: record["scores"]["whole"].update(charm=99.0))
    rewrite(handed_in, lambda record: record["per_class"]["whole"].update(charm={"Sky": 1.0}))
    assert check_record(handed_in) == []


def flatter(counts):
    table = counts.tables["whole"]["region"]
    moved = np.minimum(table[..., 2], 5)  # missed pixels become hits: the ground truth stays what it was
    table[..., 0] += moved
    table[..., 2] -= moved


def drop_hard_pixels(counts):
    for tables in counts.tables.values():
        tables["region"][..., 2] = 0


def more_edges(counts):
    counts.tables["whole"]["trimap@3px"][..., 2] += 10**7


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (flatter, "confusion.npz and counts.npz disagree for whole"),
        (flatter, "scores.whole.miou"),
        (drop_hard_pixels, "the ground truth is not the published one"),
        (more_edges, "trimap@3px of whole has more ground truth than its region"),
        (
            lambda counts: counts.tables["ms_flip"]["region"].__isub__(counts.tables["ms_flip"]["region"] // 2),
            "another",
        ),
    ],
)
def test_counts_that_were_tampered_with_are_found(handed_in, change, said):
    edit_counts(handed_in, change)
    problems = check_record(handed_in)
    assert any(said in problem for problem in problems), problems


def test_missing_images_and_other_classes_are_found(handed_in):
    counts = Counts.load(handed_in / "counts.npz")
    counts.select(counts.image_ids[1:]).save(handed_in / "counts.npz")
    assert any("counts.npz has 232 images, but camvid test has 233" in each for each in check_record(handed_in))
    Counts(counts.image_ids, counts.classes[::-1], counts.tables).save(handed_in / "counts.npz")
    assert "counts.npz has other classes than camvid" in check_record(handed_in)


def test_objects_must_add_up(handed_in):
    def add(counts):
        region = counts.tables["whole"]["region"]
        for size in ("tiny", "small", "medium", "large"):
            counts.tables["whole"][f"objects@{size}"] = region // 2

    edit_counts(handed_in, add)
    assert any("objects of all sizes of whole do not add up" in each for each in check_record(handed_in))


@pytest.mark.parametrize("name", ["counts.npz", "confusion.npz", "curve.csv"])
def test_a_missing_file_is_found(handed_in, name):
    (handed_in / name).unlink()
    assert f"{name} is missing" in check_record(handed_in)


@pytest.mark.parametrize("name", ["counts.npz", "confusion.npz"])
def test_half_a_file_is_found(handed_in, name):
    path = handed_in / name
    path.write_bytes(path.read_bytes()[:-200])
    assert any(f"{name} is not a whole file" in each for each in check_record(handed_in))


def test_other_files_may_be_missing_but_not_torn(handed_in):
    np.savez(handed_in / "embeddings.npz", kind="features")
    assert check_record(handed_in) == []
    for name in ("embeddings.npz", "diagnostics.npz"):
        path = handed_in / name
        path.write_bytes(path.read_bytes()[:-20])
        assert any(f"{name} is not a whole file" in each for each in check_record(handed_in))
        path.unlink()
        assert check_record(handed_in) == []


def test_a_curve_of_another_run_and_strange_files_are_found_and_weights_may_stay(handed_in):
    lines = (handed_in / "curve.csv").read_text().splitlines()
    (handed_in / "curve.csv").write_text("\n".join(lines[:-1]) + "\n")
    (handed_in / "notes.txt").write_text("mine")
    (handed_in / "checkpoints").mkdir()
    assert check_record(handed_in) == [
        "notes.txt is no file of a run: remove it",
        "curve.csv does not lead to iteration 1500",
    ]


def test_what_other_verbs_leave_in_a_run_is_passed_over_and_stays_at_home(handed_in, repository):
    page = (repository / "docs" / "submit-results.md").read_text()
    ignored = (repository / ".gitignore").read_text()
    for name in ("checkpoints", "predictions", "submissions", "export", board.FOLDER):
        (handed_in / name).mkdir()
        (handed_in / name / "a.bin").write_text("1")
        assert f"`{name}`" in page
        assert f"results/reference/**/{name}/" in ignored
    (handed_in / "training.json").write_text("{}")
    assert check_record(handed_in) == []


def test_a_trained_run_without_a_record_is_found_but_none_that_was_set_aside(handed_in):
    for name in ("seed1", "seed1.stale-0123abcd"):
        (handed_in.parent / name).mkdir()
        (handed_in.parent / name / "training.json").write_text("{}")
    found = {folder.name: problems for folder, problems in check_records(handed_in.parent).items()}
    assert found == {"seed0": [], "seed1": ["there is no record.json: evaluate the run"]}


def test_a_folder_without_records_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match=r"no record\.json"):
        check_records(tmp_path)


def test_health_is_checked_where_a_record_has_it(repository, tmp_path):
    source = next(
        (repository / "results" / "reference" / "h200" / "runs").glob("camvid-controls/*/*/contextrast/seed0")
    )
    folder = tmp_path / Path(*source.parts[-5:])
    shutil.copytree(source, folder)
    content = read_json(folder / "record.json")
    assert content["health"] and check_record(folder) == []
    write_json(folder / "record.json", content | {"health": [{"mark": "unwell", "value": 1.0, "threshold": 0.5}]})
    assert any("health" in problem for problem in check_record(folder))
