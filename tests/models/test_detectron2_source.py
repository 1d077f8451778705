"""detectron2's networks as networks of the harness.

Everything about padding, taps, channel order and logits runs on a stand-in, and on detectron2 itself where it imports.
The stand-in has what detectron2's SemanticSegmentor has: a feature pyramid around an encoder that returns named maps,
whose top-down path doubles sizes exactly and so takes multiples of `size_divisibility` alone, and a head whose `layers`
give logits at `common_stride` and whose forward pass upsamples them by it in inference.
"""

import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness import models
from harness.errors import UserError
from harness.models.detectron2 import Detectron2Segmenter
from harness.models.spec import ModelSpec, WeightsSource
from methods.contextrast import Contextrast

CLASSES = 5
TAPS = {"channels": [8, 16, 32], "strides": [4, 8, 16]}


def detectron2_imports() -> bool:
    try:
        import detectron2.modeling  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    return True


needs_detectron2 = pytest.mark.skipif(not detectron2_imports(), reason="detectron2 does not import here")


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.res2 = nn.Conv2d(3, 8, 7, 4, padding=3)
        self.res3 = nn.Conv2d(8, 16, 3, 2, padding=1)
        self.res4 = nn.Conv2d(16, 32, 3, 2, padding=1)

    def forward(self, x):
        maps = {}
        for name in ("res2", "res3", "res4"):
            maps[name] = x = getattr(self, name)(x).relu()
        return maps

    def output_shape(self):
        named = zip(("res2", "res3", "res4"), TAPS["channels"], TAPS["strides"], strict=True)
        return {name: SimpleNamespace(channels=channels, stride=stride) for name, channels, stride in named}


class Pyramid(nn.Module):
    size_divisibility = 16

    def __init__(self):
        super().__init__()
        self.bottom_up = Encoder()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, 8, 1) for channels in TAPS["channels"])

    def forward(self, x):
        stages = list(self.bottom_up(x).values())
        maps = [self.lateral[2](stages[2])]
        for lateral, stage in ((self.lateral[1], stages[1]), (self.lateral[0], stages[0])):
            maps.insert(0, lateral(stage) + F.interpolate(maps[0], scale_factor=2.0))
        return dict(zip(("p2", "p3", "p4"), maps, strict=True))

    def output_shape(self):
        return {f"p{i}": SimpleNamespace(channels=8, stride=2**i) for i in (2, 3, 4)}


class Head(nn.Module):
    in_features, common_stride = ("p2", "p3", "p4"), 4

    def __init__(self):
        super().__init__()
        self.predictor = nn.Conv2d(8, CLASSES, 1)

    def layers(self, maps):
        first = maps["p2"]
        return self.predictor(sum(F.interpolate(maps[name], first.shape[-2:]) for name in self.in_features))

    def forward(self, maps, targets=None):
        assert not self.training
        return F.interpolate(self.layers(maps), scale_factor=4, mode="bilinear", align_corners=False), {}


