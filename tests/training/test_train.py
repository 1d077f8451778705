import numpy as np
import pandas as pd
import pytest
import torch

from harness import datasets, models
from harness.compute.machine import Machine
from harness.errors import UserError
from harness.evaluation.evaluate import evaluate
from harness.experiment.schema import Experiment
from harness.runs import state
from harness.runs.failures import skip
from harness.runs.record import Record, inference_weights
from harness.training import checkpoint
from harness.training.train import _verified, train
from harness.training.trainer import Trainer

pytestmark = pytest.mark.slow


def run_of(experiment, arm="contextrast", seed=0):
    return experiment.run("tiny", "hrnet_tiny", arm, seed)


def fit(experiment, run, results, machine, **options):
    return train(experiment, run, results, machine, root=datasets.resolve_root("tiny"), **options)


def test_an_interrupted_run_ends_in_the_same_bits_with_any_number_of_workers(experiment, tmp_path, interrupted):
    run = run_of(experiment)
    whole = fit(experiment, run, tmp_path / "whole", Machine("cpu", threads=1))
    assert whole.status == "done"
    for workers, at in ((0, 6), (1, 9), (2, 5)):
        results = tmp_path / f"workers{workers}"
        with interrupted(at):
            fit(experiment, run, results, Machine("cpu", workers=workers, threads=1))
        assert not (run.folder(results) / "training.json").exists()
        continued = fit(experiment, run, results, Machine("cpu", workers=workers, threads=1))
        assert continued.weights_hash == whole.weights_hash
        curves = [pd.read_csv(run.folder(folder) / "curve.csv") for folder in (tmp_path / "whole", results)]
        pd.testing.assert_frame_equal(*[curve.drop(columns="seconds") for curve in curves], check_exact=True)
        # What pixels looked like before training is that of then, not of the weights it was continued with.
        files = [np.load(run.folder(folder) / "embeddings.npz") for folder in (tmp_path / "whole", results)]
        assert {"before/points1", "after/points1"} <= set(files[0].files) == set(files[1].files)
        for name in files[0].files:
            np.testing.assert_array_equal(files[0][name], files[1][name])


def test_a_warning_about_the_data_is_printed_when_they_are_first_read(experiment, tiny, tmp_path, capsys):
    first, second = (tiny.samples(split)[0].image_path for split in ("train", "test"))
    first.write_bytes(second.read_bytes())
    for times in (1, 0):
        _verified(experiment, run_of(experiment), tiny, tmp_path / "results", keep_going=False)
        assert capsys.readouterr().err.count("warning: train: 1 image of other splits") == times


def test_the_network_starts_alike_for_every_arm_and_differs_between_seeds(experiment):
    def start(arm, seed):
        settings = experiment.settings(run_of(experiment, arm, seed))
        state = Trainer(settings, 3, torch.device("cpu")).network.state_dict()
        return torch.cat([tensor.flatten().float() for tensor in state.values()])

    assert torch.equal(start("cross_entropy", 0), start("contextrast", 0))
    assert not torch.equal(start("cross_entropy", 0), start("cross_entropy", 1))


def test_a_finished_run_is_not_trained_again_and_one_of_other_settings_is_set_aside(
    experiment, experiment_file, tmp_path, monkeypatch, capsys
):
    run, machine = run_of(experiment), Machine("cpu", threads=1)
    first = fit(experiment, run, tmp_path, machine)
    assert fit(experiment, run, tmp_path, machine) == first
    other = Experiment.load(experiment_file(datasets=["tiny"]), ["schedule.learning_rate=0.05"])
    second = fit(other, run, tmp_path, machine)
    assert second.weights_hash != first.weights_hash
    assert "schedule.learning_rate (0.1 there, 0.05 asked)" in capsys.readouterr().err
    (kept,) = run.folder(tmp_path).parent.glob("seed0.stale-*")
    assert Record.load(kept / "training.json") == first
    # The first settings again: what was trained with them comes back, and nothing is trained.
    monkeypatch.setattr(Trainer, "step", None)
    assert fit(experiment, run, tmp_path, machine) == first
    (kept,) = run.folder(tmp_path).parent.glob("seed0.stale-*")
    assert Record.load(kept / "training.json") == second


def test_a_checkpoint_of_other_settings_is_set_aside(experiment, experiment_file, tmp_path, interrupted):
    run, machine = run_of(experiment), Machine("cpu", threads=1)
    skip(experiment, run, tmp_path, "no root")  # which no longer counts once training has begun
    with interrupted(6):
        fit(experiment, run, tmp_path, machine)
    other = Experiment.load(experiment_file(datasets=["tiny"]), ["schedule.iterations=12"])
    assert state.read_record(experiment, run, tmp_path) == state.Missing("unfinished")
    found = state.read_record(other, run, tmp_path)
    assert found == state.Missing("stale", "schedule.iterations (10 there, 12 asked)")
    assert fit(other, run, tmp_path, machine).iterations == 12
    (kept,) = run.folder(tmp_path).parent.glob("seed0.stale-*")
    assert checkpoint.load_newest(kept / "checkpoints")["iteration"] == 4


