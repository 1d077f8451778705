"""Settings that train nothing, or that would break later, are refused when the experiment is read, with the key."""

import pytest
import torch

from harness import models
from harness.errors import UserError
from harness.experiment.schema import Experiment

CLASSES = 11  # of scenes


def test_one_class_may_weigh_nothing(experiment_file):
    weights = [0.0] + [1.0] * (CLASSES - 1)
    assert Experiment.load(experiment_file(), [f"schedule.class_weights={weights}"]).schedule.class_weights[0] == 0


def test_a_seed_of_the_command_line_is_as_small(experiment_file):
    experiment = Experiment.load(experiment_file())
    arm = experiment.baseline
    with pytest.raises(UserError, match="--seed must be from 0 to 4294967295"):
        experiment.run("scenes", "hrnet_tiny", arm, 2**64)


@pytest.mark.parametrize(
    ("model", "crop", "refused"),
    [
        ("deeplabv3_r101", 512, True),
        ("upernet_swin_t", 512, True),
        ("upernet_swin_t_stages", 512, True),
        ("hrnet_tiny", 32, True),
        ("hrnet_tiny", 64, False),
        ("mobilenet_v2_d8", 512, False),
    ],
)
def test_a_batch_of_one_image_needs_maps_of_several_values(experiment_file, model, crop, refused):
    overrides = [f"models=[{model}]", "schedule.batch=1", f"schedule.crop=[{crop},{crop}]"]
    if refused:
        with pytest.raises(UserError, match=f"schedule.batch is 1, but {model}"):
            Experiment.load(experiment_file(), overrides)
    else:
        assert Experiment.load(experiment_file(), overrides).schedule.batch == 1
    overrides[1] = "schedule.batch=2"
    assert Experiment.load(experiment_file(), overrides).schedule.batch == 2


def test_what_the_models_say_of_batches_of_one_is_so():
    network = models.build("hrnet_tiny", 3, weights="none").train()
    network.decode(network.features(torch.zeros(1, 3, 64, 64)))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network.decode(network.features(torch.zeros(1, 3, 32, 32)))


def test_an_image_that_is_too_small_for_a_network_is_said_to_be(experiment_file):
    with pytest.raises(UserError, match=r"schedule\.crop is \[28, 64\], but segformer_b0 takes images of 29x29"):
        Experiment.load(experiment_file(), ["models=[segformer_b0]", "schedule.crop=[28,64]"])
    network = models.build("segformer_b0", 3, weights="none").eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 29, 30)).shape[:2] == (1, 3)
        with pytest.raises(UserError, match=r"at least 29x29 .* one is 40x28"):
            network(torch.zeros(1, 3, 28, 40))


def test_what_limits_a_model_is_no_part_of_a_runs_settings():
    assert not {"smallest_image", "pools_to_one"} & models.load_spec("segformer_b0").model_dump().keys()
