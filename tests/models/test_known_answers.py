"""mmsegmentation's checkpoints through our evaluator: its predictions, and the figures that it publishes for them."""

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import ConfigDict
from mmengine.dataset import Compose
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from mmseg.apis import inference_model, init_model
from mmseg.models import SegTTAModel

from harness import models
from harness.errors import UserError
from harness.models import build, load_spec, names, published
from harness.models.inference import SCALES, Window, predict, scores
from harness.models.segmenter import Segmenter
from harness.models.weights import load_segmentation_checkpoint

CLASSES = 5
WINDOW = Window((32, 40), (21, 27))


def checkpoint_of(mmsegmentation, name, folder):
    """A configuration of mmsegmentation's, and a checkpoint of its network as its own training saves it."""
    spec = load_spec(name)
    config = mmsegmentation.configuration(spec.config, CLASSES)
    config.merge_from_dict({"model": spec.overrides})
    config.test_pipeline = [ConfigDict(type="LoadImageFromFile"), ConfigDict(type="PackSegInputs")]
    torch.manual_seed(0)
    network = mmsegmentation.build(config.model)
    network.init_weights()
    for module in network.modules():  # as different from each other as after a training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    torch.nn.init.normal_(network.decode_head.conv_seg.weight, std=0.5)
    hub = MessageHub.get_instance("known_answers")
    hub.update_scalar("train/loss", 0.5)
    path = folder / f"{name}.pth"
    meta = {"dataset_meta": {"classes": tuple("abcde"), "palette": [[0, 0, 0]] * CLASSES}}
    torch.save({"meta": meta, "state_dict": network.state_dict(), "message_hub": hub.state_dict()}, path)
    return config, path


@pytest.fixture(scope="module", params=["hrnet_tiny", "segformer_b0"])
def pair(request, mmsegmentation, tmp_path_factory):
    """The same checkpoint in mmsegmentation's network (with its configuration) and in ours."""
    config, path = checkpoint_of(mmsegmentation, request.param, tmp_path_factory.mktemp("known"))
    ours = build(request.param, CLASSES, weights="none").eval()
    load_segmentation_checkpoint(ours, path)
    return init_model(config, str(path), device="cpu"), ours


