import dataclasses
import hashlib
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from run_files import make_record

from harness import cli
from harness.comparison import cells
from harness.errors import UserError
from harness.evaluation.counts import Counts
from harness.evaluation.external_predictions import score_predictions
from harness.evaluation.groups import Missing, arm_order, groups, read_record
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.reporting.summary import summary
from harness.reporting.tables import write_tables
from harness.runs.external_arms import external_records, external_run, why_not_shown, with_external_arms
from harness.runs.record import read_json, write_json
from harness.statistics.scores import miou_of

MODEL = "hrnet_tiny"


@pytest.fixture
def write_predictions(tiny, tmp_path):
    """Label maps of the test split with a share of wrong pixels, one folder a seed."""

    def write(errors: float, seed: int = 0):
        folder = tmp_path / f"predictions-{errors}-{seed}"
        folder.mkdir()
        draw = np.random.default_rng(seed)
        for sample in tiny.samples("test"):
            label = tiny.read_label(sample)
            wrong = draw.random(label.shape) < errors
            cv2.imwrite(str(folder / f"{sample.id}.png"), np.where(wrong | (label == 255), (label + 1) % 3, label))
        return folder

    return write


def test_the_record_is_an_ordinary_one_and_says_where_the_scores_come_from(tiny, write_predictions, tmp_path):
    folder, results = write_predictions(0.1), tmp_path / "results"
    run = Run("mine", "tiny", MODEL, "theirs", 2)
    found = score_predictions(folder, tiny, run=run, results=results)
    record = read_json(run.folder(results) / "record.json")
    assert found["record"] == str(run.folder(results) / "record.json")
    assert record["schema"] == 1
    assert record["key"] == {"experiment": "mine", "dataset": "tiny", "model": MODEL, "arm": "theirs", "seed": 2}
    assert (record["method"], record["options"], record["status"], record["reason"]) == ("external", {}, "done", None)
    assert record["scores"] == {"whole": found["scores"]}
    assert record["per_class"] == {"whole": found["per_class"]}
    assert (record["split"], record["absent"]) == ("test", "skip")
    lines = [f"{path.stem} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in sorted(folder.iterdir())]
    sha256 = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert record["provenance"]["predictions"] == {"folder": folder.name, "format": "train_ids", "sha256": sha256}
    assert record["provenance"]["data_fingerprint"] == tiny.fingerprint()
    assert {"commit", "dirty", "packages", "device"} <= record["provenance"].keys()

    # Counts, confusion and label maps are those of the predictions.
    counts = Counts.load(run.folder(results) / "counts.npz")
    assert counts.image_ids == ["test_0", "test_1", "test_2"]
    confusion = np.zeros((3, 3), np.int64)
    for sample in tiny.samples("test"):
        predicted = cv2.imread(str(folder / f"{sample.id}.png"), cv2.IMREAD_UNCHANGED)
        kept = run.folder(results) / "predictions" / "whole" / f"{sample.id}.png"
        assert (cv2.imread(str(kept), cv2.IMREAD_UNCHANGED) == predicted).all()
        np.add.at(confusion, (tiny.read_label(sample) % 255, predicted), tiny.read_label(sample) != 255)
    with np.load(run.folder(results) / "confusion.npz") as stored:
        assert (stored["whole"] == confusion).all()
    assert (counts.tables["whole"]["region"].sum(0)[:, 0] == np.diag(confusion)).all()


def test_a_training_split_that_is_not_there_leaves_the_data_unnamed_but_for_the_split(
    tiny, tmp_path, write_predictions
):
    folder = write_predictions(0.1)
    (tiny.root / "train.txt").unlink()
    run = Run("mine", "tiny", MODEL, "theirs", 0)
    score_predictions(folder, tiny, run=run, results=tmp_path)
    provenance = read_json(run.folder(tmp_path) / "record.json")["provenance"]
    assert (provenance["data_fingerprint"], provenance["split_fingerprint"]) == (None, tiny.fingerprint(["test"]))


@pytest.fixture
def experiment(experiment_file, tiny_data):
    return Experiment.load(experiment_file("mine", datasets=["tiny"], models=[MODEL], seeds=[0, 1, 2]))


@pytest.fixture
def filled(experiment, tiny, write_predictions, tmp_path):
    """Results with an experiment's baseline (10 % of the pixels wrong) and an external arm (5 %), three seeds each.

    The baseline's records are made from external ones, as if a network had been trained.
    """
    results = tmp_path / "results"
    for seed in experiment.seeds:
        for arm, errors in (("cross_entropy", 0.1), ("theirs", 0.05)):
            run = external_run(results, "tiny", arm, "mine", MODEL, seed)
            score_predictions(write_predictions(errors, seed), tiny, run=run, results=results)
            if arm == "cross_entropy":
                path = run.folder(results) / "record.json"
                write_json(path, read_json(path) | {"method": arm, "settings": experiment.settings(run)})
    return results


@pytest.mark.slow
def test_the_arm_stands_in_tables_beside_the_experiments_own(experiment, filled):
    assert "theirs" not in experiment.arms
    extended = with_external_arms(experiment, filled)
    assert arm_order(extended) == ["cross_entropy", "contextrast", "theirs"]
    assert arm_order(experiment) == ["cross_entropy", "contextrast"]
    assert [path.parent.name for path in external_records(experiment, filled)] == ["seed0", "seed1", "seed2"]
    (group,) = groups(extended, filled, ["region", "boundary@3px"])
    metrics = map(miou_of, ("region", "boundary@3px"))
    found = {(cell.arm, cell.metric): cell for cell in cells(extended, group, metrics)}
    for metric in ("miou", "boundary_miou@3px"):
        theirs, baseline = found["theirs", metric], found["cross_entropy", metric]
        assert (theirs.status, theirs.spread.runs) == ("done", 3)
        assert theirs.gain.difference == pytest.approx(theirs.spread.mean - baseline.spread.mean)
        assert theirs.gain.difference > 1
    assert found["contextrast", "miou"].status == "not run"
    write_tables(extended, filled)
    table = (filled / "reports" / "mine" / "tables" / "miou.csv").read_text()
    assert "tiny,hrnet_tiny,whole,miou,theirs,3,3," in table
    assert "theirs" in summary(experiment, Path("mine.yaml"), filled)


def test_an_arm_scored_on_other_images_is_not_compared(experiment, filled, tiny, tmp_path):
    run = external_run(filled, "tiny", "elsewhere", "mine", MODEL)
    val = tmp_path / "val"
    val.mkdir()
    for sample in tiny.samples("val"):
        cv2.imwrite(str(val / f"{sample.id}.png"), tiny.read_label(sample))
    score_predictions(val, tiny, split="val", run=run, results=filled)
    extended = with_external_arms(experiment, filled)
    (group,) = groups(extended, filled, ["region"])
    status = {cell.arm: cell.status for cell in cells(extended, group, [miou_of("region")])}
    assert "other images" in status["elsewhere"]


def test_folders_that_are_no_external_arms_are_not_shown(experiment, filled):
    own = filled / "runs" / "mine" / "tiny" / MODEL
    shutil.copytree(own / "cross_entropy", own / "left_over")  # an arm that was taken out of the experiment
    (own / "damaged" / "seed0").mkdir(parents=True)
    (own / "damaged" / "seed0" / "record.json").write_text("{")
    assert list(with_external_arms(experiment, filled).arms) == ["cross_entropy", "contextrast", "theirs"]


def test_an_external_record_in_the_place_of_a_method_is_not_taken_for_it(experiment, tiny, write_predictions, tmp_path):
    run = external_run(tmp_path, "tiny", "contextrast", "mine", MODEL)
    score_predictions(write_predictions(0.1), tiny, run=run, results=tmp_path)
    found = read_record(with_external_arms(experiment, tmp_path), run, tmp_path)
    assert isinstance(found, Missing)
    assert found.status == "stale"


def test_a_trained_runs_folder_is_refused_even_with_restart(tiny, write_predictions, tmp_path):
    run, folder = Run("mine", "tiny", MODEL, "contextrast", 0), write_predictions(0.1)
    run.folder(tmp_path).mkdir(parents=True)
    (run.folder(tmp_path) / "training.json").write_text("{}")
    for restart in (False, True):
        with pytest.raises(UserError, match=r"contextrast/seed0 holds a trained run.*--arm"):
            score_predictions(folder, tiny, run=run, results=tmp_path, restart=restart)
    assert [path.name for path in run.folder(tmp_path).iterdir()] == ["training.json"]


@pytest.mark.parametrize("left", ["record.json counts.npz curve.csv", "record.json counts.npz", "curve.csv"])
def test_a_record_that_was_handed_in_without_weights_is_refused_even_with_restart(
    tiny, write_predictions, experiment, tmp_path, left
):
    run, folder = experiment.run("tiny", MODEL, "contextrast", 0), write_predictions(0.1)
    for name in left.split():
        run.folder(tmp_path).mkdir(parents=True, exist_ok=True)
        (run.folder(tmp_path) / name).write_text("")
        if name == "record.json":
            make_record(experiment, run).save(run.folder(tmp_path) / name)
    before = {path.name: path.read_bytes() for path in run.folder(tmp_path).iterdir()}
    for restart in (False, True):
        with pytest.raises(UserError, match=r"contextrast/seed0 holds a trained run") as refusal:
            score_predictions(folder, tiny, run=run, results=tmp_path, restart=restart)
        assert "--restart" not in str(refusal.value)
    assert {path.name: path.read_bytes() for path in run.folder(tmp_path).iterdir()} == before


def test_other_predictions_replace_a_record_only_with_restart(tiny, write_predictions, tmp_path):
    run = Run("mine", "tiny", MODEL, "theirs", 0)
    path = run.folder(tmp_path) / "record.json"
    first = score_predictions(write_predictions(0.1), tiny, run=run, results=tmp_path)
    again = score_predictions(tmp_path / "predictions-0.1-0", tiny, absent="zero", run=run, results=tmp_path)
    assert again["predictions_sha256"] == first["predictions_sha256"]
    assert read_json(path)["absent"] == "zero"
    other = write_predictions(0.2)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"theirs/seed0 was made with other settings: predictions .*--restart"):
        score_predictions(other, tiny, run=run, results=tmp_path)
    assert path.read_bytes() == before
    second = score_predictions(other, tiny, run=run, results=tmp_path, restart=True)
    assert read_json(path)["scores"]["whole"] == second["scores"]


