"""A network of a Python function: docs/new-model.md's example in a folder of the user's own, by the same contract."""

import re
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from harness import models
from harness.cost.complexity import cost_rows
from harness.errors import UserError
from harness.experiment.schema import Experiment, discovery
from harness.models.inference import predict
from harness.training.trainer import Trainer

CLASSES = 5


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the user's own, whose modules are forgotten afterwards."""
    mine = tmp_path / "mine"
    mine.mkdir()
    monkeypatch.setenv("CONTEXTRAST_BENCH_MODELS", str(mine))
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield mine
    for name in set(sys.modules) - before:
        if str(mine) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def unet(folder, repository):
    """The page's network and YAML."""
    page = (repository / "docs" / "new-model.md").read_text(encoding="utf-8")
    for name, language in (("small_unet.py", "python"), ("small_unet.yaml", "yaml")):
        code = re.search(rf"```{language}\n(.*?)```", page.split(f"`{name}`", 1)[1], re.DOTALL)
        assert code is not None
        (folder / name).write_text(code[1])
    return folder


def write(folder, name, python="", **keys):
    """A model `name` with its module; `keys` replace those of a small valid YAML."""
    text = {"source": f"{name}:network", "taps": "{channels: [4], strides: [2]}"} | keys
    (folder / f"{name}.yaml").write_text("".join(f"{key}: {value}\n" for key, value in text.items()))
    (folder / f"{name}.py").write_text(textwrap.dedent(python or PLAIN))


PLAIN = """
from torch import nn

class Network(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.encoder = nn.Conv2d(3, 4, 3, 2, padding=1)
        self.head = nn.Conv2d(4, num_classes, 1)

    def features(self, images):
        return [self.encoder(images)]

    def logits(self, maps):
        return self.head(maps[0])

def network(num_classes):
    return Network(num_classes)
"""


@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
def test_taps_are_where_the_yaml_says(unet, size):
    assert "small_unet" in models.names()
    network = models.build("small_unet", CLASSES)
    with torch.no_grad():
        maps = network.eval().features(torch.zeros(1, 3, *size, dtype=torch.uint8))
    expected = [(1, c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip((16, 32, 64), (4, 8, 16), strict=True)]
    assert [tuple(each.shape) for each in maps] == expected


@pytest.mark.parametrize("method", discovery.names())
def test_every_method_trains_it_and_inference_keeps_nothing_of_the_method(unet, experiment_file, method):
    experiment = Experiment.load(
        experiment_file(datasets=["camvid"], models=["small_unet"], arms={method: {}}, baseline=method)
    )
    trainer = Trainer(experiment.settings(experiment.run("camvid", "small_unet", method, 0)), 11, torch.device("cpu"))
    images, labels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8), torch.randint(0, 11, (2, 64, 64))
    terms = trainer.step(images, labels, 0, 0.01)
    assert terms["loss"].isfinite()
    assert trainer.diverged_at() is None
    assert [name for name, each in trainer.network.named_parameters() if each.grad is None] == []
    assert all(name.startswith("network.") for name in trainer.network.inference_state())


def test_a_checkpoint_gives_the_same_predictions(unet):
    first, second = (models.build("small_unet", CLASSES) for _ in range(2))
    image = torch.randint(0, 256, (48, 80, 3), dtype=torch.uint8).numpy()
    second.load_inference_state(first.inference_state())
    assert (predict(second.eval(), image, "whole") == predict(first.eval(), image, "whole")).all()


def test_the_images_are_normalized_as_the_yaml_says(folder):
    write(folder, "scaled", input="{mean: [1, 2, 3], std: [2, 2, 2]}")
    images = torch.tensor([3.0, 6.0, 9.0]).view(1, 3, 1, 1)
    assert models.build("scaled", 5).normalized(images).flatten().tolist() == [1, 2, 3]
    write(folder, "plain")
    mean = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)  # ImageNet's, as in torchvision's documentation
    assert models.build("plain", 5).normalized(mean).abs().max() < 1e-6


