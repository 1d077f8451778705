import json
import time

import numpy as np
import pytest
import torch

from harness.compute.machine import Machine
from harness.cost.arms import fill_memories, generated_batch
from harness.cost.complexity import parameters
from harness.cost.overhead import measure_overhead
from harness.cost.timing import Plan
from harness.errors import UserError
from harness.training.trainer import Trainer
from methods.class_queues import Queues

PLAN = Plan(warmup_iterations=2, warmup_seconds=0, rounds=5, settle=0, block=1)
PAUSE = 0.2  # seconds that every step with Contextrast sleeps here


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The path of a record, and every step's trainer, images, labels and iteration."""
    steps, step = [], Trainer.step

    def spy(self, images, labels, iteration, rate):
        steps.append((self, images, labels, iteration))
        if type(self.method).__name__ == "Contextrast":
            time.sleep(PAUSE)
        return step(self, images, labels, iteration, rate)

    options = {"batch": 2, "methods": ["contextrast"], "plan": PLAN}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", spy)
        results = tmp_path_factory.mktemp("results")
        return measure_overhead("hrnet_tiny", (64, 64), Machine("cpu"), results, **options), steps


@pytest.mark.slow
def test_a_record_holds_every_arms_samples_and_its_options_are_its_name(measured):
    path, _ = measured
    record = json.loads(path.read_text())
    threads = torch.get_num_threads()
    assert path.parts[-4:-2] == ("cost", "training")
    assert path.stem == f"hrnet_tiny-cityscapes-64x64-batch2-float32-channels_last-{threads}threads"
    assert list(record["arms"]) == ["cross_entropy", "contextrast"]
    assert all(np.array(arm["nanoseconds"]).shape == (5, 1) for arm in record["arms"].values())
    assert np.min(record["arms"]["contextrast"]["nanoseconds"]) >= PAUSE * 1e9


@pytest.mark.slow
def test_every_arm_makes_the_same_steps_on_the_same_inputs(measured):
    _, steps = measured
    arms = {id(trainer) for trainer, *_ in steps}
    assert len(arms) == 2
    for arm in arms:
        own = [iteration for trainer, _, _, iteration in steps if id(trainer) == arm]
        assert own == list(range(len(own)))
    (images,), (labels,) = ({id(step[part]): step[part] for step in steps}.values() for part in (1, 2))
    assert (images.shape, labels.shape) == ((2, 3, 64, 64), (2, 64, 64))


@pytest.mark.slow
def test_memory_is_the_state_and_what_a_step_adds(measured):
    path, steps = measured
    plain, ours = (json.loads(path.read_text())["arms"][name] for name in ("cross_entropy", "contextrast"))
    # Float32 weights, momentum and, at the end of the backward pass, gradients.
    assert plain["peak_bytes"] > 12 * plain["parameters"]
    heads = ours["parameters"] - plain["parameters"]
    assert ours["peak_bytes"] > plain["peak_bytes"] + 8 * heads
    methods = {type(trainer.method).__name__: trainer.method for trainer, *_ in steps}
    assert heads == parameters(methods["Contextrast"])


def test_memories_are_full_of_unit_vectors():
    method = torch.nn.ModuleList([Queues(3, 5, 4), torch.nn.ModuleList([Queues(2, 1, 7)])])
    fill_memories(method)
    for queues in (method[0], method[1][0]):
        assert queues.fill().tolist() == [1.0] * len(queues.filled)
        torch.testing.assert_close(queues.vectors.norm(dim=-1), torch.ones(queues.vectors.shape[:2]))


@pytest.mark.parametrize("size", [(64, 128), (50, 70), (200, 64)])
def test_generated_labels_are_the_same_every_time_and_in_a_color_a_class(size):
    images, labels = generated_batch(19, 3, size)
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == (
        (3, 3, *size),
        torch.uint8,
        (3, *size),
        torch.int64,
    )
    assert labels.min() == 0 and sorted({*range(19), 255} | set(labels.unique().tolist())) == [*range(19), 255]
    common = [n for n in range(19) if (labels == n).sum() > 500]
    assert len(common) > 5
    means = [images.movedim(1, -1)[labels == n].float().mean(0) for n in common]
    assert min(float((a - b).abs().max()) for i, a in enumerate(means) for b in means[:i]) > 5
    again = generated_batch(19, 3, size)
    assert torch.equal(again[0], images) and torch.equal(again[1], labels)


def test_generated_labels_have_areas_and_classes_as_uneven_as_street_scenes():
    _, labels = generated_batch(11, 32, (180, 240))
    pixels = torch.bincount(labels.flatten(), minlength=256).double()
    assert 0.02 < pixels[255] / pixels.sum() < 0.045  # CamVid: 0.04
    shares = pixels[:11] / pixels[:11].sum()
    # 1, q, q^2 ... with q^10 = 1/200, over their sum: each class within the scatter of 12,800 cells.
    expected = (1 / 200) ** (torch.arange(11) / 10)
    expected /= expected.sum()
    scatter = (2 * expected * (1 - expected) / 12_800).sqrt()  # areas of Voronoi cells vary, too
    assert ((shares - expected).abs() < 4 * scatter).all()
    assert (labels[:, 1:] == labels[:, :-1]).double().mean() > 0.85  # areas, not noise
    classes = [len(set(label.unique().tolist()) - {255}) for label in labels]
    assert 8 < sum(classes) / len(classes) < 11  # CamVid: 9.6


def test_unknown_names_are_refused(tmp_path):
    for keys, words in (
        ({"methods": ["contextrasd"]}, "did you mean contextrast"),
        ({"precision": "bfloat"}, "unknown precision 'bfloat': did you mean bfloat16"),
    ):
        with pytest.raises(UserError, match=words):
            measure_overhead("hrnet_tiny", (64, 64), Machine("cpu"), tmp_path, **keys)