def test_the_key_defaults_to_the_only_place_with_runs_on_the_data_set(tmp_path):
    assert external_run(tmp_path, "tiny", "theirs", seed=3) == Run("external", "tiny", "external", "theirs", 3)
    Run("camvid-small", "tiny", "lite0_fpn", "contextrast", 0).folder(tmp_path).mkdir(parents=True)
    Run("other", "scenes", "hrnet_tiny", "contextrast", 0).folder(tmp_path).mkdir(parents=True)
    assert external_run(tmp_path, "tiny", "theirs") == Run("camvid-small", "tiny", "lite0_fpn", "theirs", 0)
    Run("camvid-small", "tiny", "hrnet_w48", "contextrast", 0).folder(tmp_path).mkdir(parents=True)
    with pytest.raises(UserError, match=r"--experiment camvid-small --model hrnet_w48; .*--model lite0_fpn"):
        external_run(tmp_path, "tiny", "theirs")
    assert external_run(tmp_path, "tiny", "theirs", model="hrnet_w48").experiment == "camvid-small"
    asked = external_run(tmp_path, "tiny", "theirs", "new", "segformer_b1")
    assert asked == Run("new", "tiny", "segformer_b1", "theirs", 0)
    assert external_run(tmp_path, "tiny", "theirs", "external", "external").model == "external"


