"""A method inside detectron2's training, on stand-ins and, where it imports, on detectron2 itself.

The stand-ins have what is used of detectron2: a registry, a SemanticSegmentor that a configuration builds, batches that
are padded at the right and at the bottom to a multiple of `size_divisibility`, and a storage that knows the iteration.
"""

import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.contextrast import Contextrast

CLASSES, PLACE = 5, "harness.interop.detectron2_methods"


class Backbone(nn.Module):
    size_divisibility, padding_constraints = 8, {}

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 16, 2, 2)

    def output_shape(self):
        return {name: SimpleNamespace(channels=c, stride=s) for name, c, s in (("res3", 16, 8), ("res2", 8, 4))}

    def forward(self, images):
        fine = self.fine(images)
        return {"res3": self.coarse(fine), "res2": fine}


class Head(nn.Module):
    in_features, ignore_value = ["res2", "res3"], 255

    def __init__(self):
        super().__init__()
        self.predictor = nn.Conv2d(8, CLASSES, 1)

    def layers(self, features):
        return self.predictor(features["res2"])

    def losses(self, logits, labels):
        logits = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
        return {"loss_sem_seg": F.cross_entropy(logits, labels, ignore_index=255)}


class SemanticSegmentor(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.backbone, self.sem_seg_head = Backbone(), Head()
        self.register_buffer("pixel_mean", torch.tensor(config.MODEL.PIXEL_MEAN).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(config.MODEL.PIXEL_STD).view(-1, 1, 1), False)

    @property
    def device(self):
        return self.pixel_mean.device

    def forward(self, inputs):
        images = padded([(each["image"] - self.pixel_mean) / self.pixel_std for each in inputs], 8, 0.0).tensor
        features = self.backbone(images)
        if self.training:
            return self.sem_seg_head.losses(
                self.sem_seg_head.layers(features), padded([each["sem_seg"] for each in inputs], 8, 255).tensor
            )
        logits = F.interpolate(self.sem_seg_head.layers(features), scale_factor=4, mode="bilinear")
        sizes = [each["image"].shape[-2:] for each in inputs]
        return [{"sem_seg": each[:, :height, :width]} for each, (height, width) in zip(logits, sizes, strict=True)]


def padded(tensors, divisor, value, constraints=None):
    height, width = (-(-max(each.shape[axis] for each in tensors) // divisor) * divisor for axis in (-2, -1))
    found = [F.pad(each, (0, width - each.shape[-1], 0, height - each.shape[-2]), value=value) for each in tensors]
    return SimpleNamespace(tensor=torch.stack(found))


class Node(dict):
    def __init__(self, values=(), new_allowed=False):
        super().__init__(values)

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


@pytest.fixture
def stand_in(monkeypatch):
    """The module on stand-ins, a configuration, and a way to be in an iteration."""
    names = ("", ".config", ".modeling", ".structures", ".utils", ".utils.events")
    modules = {f"detectron2{name}": ModuleType(f"detectron2{name}") for name in names}
    modules["detectron2.config"].CfgNode = Node
    modules["detectron2.modeling"].SemanticSegmentor = SemanticSegmentor
    modules["detectron2.modeling"].META_ARCH_REGISTRY = SimpleNamespace(register=lambda: lambda each: each)
    modules["detectron2.structures"].ImageList = SimpleNamespace(from_tensors=padded)
    modules["detectron2.utils.events"].get_event_storage = lambda: SimpleNamespace(iter=3)
    for name in [name for name in sys.modules if name.split(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, PLACE, raising=False)
    model = Node({"PIXEL_MEAN": [9.0, 8.0, 7.0], "PIXEL_STD": [2.0, 2.0, 2.0]})
    model["SEM_SEG_HEAD"] = Node({"NUM_CLASSES": CLASSES, "IGNORE_VALUE": 255})
    yield importlib.import_module(PLACE), Node({"MODEL": model}), SemanticSegmentor, None
    sys.modules.pop(PLACE, None)


@pytest.fixture
def real():
    try:
        from detectron2.modeling import SemanticSegmentor as Theirs
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"detectron2 does not import here: {error}")
    from detectron2.utils.events import EventStorage

    from harness.models.detectron2 import configuration
    from harness.models.spec import ModelSpec

    taps = {"channels": [1], "strides": [1]}
    spec = ModelSpec(name="fpn", source="detectron2", config="Misc/semantic_R_50_FPN_1x.yaml", taps=taps)
    config = configuration(spec)
    config.MODEL.SEM_SEG_HEAD.NUM_CLASSES = CLASSES
    with EventStorage(3) as storage:
        yield importlib.import_module(PLACE), config, Theirs, storage


@pytest.fixture(params=["stand_in", "real"])
def built(request):
    """A MethodSegmentor and a plain SemanticSegmentor with the same weights."""
    module, config, plain, _ = request.getfixturevalue(request.param)
    module.add_method_config(config)
    config.MODEL.METHOD.OPTIONS["temperature"] = 0.2
    ours, theirs = module.MethodSegmentor(config), plain(config)
    theirs.load_state_dict({name: each for name, each in ours.state_dict().items() if not name.startswith("method.")})
    return ours, theirs


@pytest.fixture
def batch():
    draw = torch.Generator().manual_seed(0)
    sizes = [(64, 60), (50, 64)]
    return [
        {
            "image": torch.randint(0, 256, (3, *size), generator=draw).float(),
            "sem_seg": torch.randint(0, CLASSES, size, generator=draw),
        }
        for size in sizes
    ]


def test_the_losses_are_detectron2s_and_the_methods_terms(built, batch):
    ours, theirs = built
    losses = ours.train()(batch)
    expected = theirs.train()(batch)
    assert set(losses) - set(expected) == {"pixel_anchor"}
    assert losses["pixel_anchor"] > 0
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss)
    assert isinstance(ours.method, Contextrast)
    assert ours.method.options.temperature == 0.2
    torch.stack([each.sum() for each in losses.values()]).sum().backward()
    named = [(name, each) for name, each in ours.named_parameters() if each.requires_grad]
    assert [name for name, each in named if each.grad is None] == []
    assert any(name.startswith("method.") for name, _ in named)


def test_a_method_may_take_the_place_of_detectron2s_loss(built, batch):
    ours, theirs = built
    ours.method.cross_entropy_weight = 0.25
    losses, expected = ours.train()(batch), theirs.train()(batch)
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], 0.25 * loss)


def test_inference_is_that_of_the_plain_network(built, batch):
    ours, theirs = built
    with torch.no_grad():
        for found, expected in zip(ours.eval()(batch[:1]), theirs.eval()(batch[:1]), strict=True):
            torch.testing.assert_close(found["sem_seg"], expected["sem_seg"])


def test_the_method_sees_maps_from_fine_to_coarse_and_ignores_the_padding(stand_in, batch):
    module, config, _, _ = stand_in
    module.add_method_config(config)
    network = module.MethodSegmentor(config).train()
    seen = {}

    def note(maps, logits, labels, iteration):
        seen.update(maps=[tuple(each.shape) for each in maps], labels=labels, iteration=iteration)
        return {"noted": logits.sum() * 0}

    network.method.forward = note
    assert "noted" in network(batch)
    assert seen["maps"] == [(2, 8, 16, 16), (2, 16, 8, 8)]
    assert seen["iteration"] == 3
    assert (seen["labels"][0, :, 60:] == 255).all()
    assert (seen["labels"][1, 50:] == 255).all()
    assert (seen["labels"][0, :, :60] == batch[0]["sem_seg"]).all()
