"""Learning rates and weight decays of a network's parts, against mmengine's own optimiser constructor."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from harness.experiment.schema import Experiment
from harness.training.trainer import Trainer

SEGFORMER = {"fit": [2048, 512], "undecayed": ["pos_block", "norm"], "head_rate": 10}
ADAMW = {"optimizer": "adamw", "learning_rate": 6e-5, "weight_decay": 0.01}


def trainer_of(experiment_file, model, arm, **schedule):
    plain = {"iterations": 10, "batch": 2, "crop": [64, 64], "learning_rate": 0.1, "log_every": 5}
    path = experiment_file(datasets=["camvid"], models=[model], schedule=plain | schedule)
    experiment = Experiment.load(path)
    settings = experiment.settings(experiment.run("camvid", model, arm, 0))
    return Trainer(settings, 11, torch.device("cpu"), weights="none")


def by_parameter(optimizer):
    """{id of a parameter: (learning rate, weight decay)}."""
    return {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}


def step(trainer, rate):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    trainer.step(images, torch.randint(0, 11, (2, 64, 64)), 0, rate)


def test_parts_of_a_network_are_trained_as_mmengine_trains_them(experiment_file):
    trainer = trainer_of(experiment_file, "segformer_b0", "contextrast", **SEGFORMER, **ADAMW)
    rules = {"pos_block": {"decay_mult": 0.0}, "norm": {"decay_mult": 0.0}, "head": {"lr_mult": 10.0}}
    wrapper = {
        "type": "OptimWrapper",
        "optimizer": {"type": "AdamW", "lr": 6e-5, "betas": (0.9, 0.999), "weight_decay": 0.01},
        "paramwise_cfg": {"custom_keys": rules},
    }
    wanted = by_parameter(build_optim_wrapper(trainer.network, wrapper).optimizer)
    step(trainer, rate=6e-5)
    found = by_parameter(trainer.optimizer)
    for name, parameter in trainer.network.named_parameters():
        assert found[id(parameter)] == pytest.approx(wanted[id(parameter)]), name
    for parameter in trainer.method.parameters():  # new, as the heads are
        assert found[id(parameter)] == pytest.approx((6e-4, 0.01))
    assert len({wanted[id(parameter)] for parameter in trainer.network.parameters()}) == 3


def test_without_rules_there_is_one_group_in_the_order_of_the_parameters(experiment_file):
    trainer = trainer_of(experiment_file, "hrnet_tiny", "contextrast", weight_decay=0.01)
    (group,) = trainer.optimizer.param_groups
    both = nn.ModuleList([trainer.network, trainer.method])
    assert [id(p) for p in group["params"]] == [id(p) for p in both.parameters()]
    step(trainer, rate=0.07)
    assert (group["lr"], group["weight_decay"]) == (0.07, 0.01)