def test_a_file_of_the_backbone_or_of_the_whole_network_is_loaded(unet, tmp_path):
    state = models.build("small_unet", CLASSES).state_dict()
    whole = {name.removeprefix("network."): tensor + 1 for name, tensor in state.items()}
    backbone = {k.removeprefix("backbone."): t for k, t in whole.items() if k.startswith("backbone.")}
    for content, names in ((whole, whole), (backbone, [f"backbone.{name}" for name in backbone])):
        torch.save(content, tmp_path / "weights.pth")
        loaded = models.build("small_unet", CLASSES, tmp_path / "weights.pth")
        assert all(loaded.state_dict()[f"network.{name}"].equal(whole[name]) for name in names)
    del backbone["0.0.bias"]
    torch.save(backbone, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"1 of the \d+ tensors of the backbone.*0\.0\.bias"):
        models.build("small_unet", CLASSES, tmp_path / "weights.pth")


def test_a_backbone_of_another_name_is_what_weights_fill_and_what_the_rate_of_heads_leaves_alone(
    folder, tmp_path, experiment_file
):
    write(folder, "named", backbone="encoder")
    torch.save({"weight": torch.ones(4, 3, 3, 3), "bias": torch.ones(4)}, tmp_path / "encoder.pth")
    loaded = models.build("named", 11, tmp_path / "encoder.pth")
    assert loaded.network.encoder.weight.eq(1).all()
    assert loaded.initial_weights.unfilled == ()
    schedule = {"iterations": 10, "batch": 2, "crop": [32, 32], "learning_rate": 0.1, "head_rate": 10, "log_every": 5}
    experiment = Experiment.load(experiment_file(datasets=["camvid"], models=["named"], schedule=schedule))
    settings = experiment.settings(experiment.run("camvid", "named", "cross_entropy", 0))
    trainer = Trainer(settings, 11, torch.device("cpu"))
    factors = {
        id(each): factor
        for group, factor in zip(trainer.optimizer.param_groups, trainer.rate_factors, strict=True)
        for each in group["params"]
    }
    parameters = dict(trainer.network.named_parameters())
    assert factors[id(parameters["network.encoder.weight"])] == 1
    assert factors[id(parameters["network.head.weight"])] == 10


def test_some_of_the_maps_are_tapped_and_logits_get_all(folder):
    python = PLAIN.replace("return [self.encoder(images)]", "return [images, self.encoder(images)]")
    write(folder, "picked", python.replace("maps[0]", "maps[1]"), taps="{maps: [1], channels: [4], strides: [2]}")
    network = models.build("picked", 5)
    assert [tuple(each.shape) for each in network.features(torch.zeros(1, 3, 32, 32))] == [(1, 4, 16, 16)]
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 5, 16, 16)


def test_cost_counts_it(unet):
    (row,) = cost_rows(["small_unet"], (64, 64), methods=["cross_entropy"])
    stages = 16 * 3 * 49 + 32 * 16 * 9 + 64 * 32 * 9 + 3 * (16 + 32 + 64)  # convolutions, their biases and batch norms
    merges = 32 * (64 + 32) * 9 + 32 + 16 * (32 + 16) * 9 + 16
    assert row["inference_parameters"] == stages + merges + 19 * 16 + 19
    assert row["gmacs"] > 0


def test_the_codes_hash_is_in_the_settings_and_follows_what_it_imports(folder):
    write(folder, "mine", "from parts import width\n" + PLAIN)
    (folder / "parts.py").write_text('"""Narrow."""\nwidth = 4\n')
    (folder / "other.py").write_text("width = 4\n")
    first = models.load_spec("mine").model_dump(mode="json")["code"]
    assert set(first) == {"mine", "parts"}
    (folder / "parts.py").write_text('"""Wide."""\nwidth = 4  # as a comment\n')
    assert models.load_spec("mine").code == first
    (folder / "parts.py").write_text("width = 5\n")
    assert models.load_spec("mine").code["parts"] != first["parts"]
    assert models.load_spec("mine").code["mine"] == first["mine"]
    assert "torch" not in first


