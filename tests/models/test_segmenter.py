import copy
import hashlib
import struct

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from processes import run_group
from torch import nn

from harness.errors import UserError
from harness.models import build, load_spec
from harness.models.building import from_spec
from harness.models.configuration import network_config
from harness.models.segmenter import Segmenter, state_hash
from harness.models.spec import ModelSpec


def losses_only(num_classes: int = 4, align_corners: bool = False) -> Segmenter:
    """A Segmenter without a network, for tests of the loss."""
    spec = ModelSpec(name="none", config="", taps={"channels": (), "strides": ()})
    return Segmenter(spec, num_classes, mean=(0, 0, 0), std=(1, 1, 1), align_corners=align_corners)


def closed_form(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean of -log softmax over the valid pixels, pixel by pixel in float64."""
    total = weight = 0.0
    for b, y, x in np.ndindex(labels.shape):
        label = labels[b, y, x]
        if label != 255:
            z = logits[b, :, y, x].astype(np.float64)
            total += weights[label] * (np.log(np.exp(z - z.max()).sum()) + z.max() - z[label])
            weight += weights[label]
    return total / weight if weight else 0.0


def resized(segmenter: Segmenter, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return nn.functional.interpolate(
            segmenter(images), images.shape[-2:], mode="bilinear", align_corners=segmenter.align_corners
        )


@pytest.fixture(scope="module")
def hrnet_w48():
    return build("hrnet_w48", 19, weights="none").eval()


@pytest.mark.parametrize("name", ["hrnet_tiny", "lite0_fpn_scratch"])
def test_logits_equal_mmsegmentations_on_the_same_state(name, mmsegmentation):
    segmenter = build(name, 5)
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    segmenter(images)  # a step in training mode moves the running statistics off their start
    segmenter.eval()
    network = mmsegmentation.build(network_config(load_spec(name), 5), segmenter.state_dict())
    torch.testing.assert_close(resized(segmenter, images), mmsegmentation.logits(network, images), atol=1e-6, rtol=1e-6)


@pytest.mark.slow
def test_hrnet_w48_has_its_published_size_and_taps(hrnet_w48):
    assert sum(p.numel() for p in hrnet_w48.parameters()) == pytest.approx(65.86e6, abs=0.005e6)
    with torch.no_grad():
        features = hrnet_w48.features(torch.zeros(1, 3, 64, 64))
    assert [tuple(f.shape) for f in features] == [(1, 48, 16, 16), (1, 96, 8, 8), (1, 192, 4, 4), (1, 384, 2, 2)]


def test_the_random_start_is_mmsegmentations(hrnet_w48):
    # mmsegmentation: the classifier normal with deviation 0.01; HRNet's convolutions Kaiming normal over the fan-out.
    assert hrnet_w48.decode_head.conv_seg.weight.std().item() == pytest.approx(0.01, rel=0.05)
    conv = hrnet_w48.backbone.conv2.weight
    assert conv.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


def test_normalization_takes_red_first():
    segmenter = losses_only()
    segmenter.mean.copy_(torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1))
    segmenter.std.copy_(torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1))
    images = torch.tensor([11, 26, 50], dtype=torch.uint8).view(1, 3, 1, 1)
    assert segmenter.normalized(images).flatten().tolist() == [1.0, 3.0, 5.0]


@given(data=st.data(), weighted=st.booleans())
def test_cross_entropy_is_the_weighted_mean_over_valid_pixels(data, weighted):
    seed = data.draw(st.integers(0, 2**31))
    ignored = data.draw(st.floats(0, 1))
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 5, (2, 4, 3, 5))
    labels = np.where(rng.random((2, 3, 5)) < ignored, 255, rng.integers(0, 4, (2, 3, 5)))
    weights = rng.uniform(0.1, 3, 4) if weighted else np.ones(4)
    found = losses_only().losses(
        torch.tensor(logits), [], torch.tensor(labels), torch.tensor(weights) if weighted else None
    )
    assert found.keys() == {"cross_entropy"}
    assert found["cross_entropy"].item() == pytest.approx(closed_form(logits, labels, weights), rel=1e-6, abs=1e-9)


def test_logits_are_resized_bilinearly_to_the_labels():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 4, 5, 7)).astype(np.float32)
    labels = rng.integers(0, 4, (1, 20, 28))
    large = cv2.resize(logits[0].transpose(1, 2, 0), (28, 20), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)[None]
    found = losses_only().losses(torch.tensor(logits), [], torch.tensor(labels))["cross_entropy"]
    assert found.item() == pytest.approx(closed_form(large, labels, np.ones(4)), rel=1e-5)


def test_align_corners_is_the_models():
    # From 2 pixels to 5 in even steps, ends included: with corners not aligned the second would be 0.6, not 1.5.
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, 1, 0] = torch.tensor([0.0, 6.0])
    labels = torch.ones(1, 1, 5, dtype=torch.int64)
    found = losses_only(2, align_corners=True).losses(logits, [], labels)["cross_entropy"].item()
    assert found == pytest.approx(np.mean([np.log1p(np.exp(-z)) for z in (0.0, 1.5, 3.0, 4.5, 6.0)]), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_crop_without_valid_pixels_costs_zero_with_a_graph(dtype):
    logits = torch.randn(1, 4, 3, 3, dtype=dtype, requires_grad=True)
    loss = losses_only().losses(logits, [], torch.full((1, 6, 6), 255))["cross_entropy"]
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.eq(0).all()


def test_ignored_pixels_get_no_gradient():
    logits = torch.randn(1, 4, 2, 2, requires_grad=True)
    losses_only().losses(logits, [], torch.tensor([[[0, 255], [2, 255]]]))["cross_entropy"].backward()
    assert logits.grad is not None
    assert logits.grad[..., 1].eq(0).all()
    assert logits.grad[..., 0].ne(0).all()


def test_auxiliary_heads_run_in_training_alone_and_count_as_configured():
    spec = load_spec("hrnet_tiny")
    overrides = copy.deepcopy(spec.overrides)
    head = {
        "type": "FCNHead",
        "in_channels": 24,
        "in_index": 1,
        "channels": 8,
        "num_convs": 1,
        "norm_cfg": {"type": "SyncBN"},
        "loss_decode": {"type": "CrossEntropyLoss", "loss_weight": 0.4},
    }
    overrides["auxiliary_head"] = [{**head, "num_classes": 19}, {**head, "in_index": 2, "in_channels": 32}]
    lighter = {"type": "CrossEntropyLoss", "loss_weight": 0.2}
    overrides["auxiliary_head"][1] |= {"num_classes": 19, "loss_decode": lighter}
    segmenter = from_spec(spec.model_copy(update={"overrides": overrides}), 4)
    images, labels = torch.randint(0, 256, (2, 3, 64, 64)), torch.randint(0, 4, (2, 64, 64))
    labels[:, :10] = 255

    logits, auxiliary = segmenter.decode(segmenter.features(images))
    assert [tuple(a.shape) for a in auxiliary] == [(2, 4, 8, 8), (2, 4, 4, 4)]
    found = segmenter.losses(logits, auxiliary, labels)
    alone = [segmenter.losses(a, [], labels)["cross_entropy"].item() for a in auxiliary]
    assert found["auxiliary"].item() == pytest.approx(0.4 * alone[0] + 0.2 * alone[1], rel=1e-6)
    assert found["cross_entropy"].item() == segmenter.losses(logits, [], labels)["cross_entropy"].item()

    assert segmenter.eval().decode(segmenter.features(images))[1] == []

    plain = from_spec(spec, 4).eval()
    assert segmenter.inference_state().keys() == plain.state_dict().keys()
    plain.load_inference_state(segmenter.inference_state())
    torch.testing.assert_close(plain(images), segmenter(images), atol=0, rtol=0)


def test_a_cascades_first_head_is_needed_at_inference_and_its_loss_counts_as_auxiliary():
    spec = load_spec("hrnet_tiny")
    head = {"type": "FCNHead", "in_channels": [16, 24, 32, 48], "in_index": [0, 1, 2, 3], "channels": 8}
    head |= {"input_transform": "resize_concat", "num_convs": 1, "norm_cfg": {"type": "SyncBN"}, "num_classes": 19}
    first = head | {"loss_decode": {"type": "CrossEntropyLoss", "loss_weight": 0.25}}
    second = head | {"type": "OCRHead", "ocr_channels": 4, "loss_decode": {"type": "CrossEntropyLoss"}}
    del second["num_convs"]
    overrides = copy.deepcopy(spec.overrides) | {"type": "CascadeEncoderDecoder", "num_stages": 2}
    overrides["decode_head"] = [first, second]
    segmenter = from_spec(spec.model_copy(update={"overrides": overrides}), 4)
    images, labels = torch.randint(0, 256, (2, 3, 32, 32)), torch.randint(0, 4, (2, 32, 32))
    logits, (early,) = segmenter.decode(segmenter.features(images))
    found = segmenter.losses(logits, [early], labels)
    alone = segmenter.losses(early, [], labels)["cross_entropy"].item()
    assert found["auxiliary"].item() == pytest.approx(0.25 * alone, rel=1e-6)
    assert found["cross_entropy"].item() == segmenter.losses(logits, [], labels)["cross_entropy"].item()
    assert {name.split(".")[1] for name in segmenter.inference_state() if name.startswith("decode_head")} == {"0", "1"}
    assert segmenter.eval().decode(segmenter.features(images))[1] == []


def test_a_pyramid_is_tapped_in_a_upernet_head_alone():
    spec = load_spec("hrnet_tiny")
    taps = spec.taps.model_copy(update={"at": "fpn"})
    with pytest.raises(UserError, match=r"hrnet_tiny.*UPerHead.*tap the backbone"):
        from_spec(spec.model_copy(update={"taps": taps}), 4)


def test_the_state_of_another_network_is_refused_with_the_tensors_that_differ():
    with pytest.raises(UserError, match=r"decode_head\.conv_seg\.bias \(6 there, 5 here\).*\(2 in all\)"):
        build("hrnet_tiny", 5).load_inference_state(build("hrnet_tiny", 6).inference_state())


def test_the_hash_of_a_state_is_over_names_and_little_endian_bytes_in_order_of_name():
    state = {"b": torch.tensor([[1.0, -2.0]]).t(), "a": torch.tensor(7), "c": torch.tensor([1.0], dtype=torch.bfloat16)}
    content = b"a" + struct.pack("<q", 7) + b"b" + struct.pack("<2f", 1, -2) + b"c" + bytes([0x80, 0x3F])
    assert state_hash(state) == hashlib.sha256(content).hexdigest()


def test_losses_come_in_float32_under_bfloat16_autocast():
    segmenter = build("hrnet_tiny", 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, auxiliary = segmenter.decode(segmenter.features(torch.randint(0, 256, (2, 3, 64, 64))))
        loss = segmenter.losses(logits, auxiliary, torch.randint(0, 4, (2, 64, 64)))["cross_entropy"]
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def _process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo")
    logits, labels, weights = torch.load(f"{folder}/batch.pt")
    share = logits[rank : rank + 1].clone().requires_grad_()
    losses = losses_only().losses(share, [], labels[rank : rank + 1], weights)
    losses["cross_entropy"].backward()
    torch.save(share.grad, f"{folder}/grad{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_get_the_gradient_of_one_when_their_valid_pixels_differ(tmp_path):
    logits = torch.randn(2, 4, 3, 3, requires_grad=True)
    labels = torch.randint(0, 4, (2, 3, 3))
    labels[1, 1:] = 255
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0])
    losses_only().losses(logits, [], labels, weights)["cross_entropy"].backward()
    torch.save((logits.detach(), labels, weights), tmp_path / "batch.pt")
    assert run_group(2, _process, str(tmp_path)) == [0, 0]
    shares = [torch.load(tmp_path / f"grad{rank}.pt") for rank in range(2)]
    # Data parallelism averages over processes; each here holds the gradient of its own picture.
    torch.testing.assert_close(torch.cat(shares) / 2, logits.grad)