def test_a_model_that_is_none_of_the_projects_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"unknown model 'lite0fpn': did you mean lite0_fpn\?"):
        external_run(tmp_path, "tiny", "theirs", "camvid-small", "lite0fpn")


@pytest.mark.parametrize(
    ("changed", "protocol", "said"),
    [
        ({}, "whole", ""),
        ({"experiment": "nosuch"}, "whole", r"no experiment file .*nosuch\.yaml: pass --experiment"),
        ({"experiment": "external"}, "whole", "no experiment has runs on tiny yet: pass --experiment"),
        ({"model": "lite0_fpn"}, "whole", r"mine\.yaml runs no lite0_fpn on tiny: pass --model hrnet_tiny"),
        ({"dataset": "scenes"}, "whole", r"mine\.yaml runs no hrnet_tiny on scenes: its data sets are tiny"),
        ({"arm": "contextrast"}, "whole", r"contextrast is an arm of .*mine\.yaml itself: .* --arm"),
        ({"seed": 3}, "whole", r"shows --seed 0, 1, 2 and not 3"),
        ({}, "ms_flip", r"shows --protocol whole and not ms_flip"),
    ],
)
def test_an_arm_that_no_report_shows_is_known_with_the_reason(experiment, tmp_path, changed, protocol, said):
    run = dataclasses.replace(Run("mine", "tiny", MODEL, "theirs", 0), **changed)
    why = why_not_shown(run, protocol, tmp_path / f"{run.experiment}.yaml")
    assert re.fullmatch(f".*{said}.*", why) if said else why == ""


def test_an_experiment_file_with_a_mistake_shows_no_arm(tmp_path):
    (tmp_path / "mine.yaml").write_text("arms: 1\n")
    assert "did you mean mine?" in why_not_shown(
        Run("mime", "tiny", MODEL, "theirs", 0), "whole", tmp_path / "mime.yaml"
    )
    assert "mine.yaml: arms" in why_not_shown(Run("mine", "tiny", MODEL, "theirs", 0), "whole", tmp_path / "mine.yaml")


def test_the_command_ends_with_the_report_that_shows_the_arm_or_says_that_none_does(
    experiment, write_predictions, tmp_path, monkeypatch, capsys
):
    def score(*more):
        given = ["score", "--predictions", str(predictions), "--dataset", "tiny", "--arm", "theirs", "--results", "out"]
        monkeypatch.setattr(sys, "argv", ["harness", *given, *more])
        assert cli.main() == 0
        return capsys.readouterr()

    predictions = write_predictions(0.1)
    (tmp_path / "config").mkdir()
    (tmp_path / "mine.yaml").rename(tmp_path / "config" / "mine.yaml")
    monkeypatch.chdir(tmp_path)
    shown = score("--experiment", "mine", "--model", MODEL)
    assert "warning" not in shown.err
    last = shown.out.splitlines()[-1]
    assert "report config/mine.yaml --results out" in last
    assert score("--experiment", "mine", "--model", MODEL, "--json").out.startswith("{")
    hidden = score("--experiment", "nosuch", "--model", MODEL)
    path = "out/runs/nosuch/tiny/hrnet_tiny/theirs/seed0/record.json"
    assert f"warning: no report shows {path}: there is no experiment file config/nosuch.yaml" in hidden.err
    assert "harness report" not in hidden.out


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(UserError, match="--seed must be 0 or larger"):
        external_run(tmp_path, "tiny", "theirs", seed=-1)
