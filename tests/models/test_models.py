import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import models
from harness.errors import UserError
from harness.models import build, load_spec

TAPS = {  # channels and strides, from the papers
    "deeplabv3_r101": ((256, 512, 1024, 2048), (4, 8, 8, 8)),
    "hrnet_tiny": ((16, 24, 32, 48), (4, 8, 16, 32)),
    "hrnet_w18_small": ((18, 36, 72, 144), (4, 8, 16, 32)),
    "hrnet_w48": ((48, 96, 192, 384), (4, 8, 16, 32)),
    "hrnet_w48_scratch": ((48, 96, 192, 384), (4, 8, 16, 32)),
    "lite0_fpn": ((24, 40, 112, 320), (4, 8, 16, 32)),
    "lite0_fpn_scratch": ((24, 40, 112, 320), (4, 8, 16, 32)),
    "mobilenet_v2_d8": ((24, 32, 96, 320), (4, 8, 8, 8)),
    "ocrnet_hrnet_w48": ((48, 96, 192, 384), (4, 8, 16, 32)),
    "segformer_b0": ((32, 64, 160, 256), (4, 8, 16, 32)),
    "segformer_b1": ((64, 128, 320, 512), (4, 8, 16, 32)),
    "upernet_swin_t": ((512, 512, 512, 512), (4, 8, 16, 32)),
    "upernet_swin_t_stages": ((96, 192, 384, 768), (4, 8, 16, 32)),
}
SMALL = ("hrnet_tiny", "lite0_fpn", "lite0_fpn_scratch")


@pytest.fixture(scope="module")
def segmenters():
    return {name: build(name, 5, weights="none") for name in SMALL}


@pytest.mark.parametrize("name", TAPS)
def test_every_file_names_the_taps(name):
    assert (load_spec(name).taps.channels, load_spec(name).taps.strides) == TAPS[name]


def test_what_a_runs_settings_hold_of_a_model_is_what_committed_records_were_made_with():
    # Keys that came later appear only where they are used; published figures never.
    weights = {"package": None, "file": None, "url": "open-mmlab://msra/hrnetv2_w48", "rename": {}, "without": []}
    assert load_spec("hrnet_w48").model_dump(mode="json") == {
        "name": "hrnet_w48",
        "config": "hrnet/fcn_hr48_4xb2-40k_cityscapes-512x1024.py",
        "taps": {"channels": [48, 96, 192, 384], "strides": [4, 8, 16, 32]},
        "overrides": {},
        "weights": weights,
    }
    scratch = load_spec("lite0_fpn_scratch").model_dump(mode="json")
    assert scratch["weights"] == weights | {"url": None}
    swin = load_spec("upernet_swin_t").model_dump(mode="json")
    assert (swin["taps"]["at"], swin["weights"]["configuration"]) == ("fpn", True)


@pytest.mark.slow
def test_building_a_model_says_nothing_on_the_terminal():
    code = "from harness.models import build; build('lite0_fpn', 2); build('upernet_swin_t', 2, 'none')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(UserError, match="did you mean lite0_fpn"):
        load_spec("lite0_fnp")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config: a.py\ntaps: {channels: [1], strides: [4]}\ncolour: red\n", "mine.yaml: unknown key 'colour'"),
        ("config: a.py\ntaps: {channels: [1], strides: [4]}\nname: mine\n", "mine.yaml: unknown key 'name': allowed"),
        ("config: a.py\n", "mine.yaml: taps is missing"),
        ("config: a.py\ntaps: {channels: [1.5], strides: [4]}\n", "taps.channels.0 must be a whole number, not 1.5"),
        ("config: a.py\ntaps: {channels: [1], strides: [4], stride: 4}\n", "unknown key 'stride' in taps: did you"),
        ("config: a.py\ntaps: {channels: [1], strides: [4]}\nweights: {package: p}\n", "belong together"),
        ("config: a.py\ntaps: {channels: [1], strides: [4]}\nweights: {url: u, configuration: true}\n", "give one of"),
        ("config: a.py\ntaps: {at: neck, channels: [1], strides: [4]}\n", "taps.at"),
        ("config: a.py\ntaps: {channels: [1], strides: 4}\n", "taps.strides must be a list"),
        ("config: a.py\ntap: {channels: [1], strides: [4]}\n", "unknown key 'tap': did you mean taps"),
        ("- a list\n", "not a model"),
        ("", "must hold keys such as source and taps"),
        ("base: nothing\n", "unknown model"),
        ("config: [unclosed\n", "not a model"),
    ],
)
def test_a_wrong_model_file_is_refused_by_its_key(tmp_path: Path, monkeypatch, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=message):
        load_spec("mine")


def test_a_configuration_that_mmsegmentation_lacks_is_named():
    from harness.models.building import from_spec

    with pytest.raises(UserError, match=r"no configuration hrnet/none\.py"):
        from_spec(load_spec("hrnet_tiny").model_copy(update={"config": "hrnet/none.py"}), 5)


@pytest.mark.parametrize("name", ["lite0_fpn", "hrnet_w48"])
def test_the_scratch_model_is_the_pretrained_one_without_weights(name):
    pretrained, scratch = load_spec(name), load_spec(f"{name}_scratch")
    assert pretrained.weights.package or pretrained.weights.url
    assert not scratch.weights.package
    assert not scratch.weights.url
    assert scratch.published == ()
    assert scratch.model_dump(exclude={"name", "weights"}) == pretrained.model_dump(exclude={"name", "weights"})


@settings(max_examples=15, deadline=None)
@given(height=st.integers(33, 80), width=st.integers(33, 80), name=st.sampled_from(SMALL))
def test_taps_have_their_channels_and_strides_at_any_size(segmenters, height, width, name):
    segmenter = segmenters[name].eval()
    images = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    with torch.no_grad():
        features = segmenter.features(images)
        logits, auxiliary = segmenter.decode(features)
    sizes = [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32)]
    channels = TAPS[name][0]
    assert [tuple(map_.shape) for map_ in features] == [(1, c, *s) for c, s in zip(channels, sizes, strict=True)]
    assert segmenter.channels == list(channels)
    assert segmenter.strides == [4, 8, 16, 32]
    assert logits.shape == (1, 5, *sizes[0])
    assert auxiliary == []


@pytest.mark.parametrize("name", ["hrnet_tiny", "lite0_fpn"])
def test_channels_last_stays_channels_last_and_gives_the_same_logits(segmenters, name):
    segmenter = segmenters[name].eval()
    images = torch.randint(0, 256, (2, 3, 65, 70), dtype=torch.uint8)
    with torch.no_grad():
        expected = segmenter(images)
        segmenter.to(memory_format=torch.channels_last)
        features = segmenter.features(images)
        found = segmenter(images)
        segmenter.to(memory_format=torch.contiguous_format)
    assert all(map_.is_contiguous(memory_format=torch.channels_last) for map_ in features)
    torch.testing.assert_close(found, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)


def test_the_start_of_a_model_from_scratch_depends_on_the_seed_alone():
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build("hrnet_tiny", 5).state_dict())
    assert all(states[0][name].equal(states[1][name]) for name in states[0])
    assert not all(states[0][name].equal(states[2][name]) for name in states[0])