class SemanticSegmentor(nn.Module):
    """detectron2's own path from an image to logits, as its meta architecture has it."""

    def __init__(self, mean, std):
        super().__init__()
        self.backbone, self.sem_seg_head = Pyramid(), Head()
        self.register_buffer("pixel_mean", torch.tensor(mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(std).view(-1, 1, 1), False)

    def forward(self, inputs):
        (image,) = ((each["image"] - self.pixel_mean) / self.pixel_std for each in inputs)
        height, width = image.shape[-2:]
        divisor = self.backbone.size_divisibility
        padded = torch.zeros(1, 3, -(-height // divisor) * divisor, -(-width // divisor) * divisor)
        padded[0, :, :height, :width] = image
        logits, _ = self.sem_seg_head(self.backbone(padded), None)
        return [{"sem_seg": logits[0, :, :height, :width]}]


def stand_in(order="BGR", taps=TAPS, at="backbone"):
    """A network with what the harness makes of it."""
    mean, std = [10.0, 20.0, 30.0], [1.0, 2.0, 4.0]
    network = SemanticSegmentor(mean, std)
    config = SimpleNamespace(INPUT=SimpleNamespace(FORMAT=order), MODEL=SimpleNamespace(PIXEL_MEAN=mean, PIXEL_STD=std))
    spec = ModelSpec(name="of_detectron2", source="detectron2", config="a.yaml", taps={"at": at, **taps})
    return network, Detectron2Segmenter(network, spec, CLASSES, config), order


def real(config, at="backbone", channels=(256, 512, 1024, 2048), **overrides):
    from detectron2.modeling import build_model

    from harness.models.detectron2 import build, configuration

    spec = ModelSpec(
        name="of_detectron2",
        source="detectron2",
        config=config,
        taps={"at": at, "channels": channels, "strides": (4, 8, 16, 32)},
        overrides={"MODEL": {"RESNETS": {"NORM": "SyncBN"}, "BACKBONE": {"FREEZE_AT": 0}}} | overrides,
    )
    ours = build(spec, CLASSES)
    settings = configuration(spec)
    settings.MODEL.SEM_SEG_HEAD.NUM_CLASSES = CLASSES
    theirs = build_model(settings)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return theirs, ours, settings.INPUT.FORMAT


FPN = "Misc/semantic_R_50_FPN_1x.yaml"
PAIRS = [
    pytest.param(stand_in, id="stand-in"),
    pytest.param(lambda: stand_in("RGB"), id="stand-in RGB"),
    pytest.param(lambda: real(FPN), marks=[needs_detectron2, pytest.mark.slow], id="detectron2"),
    pytest.param(
        lambda: real(FPN, INPUT={"FORMAT": "RGB"}), marks=[needs_detectron2, pytest.mark.slow], id="detectron2 RGB"
    ),
]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_logits_are_those_of_detectron2s_own_path(pair, size):
    theirs, ours, order = pair()
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    with torch.no_grad():
        given = image.flip(0) if order == "BGR" else image
        expected = theirs.eval()([{"image": given.float()}])[0]["sem_seg"]
        found = F.interpolate(ours.eval()(image[None]), size, mode="bilinear")[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pair", PAIRS[::2])
@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_taps_are_where_the_yaml_says_at_any_size(pair, size):
    _, ours, _ = pair()
    with torch.no_grad():
        maps = ours.eval().features(torch.zeros(1, 3, *size, dtype=torch.uint8))
    expected = [(1, c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip(ours.channels, ours.strides, strict=True)]
    assert [tuple(each.shape) for each in maps] == expected


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(lambda: stand_in(at="fpn", taps={**TAPS, "channels": [8, 8, 8]}), id="stand-in"),
        pytest.param(
            lambda: real(FPN, at="fpn", channels=[256] * 4), marks=[needs_detectron2, pytest.mark.slow], id="detectron2"
        ),
    ],
)
def test_the_pyramid_can_be_tapped_instead(pair):
    _, ours, _ = pair()
    images = torch.randint(0, 256, (1, 3, 64, 64))
    with torch.no_grad():
        maps = ours.eval().features(images)
        outputs = ours.backbone(ours.normalized(images).flip(1))
    for found, name in zip(maps, ("p2", "p3", "p4", "p5"), strict=False):
        torch.testing.assert_close(found, outputs[name])


@pytest.mark.parametrize("pair", PAIRS[::2])
def test_a_method_trains_it_and_every_parameter(pair):
    _, ours, _ = pair()
    method = Contextrast(ours.channels, CLASSES)
    images, labels = torch.randint(0, 256, (2, 3, 64, 72)), torch.randint(0, CLASSES, (2, 64, 72))
    features = ours.train().features(images)
    logits, auxiliary = ours.decode(features)
    terms = ours.losses(logits, auxiliary, labels) | method(features, logits, labels, 0)
    torch.stack(list(terms.values())).sum().backward()
    assert auxiliary == []
    assert terms["pixel_anchor"] > 0
    assert [name for name, each in ours.named_parameters() if each.grad is None] == []


def test_a_head_without_layers_is_run_in_inference_with_its_parts_in_training():
    _, ours, _ = stand_in()
    logits = F.interpolate(ours.decode(ours.features(torch.ones(1, 3, 32, 32)))[0], (32, 32), mode="bilinear")

    class Plain(nn.Module):
        def __init__(self, head):
            super().__init__()
            self.head, self.in_features = head, head.in_features

        def forward(self, maps, targets=None):
            assert not self.training
            assert self.head.training
            return F.interpolate(self.head.layers(maps), scale_factor=4, mode="bilinear", align_corners=False), {}

    ours.sem_seg_head = Plain(ours.sem_seg_head)
    ours.train()
    torch.testing.assert_close(ours.decode(ours.features(torch.ones(1, 3, 32, 32)))[0], logits)
    assert ours.sem_seg_head.training


def test_without_detectron2_one_sentence_says_where_to_read(monkeypatch, request):
    monkeypatch.setenv("CONTEXTRAST_BENCH_MODELS", str(request.config.rootpath / "harness" / "interop" / "models"))
    names = [name for name in models.names() if name.startswith("detectron2_")]
    assert names == ["detectron2_deeplab_v3_plus_r103", "detectron2_semantic_fpn_r50"]
    monkeypatch.setitem(sys.modules, "detectron2", None)
    for name in names:
        with pytest.raises(UserError, match=r"needs detectron2.*docs/other-frameworks\.md"):
            models.build(name, CLASSES, "none")


@needs_detectron2
@pytest.mark.slow
@pytest.mark.parametrize("name", ["detectron2_deeplab_v3_plus_r103", "detectron2_semantic_fpn_r50"])
def test_the_examples_are_built_with_their_taps(monkeypatch, request, name):
    monkeypatch.setenv("CONTEXTRAST_BENCH_MODELS", str(request.config.rootpath / "harness" / "interop" / "models"))
    network = models.build(name, CLASSES, "none")
    maps = network.eval().features(torch.zeros(1, 3, 64, 64))
    assert [each.shape[1] for each in maps] == network.channels
    assert [64 // each.shape[2] for each in maps] == network.strides
    assert network.pad_value == (124, 116, 104)  # ImageNet's mean, red first, whatever the network's order


@needs_detectron2
@pytest.mark.slow
def test_detectron2s_own_files_are_loaded(tmp_path):
    from harness.models.building import from_spec

    theirs, _, _ = real(FPN, MODEL={})
    taps = {"channels": (256, 512, 1024, 2048), "strides": (4, 8, 16, 32)}
    weights = WeightsSource(missing=[r".*\.norm\.running_(mean|var)"], without=["fc1000.*"])
    spec = ModelSpec(name="fpn", source="detectron2", config=FPN, taps=taps, weights=weights)
    torch.save({"model": theirs.state_dict(), "iteration": 9}, tmp_path / "model_final.pth")
    whole = from_spec(spec, CLASSES, tmp_path / "model_final.pth")
    assert (whole.initial_weights.unused, whole.initial_weights.unfilled) == ((), ())
    assert whole.sem_seg_head.predictor.weight.equal(theirs.sem_seg_head.predictor.weight)

    # As its MSRA/R-50.pkl names them: Caffe2's names, batch norm as scale and shift.
    convolutions = {"conv1": "stem.conv1"}
    for stage, blocks in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True):
        for block in range(blocks):
            parts = {"branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3"}
            parts |= {"branch1": "shortcut"} if block == 0 else {}
            convolutions |= {f"res{stage}_{block}_{file}": f"res{stage}.{block}.{ours}" for file, ours in parts.items()}
    old = {f"{file}_w": f"{ours}.weight" for file, ours in convolutions.items()}
    for file, ours in convolutions.items():
        norm = "res_conv1_bn" if file == "conv1" else f"{file}_bn"
        old |= {f"{norm}_s": f"{ours}.norm.weight", f"{norm}_b": f"{ours}.norm.bias"}
    shapes = {name: tuple(each.shape) for name, each in theirs.backbone.bottom_up.state_dict().items()}
    arrays = {file: np.full(shapes[ours], 0.25, np.float32) for file, ours in old.items()}
    arrays["fc1000_w"] = np.zeros((1000, 2048), np.float32)
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"model": arrays, "matching_heuristics": True}))
    encoder = from_spec(spec, CLASSES, tmp_path / "R-50.pkl")
    assert encoder.initial_weights.unused == ()
    assert all("bottom_up" in name and "running" in name for name in encoder.initial_weights.unfilled)
    learned = {k: v for k, v in encoder.backbone.bottom_up.state_dict().items() if "running" not in k}
    assert len(learned) == len(old)
    assert all((each == 0.25).all() for each in learned.values())


@needs_detectron2
@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"config": "Misc/none.yaml"}, "no configuration"),
        ({"config": FPN, "overrides": {"MODEL": {"RESNETS": {"DEPHT": 50}}}}, "DEPHT"),
        ({"config": "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"}, "GeneralizedRCNN"),
    ],
)
def test_what_is_wrong_is_one_sentence(keys, words):
    from harness.models.detectron2 import build

    spec = ModelSpec(name="wrong", source="detectron2", taps={"channels": [1], "strides": [1]}, **keys)
    with pytest.raises(UserError, match=words):
        build(spec, CLASSES)