def test_a_run_that_diverges_leaves_a_record_that_says_where(experiment, experiment_file, tmp_path, monkeypatch):
    step = Trainer.step

    def poisoned(self, images, labels, iteration, rate):
        if iteration == 3:
            with torch.no_grad():
                self.parameters[0].fill_(float("nan"))
        return step(self, images, labels, iteration, rate)

    monkeypatch.setattr(Trainer, "step", poisoned)
    run = run_of(experiment)
    record = fit(experiment, run, tmp_path, Machine("cpu", threads=1))
    assert (record.status, record.weights_hash) == ("diverged", None)
    assert record.reason == "loss or gradient is not finite at iteration 3"
    # What was saved last is from before.
    state = checkpoint.load_newest(run.folder(tmp_path) / "checkpoints")
    assert state is None or state["iteration"] <= 3
    evaluated = evaluate(run.folder(tmp_path), Machine("cpu"))
    assert (evaluated.status, evaluated.scores) == ("diverged", {})
    assert Record.load(run.folder(tmp_path) / "record.json").status == "diverged"


def test_an_arm_that_starts_later_trains_like_cross_entropy_until_then_and_its_memory_fills(
    experiment_file, tiny_data, tmp_path
):
    late = {"method": "pixel_contrast", "memory": True, "starts_at": 0.45}
    experiment = Experiment.load(experiment_file(datasets=["tiny"], arms={"cross_entropy": {}, "late": late}))
    curves = {}
    for arm in ("cross_entropy", "late"):
        run = run_of(experiment, arm)
        assert fit(experiment, run, tmp_path, Machine("cpu", threads=1)).status == "done"
        curves[arm] = pd.read_csv(run.folder(tmp_path) / "curve.csv").set_index("iteration")
    # Of ten iterations the first five are before the start; a row holds two.
    term = curves["late"]["pixel_contrast"]
    assert (term.loc[:4] == 0).all()
    assert (term.loc[6:] > 0).all()
    assert curves["late"]["cross_entropy"].loc[:4].tolist() == curves["cross_entropy"]["cross_entropy"].loc[:4].tolist()
    assert curves["late"]["anchors"].loc[2] > 0


def test_a_run_whose_term_never_counted_is_failed(experiment_file, tiny_data, tmp_path):
    arms = {"cross_entropy": {}, "contextrast": {"weight": 0}}
    experiment = Experiment.load(experiment_file(datasets=["tiny"], arms=arms))
    record = fit(experiment, run_of(experiment), tmp_path, Machine("cpu", threads=1))
    assert (record.status, record.reason) == ("failed", "the terms of contextrast were 0 in all 10 iterations")


SCALAR = torch.ones(())


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        (SCALAR, "must return a dict .*, not Tensor"),
        (None, "must return a dict .*, not NoneType"),
        ({}, "returns no term"),
        ({"a": 0.1}, "a is float"),
        ({"a": torch.ones(1)}, r"a is a tensor \[1\]"),
        ({"a": SCALAR}, "a without a gradient"),
        ({"cross_entropy": SCALAR}, "calls a term 'cross_entropy'"),  # which it would replace
        ({1: SCALAR}, "calls a term 1"),
    ],
)
def test_terms_that_break_the_contract_are_named(experiment_file, monkeypatch, terms, words):
    monkeypatch.setattr("methods.deep_supervision.DeepSupervision.loss", lambda *_: terms)
    experiment = Experiment.load(
        experiment_file(datasets=["scenes"], arms={"deep_supervision": {}}, baseline="deep_supervision")
    )
    settings = experiment.settings(experiment.run("scenes", "hrnet_tiny", "deep_supervision", 0))
    trainer = Trainer(settings, 11, torch.device("cpu"))
    with pytest.raises(ValueError, match=f"DeepSupervision.loss .*{words}"):
        trainer.step(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.zeros(2, 64, 64), 0, 0.1)