def test_a_module_that_the_yaml_imports_may_register_a_backbone_of_mmsegmentations(folder):
    (folder / "my_backbone.py").write_text(
        textwrap.dedent("""
        from mmseg.registry import MODELS
        from torch import nn

        @MODELS.register_module(force=True)
        class OneConvolution(nn.Module):
            def __init__(self):
                super().__init__()
                self.convolution = nn.Conv2d(3, 8, 4, 4)

            def forward(self, images):
                return (self.convolution(images),)
        """)
    )
    (folder / "registered.yaml").write_text(
        textwrap.dedent("""
        config: hrnet/fcn_hr18s_4xb2-40k_cityscapes-512x1024.py
        imports: [my_backbone]
        overrides:
          backbone: {_delete_: true, type: OneConvolution}
          decode_head: {in_channels: [8], in_index: [0], channels: 8}
        taps: {channels: [8], strides: [4]}
        """)
    )
    assert set(models.load_spec("registered").code) == {"my_backbone"}
    network = models.build("registered", 5)
    assert [tuple(each.shape) for each in network.features(torch.zeros(1, 3, 32, 32))] == [(1, 8, 8, 8)]
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 5, 8, 8)


@pytest.mark.parametrize(
    ("python", "keys", "words"),
    [
        (None, {"source": "absent_module:network"}, "absent_module cannot be imported"),
        (None, {"source": "broken:absent"}, "no function absent"),
        (None, {"arguments": "{colour: red}"}, "refuses.*colour"),
        (None, {"taps": "{channels: [5], strides: [2]}"}, r"channels \[4\].*\[5\].*correct taps"),
        (None, {"taps": "{channels: [4], strides: [4]}"}, r"strides \[2\].*\[4\].*correct taps"),
        (None, {"taps": "{maps: [1], channels: [4], strides: [2]}"}, "fails on an image"),
        (None, {"backbone": "trunk"}, "no part trunk"),
        (None, {"input": "{mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}"}, "input: std .* on 0 to 255"),
        (PLAIN.replace("num_classes, 1)", "7, 1)"), {}, "must be a tensor .1, 5, h, w., not .1, 7, 32, 32"),
        (PLAIN.replace("self.head(maps[0])", "{'out': maps[0]}"), {}, "must be a tensor .1, 5, h, w., not dict"),
        (PLAIN.replace("[self.encoder(images)]", "{'out': images}"), {}, "features must return a list of maps"),
        (PLAIN.replace("[self.encoder(images)]", "self.encoder(images)"), {}, "features must return a list of maps"),
        (
            PLAIN.replace("return [", "assert images.shape[3] > 64; ["),
            {},
            "fails .* AssertionError.* at broken.py, line 11",
        ),
        (PLAIN.replace("return Network", "return {}['a']"), {}, "refuses .*KeyError: 'a' at broken.py, line 17"),
        (PLAIN.replace("def logits", "def decode"), {}, "features and logits"),
        ("import package_that_is_not_there\n" + PLAIN, {}, "cannot be imported.*package_that_is_not_there"),
        ("def network(:\n", {}, "not valid Python"),
        (None, {"source": "broken"}, "MODULE:FUNCTION"),
        (None, {"config": "a.py"}, "are for mmsegmentation and detectron2"),
        (None, {"source": "mmsegmentation"}, "config is missing"),
        (None, {"source": "mmsegmentation", "config": "a.py", "arguments": "{a: 1}"}, "arguments needs source"),
    ],
)
def test_what_is_wrong_is_one_sentence(folder, monkeypatch, python, keys, words):
    monkeypatch.setattr("harness.models.weights.locate", lambda *_: None)
    write(folder, "broken", python or "", **keys)
    with pytest.raises(UserError, match=words) as caught:
        models.build("broken", 5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, r"channels \[18, 36, 72, 144\].*correct taps"),
        ({"overrides": "{decode_head: {chanels: 3}}"}, "mmsegmentation cannot build hrnet.*'chanels'"),
    ],
)
def test_so_is_what_is_wrong_with_a_network_of_mmsegmentations(folder, keys, words):
    taps = "{channels: [18, 36, 72, 99], strides: [4, 8, 16, 32]}"
    given = {"config": "hrnet/fcn_hr18s_4xb2-40k_cityscapes-512x1024.py", "taps": taps} | keys
    (folder / "broken.yaml").write_text("".join(f"{key}: {value}\n" for key, value in given.items()))
    with pytest.raises(UserError, match=words):
        models.build("broken", 5)


