"""Training with few labels: a share of the training images."""

import itertools

import pytest

from harness import datasets
from harness.errors import UserError
from harness.experiment.schema import Experiment, Schedule
from harness.training.samples import training_images

GIVEN = {"iterations": 10, "batch": 2, "crop": (32, 48), "learning_rate": 0.01}


def images(share, tiny_data):
    dataset = datasets.load("tiny", tiny_data)
    return training_images(dataset, Schedule(**GIVEN, train_share=share))


def test_all_images_in_their_order_are_the_default(tiny_data):
    dataset = datasets.load("tiny", tiny_data)
    assert training_images(dataset, Schedule(**GIVEN)) == dataset.samples(dataset.train_split)


def test_a_smaller_share_is_a_part_of_a_larger_one(tiny_data):
    found = [images(share, tiny_data) for share in (0.01, 0.34, 0.5, 0.84, 1.0)]
    assert [len(each) for each in found] == [1, 2, 3, 5, 6]
    for smaller, larger in itertools.pairwise(found):
        assert [each for each in larger if each in smaller] == smaller


def test_the_share_is_a_setting_of_the_run_and_absent_where_it_is_one(experiment_file):
    experiment = Experiment.load(experiment_file(), ["schedule.train_share=0.25"])
    run = experiment.runs()[0]
    assert experiment.settings(run)["schedule"]["train_share"] == 0.25
    assert experiment.name.endswith("+train_share=0.25")
    assert "train_share" not in Experiment.load(experiment_file()).settings(run)["schedule"]
    for share in (0, 1.5):
        with pytest.raises(UserError, match=r"schedule\.train_share"):
            Experiment.load(experiment_file(), [f"schedule.train_share={share}"])
