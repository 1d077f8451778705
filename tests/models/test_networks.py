"""Every model: its parts and its loss are mmsegmentation's, it trains with a method, and it survives a checkpoint."""

import io

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from harness import models
from harness.experiment import discovery
from harness.models.inference import predict
from harness.models.segmenter import Segmenter
from harness.training.trainer import Trainer

CLASSES = 5
# No momentum: it would double what a checkpoint of a large network holds.
SCHEDULE = {"iterations": 2, "batch": 2, "crop": [64, 64], "learning_rate": 0.01, "momentum": 0.0}
LARGE = ("deeplabv3_r101", "hrnet_w48_scratch", "ocrnet_hrnet_w48")  # hrnet_w48 stands for them
OTHER_TAPS = "upernet_swin_t_stages"  # the network of upernet_swin_t, tapped elsewhere


@pytest.fixture(scope="module", params=models.names())
def network(request):
    """Built once for all tests of a model, which pytest runs one after the other, and then freed."""
    torch.manual_seed(0)
    return models.build(request.param, CLASSES, weights="none")


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, CLASSES, (2, 64, 64), generator=generator)


def name_of(request) -> str:
    return request.node.callspec.params["network"]


def trainer(network: Segmenter, method: str, monkeypatch) -> Trainer:
    monkeypatch.setattr(models, "build", lambda *_: network)
    settings = {"model": "", "method": method, "options": {}, "seed": 0, "schedule": SCHEDULE}
    return Trainer(settings, CLASSES, torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
def test_taps_are_where_the_models_file_says(network, size):
    with torch.no_grad():
        features = network.eval().features(torch.zeros(1, 3, *size, dtype=torch.uint8))
    expected = [
        (1, channels, -(-size[0] // stride), -(-size[1] // stride))
        for channels, stride in zip(network.channels, network.strides, strict=True)
    ]
    assert [tuple(map_.shape) for map_ in features] == expected


@pytest.mark.slow
def test_logits_and_loss_equal_those_of_the_published_configuration(network, batch, request, mmsegmentation):
    name = name_of(request)
    if name == OTHER_TAPS or models.load_spec(name).overrides:
        pytest.skip("not a configuration of mmsegmentation's as it is; see test_segmenter.py")
    config = mmsegmentation.configuration(models.load_spec(name).config, CLASSES)
    theirs = mmsegmentation.build(config.model, network.state_dict())
    images, labels = batch
    network.eval()
    network.training = True  # so that all heads decode, without dropout
    with torch.no_grad():
        logits, auxiliary = network.decode(network.features(images))
        losses = network.losses(logits, auxiliary, labels)
        samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]
        expected = theirs.loss(mmsegmentation.inputs(theirs, images), samples)
        found = torch.nn.functional.interpolate(logits, (64, 64), mode="bilinear", align_corners=network.align_corners)
    torch.testing.assert_close(found, mmsegmentation.logits(theirs, images), atol=1e-5, rtol=1e-5)
    total = sum(value.item() for key, value in expected.items() if "loss" in key)
    assert sum(term.item() for term in losses.values()) == pytest.approx(total, rel=1e-5)
    assert ("auxiliary" in losses) == (len([key for key in expected if "loss" in key]) > 1)


@pytest.mark.slow
def test_a_step_with_two_methods_and_a_checkpoint(network, batch, request, monkeypatch):
    if name_of(request) == OTHER_TAPS or name_of(request) in LARGE:
        pytest.skip("`make test-all` trains it with every method")
    assert trainer(network, "cross_entropy", monkeypatch).step(*batch, 0, 0.01)["loss"].isfinite()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []

    first = trainer(network, "contextrast", monkeypatch)
    terms = first.step(*batch, 0, 0.01)
    assert terms["loss"].isfinite()
    assert terms["pixel_anchor"] > 0

    image = batch[0][0].permute(1, 2, 0).numpy()
    expected = predict(network.eval(), image, "whole")
    assert (expected.dtype, expected.shape, expected.max() < CLASSES) == (np.uint8, (64, 64), True)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.zero_()
    again = trainer(network, "contextrast", monkeypatch)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert (predict(network.eval(), image, "whole") == expected).all()


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", discovery.names())
def test_a_step_of_every_model_with_every_method(network, batch, method, monkeypatch):
    terms = trainer(network, method, monkeypatch).step(*batch, 0, 0.01)
    # In the bins of distance NaN says that a bin is empty.
    assert all(term.isfinite().all() for name, term in terms.items() if not name.startswith("distance_bins/"))
    assert not any(term.isinf().any() for term in terms.values())