def test_two_files_of_one_name_and_a_folder_that_is_not_there_are_refused(folder, monkeypatch):
    write(folder, "hrnet_tiny")
    with pytest.raises(UserError, match="both the model hrnet_tiny"):
        models.names()
    monkeypatch.setenv("CONTEXTRAST_BENCH_MODELS", str(folder / "gone"))
    with pytest.raises(UserError, match=r"no folder.*gone.*CONTEXTRAST_BENCH_MODELS"):
        models.names()


def test_a_module_that_hides_another_is_refused(folder):
    write(folder, "textwrap")
    with pytest.raises(UserError, match="both the module textwrap"):
        models.build("textwrap", 5)


@pytest.mark.parametrize(
    ("library", "taps"),
    [
        ("segmentation_models_pytorch", ((64, 64, 128, 256, 512), (2, 4, 8, 16, 32))),
        ("timm", ((64, 64, 128, 256, 512), (2, 4, 8, 16, 32))),
    ],
)
def test_networks_of_libraries_build_where_they_import(folder, repository, library, taps):
    try:
        __import__(library)
    except (ImportError, RuntimeError) as error:  # torchvision's, where it does not fit torch
        pytest.skip(f"{library} does not import here: {error}")
    page = (repository / "docs" / "new-model.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page.split("<!-- smp_unet -->", 1)[1], re.DOTALL)
    assert code is not None
    python = code[1] + "\n\ndef network(num_classes):\n    return Network(num_classes, 'resnet18')\n"
    if library == "timm":
        python = PLAIN.replace("self.encoder = nn.Conv2d(3, 4, 3, 2, padding=1)", TIMM)
        python = python.replace("nn.Conv2d(4,", "nn.Conv2d(512,").replace("maps[0]", "maps[-1]")
        python = python.replace("[self.encoder(images)]", "self.encoder(images)")
        keys = {"taps": f"{{channels: {list(taps[0])}, strides: {list(taps[1])}}}", "backbone": "encoder"}
    else:
        keys = {"taps": f"{{maps: [1, 2, 3, 4, 5], channels: {list(taps[0])}, strides: {list(taps[1])}}}"}
    write(folder, "of_library", python, **keys)
    network = models.build("of_library", 5)
    assert network.backbone_prefix in ("network.backbone.", "network.encoder.")
    logits, _ = network.decode(network.features(torch.randint(0, 256, (2, 3, 64, 96))))
    assert logits.shape[:2] == (2, 5)
    network.losses(logits, [], torch.randint(0, 5, (2, 64, 96)))["cross_entropy"].backward()
    assert [name for name, each in network.named_parameters() if each.grad is None] == []


TIMM = "import timm; self.encoder = timm.create_model('resnet18', features_only=True, pretrained=False)"


def test_listing_a_model_of_ones_own_runs_none_of_its_code(folder):
    write(folder, "loud", "raise RuntimeError('imported')\n")
    assert isinstance(models.load_spec("loud").folder, Path)
    assert "loud" in models.names()
