"""config/paper.yaml against the paper's table of training settings and mmsegmentation's own configurations."""

import csv
from pathlib import Path

import mmseg
import pytest
from mmengine.config import Config

from harness.experiment.schema import Experiment

CONFIGS = Path(mmseg.__file__).parent / ".mim" / "configs"
WITHOUT_MODEL = "mask2former_swin_t"  # needs mmdetection
ODD = {("mobilenet_v2_d8", "weight_decay")}  # printed 0.01, mmsegmentation has 0.0005
# mmsegmentation's configuration of each pair, or of the nearest that it has; it has none for CamVid.
NEAREST = {
    ("cityscapes", "deeplabv3_r101"): "deeplabv3/deeplabv3_r101-d8_4xb2-40k_cityscapes-512x1024.py",
    ("cityscapes", "hrnet_w48"): "hrnet/fcn_hr48_4xb2-40k_cityscapes-512x1024.py",
    ("cityscapes", "ocrnet_hrnet_w48"): "ocrnet/ocrnet_hr48_4xb2-40k_cityscapes-512x1024.py",
    ("cityscapes", "mobilenet_v2_d8"): "mobilenet_v2/mobilenet-v2-d8_fcn_4xb2-80k_cityscapes-512x1024.py",
    ("cityscapes", "segformer_b0"): "segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py",
    ("ade20k", "deeplabv3_r101"): "deeplabv3/deeplabv3_r101-d8_4xb4-80k_ade20k-512x512.py",
    ("ade20k", "hrnet_w48"): "hrnet/fcn_hr48_4xb4-80k_ade20k-512x512.py",
    ("ade20k", "ocrnet_hrnet_w48"): "ocrnet/ocrnet_hr48_4xb4-80k_ade20k-512x512.py",
    ("ade20k", "segformer_b0"): "segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py",
    ("ade20k", "segformer_b1"): "segformer/segformer_mit-b1_8xb2-160k_ade20k-512x512.py",
    ("pascal_context", "deeplabv3_r101"): "deeplabv3/deeplabv3_r101-d8_4xb4-40k_pascal-context-59-480x480.py",
    ("pascal_context", "hrnet_w48"): "hrnet/fcn_hr48_4xb4-40k_pascal-context-59-480x480.py",
    ("coco_stuff10k", "deeplabv3_r101"): "deeplabv3/deeplabv3_r101-d8_4xb4-40k_coco-stuff10k-512x512.py",
}


@pytest.fixture(scope="module")
def paper(repository) -> Experiment:
    return Experiment.load(repository / "config" / "paper.yaml")


def rows(repository, name):
    with (repository / "results" / "published" / name).open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["model"] != WITHOUT_MODEL]


def test_settings_are_those_of_the_papers_table(paper, repository):
    found = rows(repository, "training_settings.csv")
    assert len(found) == 18
    for row in found:
        schedule = paper.schedule_of(row["dataset"], row["model"])
        wanted = {
            "crop": tuple(map(int, row["crop"].split("x"))),
            "learning_rate": float(row["learning_rate"]),
            "weight_decay": float(row["weight_decay"]),
            "optimizer": row["optimizer"],
            "policy": row["policy"],
            "batch": int(row["batch"]),
            "iterations": int(row["iterations"]),
            "precision": "float32",
        }
        if schedule.optimizer == "sgd":  # AdamW has no momentum of that meaning
            wanted["momentum"] = float(row["momentum"])
        for key, value in wanted.items():
            if (row["model"], key) not in ODD:
                assert getattr(schedule, key) == value, (row["dataset"], row["model"], key)


@pytest.mark.parametrize("table", ["miou_main.csv", "miou_other_backbones.csv", "cost_cityscapes.csv"])
def test_every_published_figure_has_its_runs(paper, repository, table):
    found = {(run.dataset, run.model, run.arm) for run in paper.runs()}
    assert {(row["dataset"], row["model"], row["method"]) for row in rows(repository, table)} <= found
    assert paper.seeds == [0, 1, 2]
    assert {"whole", "ms_flip"} <= set(paper.protocols)


