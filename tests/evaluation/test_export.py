import json
import subprocess
import sys

import pytest
import torch
from run_files import make_record
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from harness import datasets, models
from harness.errors import UserError
from harness.evaluation.export import export
from harness.experiment.schema import Experiment, discovery
from harness.models.segmenter import state_hash
from harness.runs.record import inference_weights, read_json, write_json
from harness.training.trainer import Trainer


@pytest.fixture
def trained(experiment_file, tiny_data, tmp_path):
    """Makes the folder of a run of `method` after one iteration, as training leaves it."""

    def train(method="cross_entropy", model="hrnet_tiny"):
        arms = {"cross_entropy": {}, method: {}}
        experiment = Experiment.load(experiment_file(arms=arms, datasets=["tiny"], models=[model]))
        run = experiment.run("tiny", model, method, 0)
        settings = experiment.settings(run)
        trainer = Trainer(settings, 3, torch.device("cpu"), weights="none")
        images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
        trainer.step(images, torch.randint(0, 3, (2, 64, 64)), 0, 0.01)
        state = {name: tensor.contiguous() for name, tensor in trainer.network.inference_state().items()}
        folder = run.folder(tmp_path)
        path = inference_weights(folder)
        path.parent.mkdir(parents=True)
        save_file(state, path)
        make_record(experiment, run, weights_hash=state_hash(state)).save(folder / "training.json")
        return folder, trainer.network.eval()

    return train


def shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


# Every method's network at inference: tests/cost/test_latency.py.
@pytest.mark.parametrize(
    "method", ["contextrast_pp", *(pytest.param(each, marks=pytest.mark.exhaustive) for each in discovery.names())]
)
def test_the_export_of_a_method_has_exactly_the_baselines_parameters(trained, method):
    plain = models.build("hrnet_tiny", 3, weights="none")
    wanted, names = shapes(plain.state_dict()), {name for name, _ in plain.named_parameters()}
    count = sum(parameter.numel() for parameter in plain.parameters())
    folder, _ = trained(method)
    state = load_file(export(folder, "safetensors"))
    assert shapes(state) == wanted
    assert sum(state[name].numel() for name in names) == count


def test_safetensors_hold_the_trained_tensors_and_what_is_needed_to_use_them(trained, tmp_path):
    folder, network = trained("contextrast")
    out = export(folder, "safetensors", tmp_path / "there" / "network.safetensors")
    state = load_file(out)
    for name, tensor in network.state_dict().items():
        assert torch.equal(state[name], tensor)
    about = json.loads((tmp_path / "there" / "network.json").read_text())
    assert about["model"] == "hrnet_tiny"
    assert about["classes"] == list(datasets.load("tiny").classes)
    assert (about["mean"], about["std"]) == (network.mean.flatten().tolist(), network.std.flatten().tolist())
    assert about["weights_hash"] == read_json(folder / "training.json")["weights_hash"] == state_hash(state)
    assert about["key"]["arm"] == "contextrast"
    with safe_open(out, "pt") as file:
        assert file.metadata() == {"model": "hrnet_tiny", "weights_hash": about["weights_hash"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        "mobilenet_v2_d8",  # has an auxiliary head
        pytest.param("hrnet_tiny", marks=pytest.mark.exhaustive),
        pytest.param("segformer_b0", marks=pytest.mark.exhaustive),
        pytest.param("upernet_swin_t", marks=pytest.mark.exhaustive),
    ],
)
def test_torchscript_gives_the_same_logits_without_this_project_and_refuses_other_sizes(trained, tmp_path, model):
    folder, network = trained("contextrast", model)
    out = export(folder, "torchscript", size=(64, 96))
    assert json.loads(out.with_suffix(".json").read_text())["size"] == "64x96"
    images = torch.rand(1, 3, 64, 96) * 255
    torch.save(images, tmp_path / "images.pt")
    code = (
        "import sys, torch; network = torch.jit.load(sys.argv[1]); images = torch.load(sys.argv[2]);"
        "torch.save((network(images), network.state_dict()), sys.argv[3]); network(images[..., :64])"
    )
    arguments = [str(out), str(tmp_path / "images.pt"), str(tmp_path / "logits.pt")]
    done = subprocess.run([sys.executable, "-I", "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert "takes images of shape [1, 3, 64, 96], not [1, 3, 64, 64]" in done.stderr
    logits, state = torch.load(tmp_path / "logits.pt")
    with torch.no_grad():
        torch.testing.assert_close(logits, network(images), rtol=1e-5, atol=1e-5)
    kept = {name.removeprefix("network."): tensor for name, tensor in state.items()}
    constants = {"mean", "std"}  # of the normalisation
    assert shapes({k: v for k, v in kept.items() if k not in constants}) == shapes(network.inference_state())


def test_what_cannot_be_exported_is_refused_in_one_sentence(trained):
    folder, _ = trained()
    with pytest.raises(UserError, match="unknown format 'safetensor': did you mean safetensors"):
        export(folder, "safetensor")
    with pytest.raises(UserError, match="train"):
        export(folder.parent / "seed9", "safetensors")
    training = read_json(folder / "training.json")
    write_json(folder / "training.json", training | {"weights_hash": "0" * 64})
    with pytest.raises(UserError, match=r"not those of its training\.json"):
        export(folder, "safetensors")
    write_json(folder / "training.json", training | {"status": "diverged"})
    with pytest.raises(UserError, match="ended as diverged"):
        export(folder, "safetensors")
    assert not (folder / "export").exists()
