"""A method may take the place of the main head's cross entropy, or part of it, from its start on."""

import pytest
import torch

from harness.cost.arms import LEARNING_RATE, generated_batch, schedule
from harness.training.trainer import Trainer


def terms_of(weight, monkeypatch, starts_at=0.0, iterations=2, method="deep_supervision", ends_at=1.0):
    """The terms of each of two steps, the second after an update."""
    monkeypatch.setattr("methods.method.Method.cross_entropy_weight", weight)
    given = schedule(2, (64, 64)).model_copy(update={"iterations": iterations})
    settings = {"model": "hrnet_tiny", "method": method, "options": {}, "seed": 0, "starts_at": starts_at}
    settings["ends_at"] = ends_at
    trainer = Trainer(settings | {"schedule": given.model_dump(mode="json")}, 4, torch.device("cpu"), "none")
    steps = [trainer.step(*generated_batch(4, 2, (64, 64)), i, LEARNING_RATE) for i in range(iterations)]
    return [{name: value.item() for name, value in step.items() if not value.dim()} for step in steps]


def test_the_weight_multiplies_the_cross_entropy_alone(monkeypatch):
    whole, quarter = terms_of(1.0, monkeypatch), terms_of(0.25, monkeypatch)
    assert quarter[0]["cross_entropy"] == pytest.approx(0.25 * whole[0]["cross_entropy"], rel=1e-6)
    assert quarter[0]["deep_supervision"] == whole[0]["deep_supervision"]
    assert quarter[0]["loss"] == pytest.approx(quarter[0]["cross_entropy"] + quarter[0]["deep_supervision"], rel=1e-6)
    assert quarter[1]["deep_supervision"] != whole[1]["deep_supervision"]  # another gradient has moved the network


def test_before_the_methods_start_the_cross_entropy_is_whole(monkeypatch):
    whole, half = terms_of(1.0, monkeypatch, starts_at=0.5), terms_of(0.25, monkeypatch, starts_at=0.5)
    assert half[0] == whole[0]
    assert half[1]["cross_entropy"] == pytest.approx(0.25 * whole[1]["cross_entropy"], rel=1e-6)


def test_after_the_methods_end_the_cross_entropy_is_whole_and_alone(monkeypatch):
    method, alone = (terms_of(0.0, monkeypatch, iterations=4, ends_at=end) for end in (1.0, 0.5))
    assert alone[:2] == method[:2]
    assert [step["cross_entropy"] for step in method] == [0] * 4
    for step in alone[2:]:
        assert step["deep_supervision"] == 0
        assert step["loss"] == step["cross_entropy"] > 0


def test_only_beside_the_whole_cross_entropy_are_gradients_compared(monkeypatch):
    (beside,), (instead,) = (terms_of(weight, monkeypatch, iterations=1) for weight in (1.0, 0.0))
    assert beside["gradient_ratio"] > 0
    assert "gradient_ratio" not in instead


def test_in_micro_batches_the_weight_counts_once(monkeypatch):
    monkeypatch.setattr("methods.method.Method.cross_entropy_weight", 0.25)
    given = schedule(4, (64, 64)).model_dump(mode="json")
    settings = {"model": "hrnet_tiny", "method": "cross_entropy", "options": {}, "seed": 0, "schedule": given}
    images, labels = generated_batch(4, 2, (64, 64))
    found = []
    for micro_batch in (4, 2):  # of two images, each twice: batch norm sees the same
        trainer = Trainer(settings, 4, torch.device("cpu"), "none")
        trainer.micro_batch = micro_batch
        terms = trainer.step(images.repeat(2, 1, 1, 1), labels.repeat(2, 1, 1), 0, LEARNING_RATE)
        found.append((terms["cross_entropy"].item(), terms["gradient_norm"].item()))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_the_trainer_tells_the_method_how_logits_are_resized():
    given = schedule(2, (64, 64)).model_dump(mode="json")
    settings = {"model": "hrnet_tiny", "method": "cross_entropy", "options": {}, "seed": 0, "schedule": given}
    trainer = Trainer(settings, 4, torch.device("cpu"), "none")
    assert trainer.method.align_corners is trainer.network.align_corners