@pytest.mark.parametrize(("dataset", "model"), NEAREST)
def test_what_the_table_does_not_say_is_mmsegmentations(paper, dataset, model):
    schedule, config = paper.schedule_of(dataset, model), Config.fromfile(CONFIGS / NEAREST[dataset, model])
    resize, crop, flip, distortion = (
        next(step for step in config.train_pipeline if step["type"] == name)
        for name in ("RandomResize", "RandomCrop", "RandomFlip", "PhotoMetricDistortion")
    )
    assert schedule.scale == resize["ratio_range"]
    assert schedule.fit == (None if dataset == "cityscapes" else resize["scale"])  # Cityscapes' images are 2048x1024
    assert (schedule.flip, crop["cat_max_ratio"]) == (flip["prob"], 0.75)
    assert schedule.photometric is not None
    assert distortion.keys() == {"type"}  # its defaults, as ours
    *warmup, decay = config.param_scheduler
    assert schedule.minimum_learning_rate == decay["eta_min"]
    assert (schedule.power if schedule.policy == "poly" else 1.0) == decay["power"]
    assert schedule.warmup == (warmup[0]["end"] if warmup else 0)
    assert schedule.warmup_ratio == (warmup[0]["start_factor"] if warmup else 0)
    parts = config.optim_wrapper.get("paramwise_cfg", {}).get("custom_keys", {})
    assert set(schedule.undecayed) == {part for part, rule in parts.items() if rule.get("decay_mult") == 0}
    assert schedule.head_rate == parts.get("head", {}).get("lr_mult", 1)
    optimizer = config.optim_wrapper.optimizer
    assert optimizer["type"].lower() == schedule.optimizer
    if (model, "weight_decay") in ODD:
        assert schedule.weight_decay == optimizer["weight_decay"]
    if optimizer["type"] == "AdamW":
        assert optimizer["betas"] == (0.9, 0.999)
    heads = config.model.decode_head
    assert all(head.loss_decode.get("class_weight") is None for head in (heads if isinstance(heads, list) else [heads]))
    assert schedule.class_weights is None


def test_swin_is_trained_as_mmsegmentation_trains_it_on_ade20k(paper):
    """mmsegmentation has no Swin for Cityscapes: all but crop, batch and iterations is its ADE20K configuration's."""
    config = Config.fromfile(CONFIGS / "swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py")
    schedule = paper.schedule_of("cityscapes", "upernet_swin_t")
    optimizer, parts = config.optim_wrapper.optimizer, config.optim_wrapper.paramwise_cfg.custom_keys
    assert (schedule.learning_rate, schedule.weight_decay) == (optimizer.lr, optimizer.weight_decay)
    assert set(schedule.undecayed) == set(parts)
    assert (schedule.warmup, schedule.warmup_ratio) == (1500, config.param_scheduler[0].start_factor)
    assert (schedule.policy, schedule.minimum_learning_rate) == ("linear", config.param_scheduler[1].eta_min)


def test_adam_without_a_published_row_is_mmsegmentations(paper):
    """Table II has no SegFormer on ADE20K."""
    for model in ("segformer_b0", "segformer_b1"):
        config = Config.fromfile(CONFIGS / NEAREST["ade20k", model])
        schedule = paper.schedule_of("ade20k", model)
        gpus = 8  # "8xb2" in the configuration's name
        assert schedule.batch == gpus * config.train_dataloader.batch_size
        assert schedule.iterations == config.train_cfg.max_iters
        assert schedule.crop == config.crop_size
        assert (schedule.learning_rate, schedule.weight_decay) == (6e-5, 0.01)
        assert config.optim_wrapper.optimizer.lr == 6e-5
