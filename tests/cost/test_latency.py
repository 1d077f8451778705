import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from harness import models
from harness.compute.machine import Machine
from harness.cost import latency
from harness.cost.arms import inference_network
from harness.cost.complexity import flops, parameters
from harness.cost.latency import MODES, Setting, label_maps, measure_latency
from harness.cost.timing import Plan
from harness.errors import UserError
from harness.experiment import discovery
from harness.models.inference import predict

PLAN = Plan(warmup_iterations=2, warmup_seconds=0, rounds=3, settle=0, block=2)
MACHINE = Machine("cpu")
SMALL = {"methods": ["contextrast", "pne"], "plan": PLAN}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    paths = measure_latency("hrnet_tiny", (32, 64), MACHINE, tmp_path_factory.mktemp("results"), batch=3, **SMALL)
    return [(path, json.loads(path.read_text())) for path in paths]


@pytest.mark.slow
def test_a_record_a_mode_with_its_options_in_its_name(measured):
    (single, of_single), (offline, of_offline) = measured
    threads = torch.get_num_threads()
    assert single.name == f"hrnet_tiny-cityscapes-32x64-single_stream-batch1-float32-{threads}threads.json"
    assert offline.name == f"hrnet_tiny-cityscapes-32x64-offline-batch3-float32-{threads}threads.json"
    assert single.parts[-4:-2] == ("cost", "latency")
    for name, mode, record in ((single, "single_stream", of_single), (offline, "offline", of_offline)):
        assert (record["name"], record["setting"]["mode"]) == (name.stem, mode)


@pytest.mark.slow
def test_raw_samples_of_every_arm_and_of_a_second_baseline_are_kept(measured):
    for _, record in measured:
        assert list(record["arms"]) == ["cross_entropy", "cross_entropy (again)", "contextrast", "pne"]
        assert (record["baseline"], record["control"]) == ("cross_entropy", "cross_entropy (again)")
        for arm in record["arms"].values():
            assert np.array(arm["nanoseconds"]).shape == (3, 2)
            assert np.array(arm["nanoseconds"]).min() > 0
            assert arm["warmup"]["iterations"] >= 2
        assert [sorted(order) for order in record["order"]] == [[0, 1, 2, 3]] * 3


@pytest.mark.slow
def test_parameters_and_flops_are_counted_on_the_timed_networks_and_are_the_models(measured):
    plain = models.build("hrnet_tiny", 19, weights="none").eval()
    wanted = parameters(plain), flops(plain, torch.zeros(1, 3, 32, 64)) / 1e9
    for _, record in measured:
        assert {(arm["parameters"], arm["gflops"]) for arm in record["arms"].values()} == {wanted}
    one, three = (record["arms"]["pne"]["peak_bytes"] for _, record in measured)
    floor = 32 * 64 * (19 * 4 + 8)  # the float32 logits at the image's size and the int64 labels alone, an image
    assert one > floor
    assert max(one, 3 * floor) < three <= 3 * one


@pytest.mark.slow
def test_conditions_settings_and_provenance_stand_in_the_record(measured):
    _, record = measured[0]
    assert record["torch"]["threads"] == torch.get_num_threads()
    assert record["conditions"].keys() == {"before", "after"}
    assert record["provenance"]["packages"]["torch"] == torch.__version__
    assert record["plan"]["rounds"] == 3
    assert {"drift", "processor_share", "warnings", "energy_joules", "machine", "started"} <= record.keys()


def test_what_is_timed_is_what_evaluation_predicts():
    network = inference_network("hrnet_tiny", "contextrast", 19)
    image = np.random.default_rng(0).integers(0, 256, (40, 72, 3), np.uint8)
    with torch.inference_mode():
        timed = label_maps(network, torch.from_numpy(image).permute(2, 0, 1)[None])
    assert np.array_equal(timed[0].numpy(), predict(network, image, "whole"))


def test_every_option_is_part_of_the_name():
    base = Setting("hrnet_w48", "cityscapes", (512, 1024), "offline", 8)
    other = Setting("lite0_fpn", "camvid", (256, 1024), "single_stream", 1, "bfloat16", True, True)
    changed = [replace(base, **{field.name: getattr(other, field.name)}) for field in fields(Setting)]
    names = {setting.name(2) for setting in [base, *changed]} | {base.name(1), base.name(None)}
    assert len(names) == 1 + len(fields(Setting)) + 2
    assert other.name(None) == ("lite0_fpn-camvid-256x1024-single_stream-batch1-bfloat16-channels_last-compiled")