def test_a_batch_without_terms_stops_no_training_that_had_some(experiment_file, tiny_data, tmp_path, monkeypatch):
    from methods.deep_supervision import DeepSupervision

    whole = DeepSupervision.loss
    monkeypatch.setattr(DeepSupervision, "loss", lambda self, *given: {} if given[-1] == 3 else whole(self, *given))
    arms = {"cross_entropy": {}, "deep_supervision": {}}
    experiment = Experiment.load(experiment_file(datasets=["tiny"], arms=arms))
    run = run_of(experiment, "deep_supervision")
    assert fit(experiment, run, tmp_path, Machine("cpu", threads=1)).status == "done"
    # A row holds two of the ten iterations; the mean is over the one that had the term.
    term = pd.read_csv(run.folder(tmp_path) / "curve.csv")["deep_supervision"]
    assert (term > 0).all()


def test_options_that_only_the_built_method_refuses_are_the_users_mistake(
    experiment_file, tiny_data, tmp_path, monkeypatch
):
    from methods.contextrast import Contextrast

    def refuse(self, *arguments, **options):
        raise ValueError("temperature is 0.2, but must suit the network")

    monkeypatch.setattr(Contextrast, "__init__", refuse)
    arms = {"cross_entropy": {}, "contextrast": {"temperature": 0.2}}
    experiment = Experiment.load(experiment_file(datasets=["tiny"], arms=arms))
    with pytest.raises(UserError, match="contextrast refuses its options: temperature"):
        fit(experiment, run_of(experiment), tmp_path, Machine("cpu"))
    assert not run_of(experiment).folder(tmp_path).exists()


def test_evaluation_writes_counts_predictions_and_a_record_that_agree(experiment, tmp_path):
    import cv2
    from safetensors.torch import load_file

    from harness.evaluation.counts import Counts, confusion_image

    run = run_of(experiment)
    trained = fit(experiment, run, tmp_path, Machine("cpu", threads=1))
    folder = run.folder(tmp_path)
    record = evaluate(folder, Machine("cpu", threads=1), protocols=["whole", "ms_flip"])
    assert Record.load(folder / "record.json") == record
    assert record.root is None  # a path of this machine
    for key in ("key", "method", "options", "status", "iterations", "weights_hash", "provenance", "seconds"):
        assert getattr(record, key) == getattr(trained, key)

    # Nothing of the method or of an auxiliary head is left.
    names = set(load_file(inference_weights(folder)))
    assert all(name.startswith(("backbone.", "decode_head.")) for name in names)

    counts = Counts.load(folder / "counts.npz")
    assert counts.image_ids == ["test_0", "test_1", "test_2"]
    data = datasets.load("tiny", tiny_root := datasets.resolve_root("tiny"))
    assert tiny_root.name == "tiny"
    confusion = np.zeros((3, 3), np.int64)
    for sample in data.samples("test"):
        predicted = cv2.imread(str(folder / "predictions" / "whole" / f"{sample.id}.png"), cv2.IMREAD_UNCHANGED)
        confusion += confusion_image(predicted, data.read_label(sample), 3)
    with np.load(folder / "confusion.npz") as stored:
        assert (stored["whole"] == confusion).all()
        assert set(stored.files) == {"whole", "ms_flip"}
    diagonal = np.diag(confusion)
    iou = 100 * diagonal / (confusion.sum(0) + confusion.sum(1) - diagonal)
    assert record.scores["whole"]["miou"] == pytest.approx(iou.mean(), rel=1e-12)
    assert record.per_class["whole"]["iou"]["Sky"] == pytest.approx(iou[0], rel=1e-12)
    assert {"boundary_miou@3px", "boundary_miou@0.02", "trimap_miou@3px"} <= record.scores["ms_flip"].keys()


def test_a_record_says_what_of_the_initial_weights_did_not_fit(experiment, tmp_path):
    torch.save(models.build("hrnet_tiny", 5).state_dict(), tmp_path / "other_classes.pth")
    run = run_of(experiment)
    fit(experiment, run, tmp_path, Machine("cpu", threads=1), weights=str(tmp_path / "other_classes.pth"))
    record = evaluate(run.folder(tmp_path), Machine("cpu", threads=1))
    head = ["decode_head.conv_seg.weight", "decode_head.conv_seg.bias"]
    assert record.initial_weights.model_dump() == {"file": "other_classes.pth", "unused": head, "unfilled": head}


@pytest.mark.parametrize(
    ("arm", "overrides"),
    [
        ("contextrast", ["schedule.precision=bfloat16"]),
        (
            "cross_entropy",
            ["schedule.optimizer=adamw", "schedule.learning_rate=0.001", "schedule.class_weights=[1,2,3]"],
        ),
    ],
)
def test_a_run_of_other_settings_ends(experiment_file, tiny_data, tmp_path, arm, overrides):
    experiment = Experiment.load(experiment_file(datasets=["tiny"]), overrides)
    record = fit(experiment, run_of(experiment, arm), tmp_path, Machine("cpu", threads=1, cache="ram"))
    assert record.status == "done"
