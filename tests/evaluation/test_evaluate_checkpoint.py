"""`evaluate --checkpoint`: a network's file in, scores and the verdict on its published figure out."""

import hashlib
import json
from functools import partial

import pytest
import torch

from harness import models
from harness.cli import main
from harness.models import build
from harness.models.spec import Published

pytestmark = pytest.mark.slow


@pytest.fixture
def checkpoint(tmp_path):
    """A file as mmsegmentation saves it, of a network for the three classes of the data set `tiny`."""
    torch.manual_seed(0)
    path = tmp_path / "network.pth"
    torch.save({"meta": {}, "state_dict": build("hrnet_tiny", 3, "none").inference_state()}, path)
    return path


def evaluate(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["harness", "evaluate", *map(str, arguments)])
    status = main()
    return status, capsys.readouterr()


def test_a_published_figure_is_met_or_missed(checkpoint, tiny_data, monkeypatch, capsys):
    of_file = ["--checkpoint", checkpoint, "--model", "hrnet_tiny", "--dataset", "tiny", "--threads", "1"]
    status, said = evaluate(monkeypatch, capsys, *of_file, "--protocol", "whole", "--protocol", "ms_flip", "--json")
    assert status == 0
    found = json.loads(said.out)
    assert found["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert (found["split"], found["images"], found["known_answers"]) == ("test", 3, {})
    assert "no score is published for this file on tiny" in said.err

    miou = {protocol: scores["miou"] for protocol, scores in found["scores"].items()}
    mark = found["sha256"][:8]

    def published(shift, model, dataset, sha256):
        assert (model, dataset, sha256) == ("hrnet_tiny", "tiny", found["sha256"])
        fact = {"dataset": "tiny", "tolerance": 0.1, "checkpoint": f"network-{mark}.pth"}
        return [Published(protocol=name, miou=value + shift, **fact) for name, value in miou.items()]

    for shift, expected, word in ((0.09, 0, "pass"), (0.11, 1, "fail")):
        monkeypatch.setattr(models, "published", partial(published, shift))
        status, said = evaluate(monkeypatch, capsys, *of_file, "--json")
        assert status == expected
        answers = json.loads(said.out)["known_answers"]
        assert answers.keys() == {"whole", "ms_flip"}
        assert answers["whole"]["measured"] == miou["whole"]
        assert answers["whole"]["passed"] is (word == "pass")
        assert said.err.count(f"within 0.1: {word}") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "hrnet_tiny"], ["--dataset"]),
        (["--model", "hrnet_tiny", "--dataset", "tiny", "--protocol", "slide"], ["slide", "--window"]),
        (["--model", "hrnet_tiny", "--dataset", "tiny", "--window", "512"], ["size '512'", "512x1024"]),
        (["--model", "segformer_b0", "--dataset", "tiny"], ["network.pth"]),
        (["some_run"], ["RUN_DIR", "--checkpoint"]),
    ],
)
def test_a_mistake_is_one_sentence(checkpoint, tiny_data, monkeypatch, capsys, arguments, words):
    status, said = evaluate(monkeypatch, capsys, "--checkpoint", checkpoint, *arguments)
    assert status == 2
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    for word in words:
        assert word in last