@pytest.mark.slow
def test_half_precision_channels_last_and_compiled_code_are_measured_by_the_same_code(tmp_path, monkeypatch):
    compiled, seen, compile_ = [], [], torch.compile

    def without_compiler(function, dynamic):
        compiled.append(function)
        return compile_(function, dynamic=dynamic, backend="eager")

    def spy(network, images):
        seen.append((next(network.parameters()), images))
        return label_maps(network, images)

    monkeypatch.setattr(torch, "compile", without_compiler)
    options = {"precision": "bfloat16", "channels_last": True, "modes": ["offline"], "batch": 2}
    options |= {"methods": [], "plan": PLAN}  # the baseline and its control
    (path,) = measure_latency("hrnet_tiny", (32, 64), MACHINE, tmp_path, compiled=True, **options)
    assert compiled == [label_maps]
    assert "bfloat16-channels_last-compiled" in path.stem
    monkeypatch.setattr(latency, "label_maps", spy)
    measure_latency("hrnet_tiny", (32, 64), MACHINE, tmp_path, **options)
    assert seen
    for weight, images in seen:
        assert (weight.dtype, images.dtype) == (torch.bfloat16, torch.uint8)
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_offline_takes_the_largest_power_of_two_that_fits(monkeypatch):
    monkeypatch.setattr(latency, "_images", lambda batch, *_: batch)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    for room, expected in ((1, 1), (7, 4), (8, 8), (10**6, latency.LARGEST_BATCH)):

        def runs(_, batch, room=room):
            if batch > room:
                raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(latency, "label_maps", runs)
        assert latency._offline_batch({"arm": None}, (8, 8), torch.device("cuda")) == expected
    monkeypatch.setattr(latency, "label_maps", lambda _, batch: runs(_, batch, room=0))
    with pytest.raises(UserError, match="one image of 8x8 does not fit"):
        latency._offline_batch({"arm": None}, (8, 8), torch.device("cuda"))
    assert latency._offline_batch({"arm": None}, (8, 8), torch.device("cpu")) == 8


def test_unknown_names_are_refused_before_anything_is_built(tmp_path):
    for keys, words in (
        ({"modes": ["singlestream"]}, "unknown mode 'singlestream': did you mean single_stream"),
        ({"precision": "float16"}, "unknown precision 'float16': did you mean"),
        ({"methods": ["pme"]}, "unknown method 'pme': did you mean pne"),
        ({"baseline": "cross_entropie"}, "unknown method 'cross_entropie': did you mean cross_entropy"),
        ({"dataset": "camvit"}, "unknown data set 'camvit': did you mean camvid"),
    ):
        with pytest.raises(UserError, match=words):
            measure_latency("hrnet_tiny", (32, 64), MACHINE, tmp_path, **keys)
    assert not list(tmp_path.iterdir())


def test_a_graph_needs_a_gpu(tmp_path):
    with pytest.raises(UserError, match="the mode graph replays a CUDA graph and needs a GPU"):
        measure_latency("hrnet_tiny", (32, 64), MACHINE, tmp_path, modes=["graph"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_recorded_network_predicts_what_a_called_one_does(dtype):
    network = models.build("hrnet_tiny", 19, weights="none").eval().to("cuda", dtype)
    images = torch.randint(0, 256, (1, 3, 64, 128), dtype=torch.uint8, device="cuda")
    found = []
    with torch.inference_mode():
        graph = latency.recorded(lambda: found.append(label_maps(network, images)))
        for seed in range(2):
            torch.manual_seed(seed)
            images.copy_(torch.randint(0, 256, images.shape, dtype=torch.uint8))
            graph.replay()
            called = label_maps(network, images)
            assert len(called.unique()) > 1
            assert (found[-1] == called).double().mean() > 0.999  # up to ties


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_graph_is_timed_beside_what_is_called(tmp_path):
    machine, options = Machine("cuda"), {"methods": [], "plan": PLAN, "modes": ["graph", "single_stream"]}
    for path, mode in zip(measure_latency("hrnet_tiny", (32, 64), machine, tmp_path, **options), MODES, strict=False):
        record = json.loads(path.read_text())
        assert record["setting"]["mode"] == mode
        assert all(arm["peak_bytes"] > 0 for arm in record["arms"].values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    ["hrnet_tiny", "mobilenet_v2_d8"]  # the second has an auxiliary head
    + [pytest.param(name, marks=pytest.mark.exhaustive) for name in ("lite0_fpn", "segformer_b0", "upernet_swin_t")],
)
def test_after_training_every_methods_inference_network_has_the_baselines_parameters_and_operations(model):
    plain = models.build(model, 19, weights="none").eval()
    plain.auxiliary_head = None
    images = torch.zeros(1, 3, 64, 64)
    wanted = parameters(plain), flops(plain, images)
    names = discovery.names() if model == "hrnet_tiny" else ["contextrast", "contextrast_pp"]
    for method in names:
        network = inference_network(model, method, 19)
        assert (parameters(network), flops(network, images)) == wanted, method
        assert not any("auxiliary" in name for name in network.state_dict())


@pytest.mark.slow
def test_arms_share_no_memory_and_hold_what_training_left():
    ours, again = (inference_network("hrnet_tiny", "contextrast", 19) for _ in range(2))
    plain = inference_network("hrnet_tiny", "cross_entropy", 19)
    mine, others, baselines = (dict(network.named_parameters()) for network in (ours, again, plain))
    assert not {each.data_ptr() for each in mine.values()} & {each.data_ptr() for each in others.values()}
    assert all(torch.equal(mine[name], others[name]) for name in mine)  # training is repeatable
    assert any(not torch.equal(mine[name], baselines[name]) for name in mine)  # and the method changed it
