"""TensorBoard's event files: what stands in them, and that training does not notice."""

import re
import sys
import tomllib
import types
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

from harness import cli, datasets
from harness.compute.machine import Machine
from harness.errors import UserError
from harness.evaluation.evaluate import load_network
from harness.models.inference import predict
from harness.training import board
from harness.training.board import Board, require_tensorboard
from harness.training.train import train
from harness.training.trainer import Trainer

COLORS = {0: (128, 128, 128), 1: (128, 0, 0), 2: (192, 192, 128)}  # of CamVid's first three classes
CPU = Machine("cpu", threads=1)


class StandIn:
    """Stands in for SummaryWriter and notes what it is told; `flushed` is what a kill leaves."""

    made: ClassVar[list["StandIn"]] = []

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step, self.scalars, self.images, self.flushed = folder, purge_step, [], [], 0
        StandIn.made.append(self)
        (path := board.Path(folder)).mkdir(parents=True, exist_ok=True)
        (path / f"events.{len(StandIn.made)}").touch()

    def add_scalar(self, tag, value, step):
        self.scalars.append((tag, step, value))

    def add_image(self, tag, picture, step, dataformats):
        assert dataformats == "HWC"
        self.images.append((tag, step, picture))

    def flush(self):
        self.flushed = len(self.scalars) + len(self.images)

    def close(self):
        pass  # what was flushed is all that counts


@pytest.fixture
def stand_in(monkeypatch):
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = StandIn
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(StandIn, "made", [])
    return StandIn.made


def fit(experiment, results, seed=0, **options):
    run = experiment.run("tiny", "hrnet_tiny", "contextrast", seed)
    record = train(experiment, run, results, CPU, root=datasets.resolve_root("tiny"), **options)
    return record, run.folder(results)


def curve_of(folder):
    return pd.read_csv(folder / "curve.csv").set_index("iteration")