@pytest.fixture(scope="module")
def image():
    """RGB, of a size that no scale and no window divides; smooth, so that no pixel is a matter of rounding."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (71, 45), interpolation=cv2.INTER_CUBIC)


def predict_theirs(theirs, image, **test_cfg):
    theirs.test_cfg = ConfigDict(test_cfg)
    with DefaultScope.overwrite_default_scope("mmseg"):
        return inference_model(theirs, image[..., ::-1].copy())


def assert_equal(ours: Segmenter, image, sample, protocol, window=None, fit=None):
    logits = sample.seg_logits.data[None]
    assert logits.std() > 0.1
    found = scores(ours, image, protocol, window, fit)
    torch.testing.assert_close(found, logits, atol=1e-5, rtol=0)
    assert (predict(ours, image, protocol, window, fit) == sample.pred_sem_seg.data[0].numpy()).all()


def test_whole_gives_what_mmsegmentation_predicts(pair, image):
    theirs, ours = pair
    assert_equal(ours, image, predict_theirs(theirs, image, mode="whole"), "whole")


def test_slide_gives_what_mmsegmentation_predicts(pair, image):
    theirs, ours = pair
    sample = predict_theirs(theirs, image, mode="slide", crop_size=WINDOW.size, stride=WINDOW.stride)
    assert_equal(ours, image, sample, "slide", WINDOW)


@pytest.mark.parametrize("protocol", ["whole", "slide"])
def test_a_scaled_test_image_gives_what_mmsegmentation_predicts(pair, image, protocol):
    theirs, ours = pair
    theirs.cfg.test_pipeline.insert(1, ConfigDict(type="Resize", scale=(200, 61), keep_ratio=True))
    try:
        sample = predict_theirs(theirs, image, mode=protocol, crop_size=WINDOW.size, stride=WINDOW.stride)
    finally:
        del theirs.cfg.test_pipeline[1]
    assert_equal(ours, image, sample, protocol, WINDOW, fit=(200, 61))


@pytest.mark.slow
def test_ms_flip_gives_what_mmsegmentations_test_time_augmentation_gives(pair, image):
    theirs, ours = pair
    theirs.test_cfg = ConfigDict(mode="whole")
    resizes = [{"type": "Resize", "scale_factor": scale, "keep_ratio": True} for scale in SCALES]
    flips = [{"type": "RandomFlip", "prob": p, "direction": "horizontal"} for p in (0.0, 1.0)]
    augmentation = {"type": "TestTimeAug", "transforms": [resizes, flips, [{"type": "PackSegInputs"}]]}
    with DefaultScope.overwrite_default_scope("mmseg"):
        data = Compose([{"type": "LoadImageFromNDArray"}, augmentation])({"img": image[..., ::-1].copy()})
        batch = {key: [[value] for value in values] for key, values in data.items()}
        with torch.no_grad():
            merged = SegTTAModel(module=theirs).test_step(batch)[0].pred_sem_seg.data.numpy()
            each = [theirs.test_step({key: values[i] for key, values in batch.items()})[0] for i in range(12)]
    expected = torch.stack([sample.seg_logits.data.softmax(0) for sample in each]).mean(0)[None]
    torch.testing.assert_close(scores(ours, image, "ms_flip"), expected, atol=1e-4, rtol=0)
    assert (predict(ours, image, "ms_flip") == merged).all()


def test_a_checkpoint_is_loaded_whole_and_its_hash_given(mmsegmentation, tmp_path, caplog):
    _, path = checkpoint_of(mmsegmentation, "hrnet_tiny", tmp_path)
    content = torch.load(path, weights_only=False)
    state = content["state_dict"]
    state |= {"auxiliary_head.conv_seg.weight": torch.zeros(3), "ema.steps": torch.zeros(1)}
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    for name in counters:  # as in files of before torch 0.4.1
        del state[name]
    torch.save({"state_dict": state}, path)
    network = build("hrnet_tiny", CLASSES, weights="none")
    loaded = load_segmentation_checkpoint(network, path)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert all(tensor.equal(state[name]) for name, tensor in network.inference_state().items() if name not in counters)
    assert loaded.unused == ("auxiliary_head.conv_seg.weight", "ema.steps")
    assert "ema.steps" in caplog.text
    assert "auxiliary_head" not in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decode_head.conv_seg.bias": torch.zeros(19)}, r"decode_head\.conv_seg\.bias \(19 there, 5 here\)"),
        ({"backbone.stage4.9.weight": torch.zeros(2, 3)}, r"backbone\.stage4\.9\.weight \(2x3 there, none here\)"),
        ({"backbone.conv1.weight": None}, r"backbone\.conv1\.weight \(none there, 64x3x3x3 here\)"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(mmsegmentation, tmp_path, change, message):
    _, path = checkpoint_of(mmsegmentation, "hrnet_tiny", tmp_path)
    state = torch.load(path, weights_only=False)["state_dict"] | change
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, path)
    network = build("hrnet_tiny", CLASSES, weights="none")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(UserError, match=rf"hrnet_tiny\.pth.*{message} differ \(1 in all\)"):
        load_segmentation_checkpoint(network, path)
    assert all(tensor.equal(before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", [name for name in names() if load_spec(name).published])
def test_published_figures_are_the_packages_for_this_network_and_protocol(mmsegmentation, name):
    spec = load_spec(name)
    text = (mmsegmentation.configs / Path(spec.config).parent / "metafile.yaml").read_text()
    entries = {Path(entry["Weights"]).name: entry for entry in yaml.load(text, yaml.CSafeLoader)["Models"]}
    own_network = without_sizes(mmsegmentation.configuration(spec.config, CLASSES).model)
    for fact in spec.published:
        entry = entries[fact.checkpoint]
        config = mmsegmentation.configuration(entry["Config"].removeprefix("configs/"), CLASSES)
        assert without_sizes(config.model) == own_network
        if fact.protocol == "ms_flip":
            assert fact.miou == entry["Results"]["Metrics"]["mIoU(ms+flip)"]
            assert config.model.test_cfg.mode == "whole"
            continue
        assert fact.miou == entry["Results"]["Metrics"]["mIoU"]
        assert fact.protocol == config.model.test_cfg.mode
        if fact.window is not None:
            assert (fact.window, fact.stride) == (config.model.test_cfg.crop_size, config.model.test_cfg.stride)
        (scale,) = [step.scale for step in config.test_pipeline if step.type == "Resize"]
        native = {"cityscapes": (2048, 1024)}  # its pictures are all of the size that they would be scaled to
        assert (fact.fit or native[fact.dataset]) == scale


def without_sizes(model: Any):
    """What decides the network: the configuration less crop sizes and test settings."""
    left = {key: value for key, value in model.to_dict().items() if key not in ("test_cfg", "train_cfg")}
    left["data_preprocessor"].pop("size")
    return left


def known_answer(model, dataset, protocol, sha256=None):
    facts = (fact for fact in published(model, dataset, sha256) if fact.protocol == protocol)
    return next(((fact.miou, fact.tolerance) for fact in facts), None)


def test_a_known_answer_belongs_to_a_checkpoint_by_its_hash():
    first = known_answer("hrnet_w48", "cityscapes", "whole")
    assert first == known_answer("hrnet_w48", "cityscapes", "whole", "a989b146" + "0" * 56) == (78.48, 0.1)
    assert known_answer("hrnet_w48", "cityscapes", "whole", "59b7973e" + "0" * 56) == (80.65, 0.1)
    assert known_answer("hrnet_w48", "cityscapes", "whole", "0" * 64) is None
    assert known_answer("hrnet_w48", "camvid", "whole") is None
    assert known_answer("hrnet_tiny", "cityscapes", "whole") is None
    assert [fact.protocol for fact in published("segformer_b0", "cityscapes")] == ["slide"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": "model.pth"}, "eight digits"),
        ({"protocol": "slide"}, "window and stride"),
        ({"window": [4, 4], "stride": [2, 2]}, "window and stride"),
        ({"protocol": "slide", "window": [4, 4]}, "window and stride"),
        ({"miou": 101}, "must be 100.0 or smaller, not 101"),
    ],
)
def test_a_wrong_published_figure_is_refused(tmp_path, monkeypatch, change, message):
    fact = {"dataset": "d", "protocol": "whole", "miou": 50.0, "tolerance": 0.1, "checkpoint": "m-01234567.pth"}
    content = {"config": "a.py", "taps": {"channels": [1], "strides": [4]}, "published": [fact | change]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=f"published.*{message}"):
        load_spec("mine")