def test_without_the_package_one_sentence_says_what_to_install(tmp_path, repository, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    config, results = repository / "config/smoke.yaml", tmp_path / "out"
    chosen = ["--dataset", "scenes", "--model", "hrnet_tiny", "--arm", "contextrast", "--results", str(results)]
    monkeypatch.setattr(sys, "argv", ["harness", "train", str(config), *chosen, "--tensorboard"])
    assert cli.main() == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    install = f"pip install {extras['tensorboard'][0]}"
    assert error.rstrip().endswith(install)
    assert install in (repository / "docs/faq.md").read_text()
    assert not (results / "runs").exists()


@pytest.mark.slow
def test_training_ends_in_the_same_bits_and_the_curve_is_in_the_events(experiment, stand_in, tmp_path):
    plain, folder = fit(experiment, tmp_path / "plain")
    record, watched = fit(experiment, tmp_path / "board", tensorboard=True)
    assert record.weights_hash == plain.weights_hash
    curve = curve_of(folder).drop(columns="seconds")
    pd.testing.assert_frame_equal(curve_of(watched).drop(columns="seconds"), curve, check_exact=True)
    assert not list(folder.glob("tensorboard*"))

    (writer,) = stand_in
    assert writer.folder == str(watched / "tensorboard")
    told = {(tag, step): value for tag, step, value in writer.scalars}
    assert len(told) == len(writer.scalars)  # nothing twice
    groups = {re.sub(".*/", "", tag, count=1) if "/" in tag else tag: tag for tag, _ in told}
    assert groups["cross_entropy"] == "losses/cross_entropy"
    assert groups["gradient_norm"] == "losses/gradient_norm"
    assert groups["misclassified_share"] == "diagnostics/misclassified_share"
    for name, column in curve.items():
        tag = next(tag for tag, _ in told if tag in (name, f"losses/{name}", f"diagnostics/{name}"))
        found = {step: value for (each, step), value in told.items() if each == tag}
        assert found == pytest.approx(column.dropna().to_dict())
    with np.load(watched / "diagnostics.npz") as stored:
        per_class = {name: stored[name] for name in stored.files if stored[name].ndim == 2}
    assert per_class
    for name, values in per_class.items():
        for row, step in zip(values, curve.index, strict=True):
            numbered = {"distance_bins": range(1, 7), "by_layer": range(1, 5)}
            places = numbered.get(name.partition("/")[0], ("Sky", "Building", "Pole"))
            for value, each in zip(row, places, strict=True):
                assert told.get((f"diagnostics/{name}/{each}", step), np.nan) == pytest.approx(value, nan_ok=True)


@pytest.mark.slow
def test_pictures_show_image_ground_truth_and_what_the_network_predicts_then(experiment, tiny, stand_in, tmp_path):
    _, folder = fit(experiment, tmp_path, tensorboard=True)
    (writer,) = stand_in
    samples = {sample.id: sample for sample in tiny.samples("test")}
    steps = [4, 8, 10]  # checkpoints, and the end
    assert [(tag, step) for tag, step, _ in writer.images] == [
        (f"examples/{each}", step) for step in steps for each in samples
    ]
    network = load_network(folder, "hrnet_tiny", 3, torch.device("cpu"))
    for tag, _, picture in writer.images[-len(samples) :]:
        image, label = tiny.read(samples[tag.removeprefix("examples/")])
        shown, truth, predicted = np.split(picture, 3, axis=1)
        np.testing.assert_array_equal(shown, image)
        valid = label != 255
        colors = np.array([COLORS[each] for each in range(3)], np.uint8)
        np.testing.assert_array_equal(truth[valid], colors[label[valid]])
        np.testing.assert_array_equal(predicted, colors[predict(network, image, "whole")])
    assert any(
        (one != other).any() for (_, _, one), (_, _, other) in zip(writer.images, writer.images[6:], strict=False)
    )


def test_drawing_leaves_generator_statistics_and_mode_as_they_were(experiment, tiny, stand_in, tmp_path):
    settings = experiment.settings(experiment.run("tiny", "hrnet_tiny", "contextrast", 0))
    trainer = Trainer(settings, 3, torch.device("cpu"))
    network = trainer.network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert any("running_mean" in name for name in before)
    generator = torch.get_rng_state()
    with Board(tmp_path, tiny, [], 0) as drawn:
        drawn.show(network, 1)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert len(stand_in[0].images) == 3


def test_a_board_takes_a_few_images_that_are_spread_over_the_split(experiment, tiny, stand_in, tmp_path, monkeypatch):
    many = [types.SimpleNamespace(id=str(number)) for number in range(11)]
    monkeypatch.setattr(tiny, "samples", lambda split: many)
    with Board(tmp_path, tiny, [], 0) as drawn:
        assert [sample.id for sample in drawn._samples] == ["0", "5", "10"]


@pytest.mark.slow
def test_without_memory_for_pictures_the_run_goes_on(experiment, stand_in, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(board, "predict", full)
    record, _ = fit(experiment, tmp_path, tensorboard=True)
    assert (record.status, record.micro_batch) == ("done", 2)
    assert capsys.readouterr().err.count("TensorBoard's pictures") == 1
    assert stand_in[0].scalars and not stand_in[0].images


@pytest.mark.slow
def test_a_continued_run_purges_what_came_after_its_checkpoint(experiment, stand_in, tmp_path, interrupted):
    with interrupted(7):
        fit(experiment, tmp_path, tensorboard=True)  # rows 2, 4 and 6; a checkpoint at 4
    fit(experiment, tmp_path, tensorboard=True)
    first, second = stand_in
    assert (first.purge_step, second.purge_step) == (1, 5)
    steps = [{step for _, step, _ in [*each.scalars, *each.images]} for each in stand_in]
    assert steps == [{2, 4, 6}, {6, 8, 10}]
    # What comes before a checkpoint is on the disk before it.
    assert first.flushed == len(first.scalars) + len(first.images)


@pytest.mark.slow
def test_a_board_that_comes_later_shows_the_whole_curve(experiment, stand_in, tmp_path, interrupted):
    with interrupted(5):
        fit(experiment, tmp_path)
    _, folder = fit(experiment, tmp_path, tensorboard=True)
    (writer,) = stand_in
    losses = {step: value for tag, step, value in writer.scalars if tag == "losses/loss"}
    assert losses == pytest.approx(curve_of(folder)["loss"].to_dict())


@pytest.mark.slow
def test_tensorboard_itself_reads_every_step_once_after_a_kill(experiment, tmp_path, interrupted):
    pytest.importorskip("tensorboard", reason="an extra that is not in the lock")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    whole, reference = fit(experiment, tmp_path / "whole")
    with interrupted(7):
        fit(experiment, tmp_path / "killed", tensorboard=True)
    record, folder = fit(experiment, tmp_path / "killed", tensorboard=True)
    assert record.weights_hash == whole.weights_hash
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    told = {event.step: event.value for event in events.Scalars("losses/loss")}
    assert len(told) == len(events.Scalars("losses/loss"))
    assert told == pytest.approx(curve_of(reference)["loss"].to_dict(), rel=1e-6)
    assert [event.step for event in events.Images("examples/test_0")] == [4, 8, 10]


def test_a_package_that_is_there_in_part_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"--tensorboard needs .* pip install tensorboard=="):
        require_tensorboard()
