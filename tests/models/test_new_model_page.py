"""docs/new-model.md: its file is a model, and what it says about it is so."""

import re
import shutil

import pytest
import torch
import yaml

from harness import models


@pytest.fixture
def page(repository) -> str:
    return (repository / "docs" / "new-model.md").read_text(encoding="utf-8")


def block(page: str, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", page, re.DOTALL)
    assert found is not None
    return "\n".join(line.removeprefix("  ") for line in found[1].splitlines()) if language == "python" else found[1]


@pytest.fixture
def added(page, tmp_path, monkeypatch) -> str:
    """The name of the page's model, which lies in the folder of models now."""
    shutil.copytree(models.FOLDER, tmp_path / "models", ignore=shutil.ignore_patterns("__pycache__"))
    path = re.search(r"`harness/models/(\w+)\.yaml`:", page)
    assert path is not None
    (tmp_path / "models" / f"{path[1]}.yaml").write_text(block(page, "yaml"))
    monkeypatch.setattr(models, "FOLDER", tmp_path / "models")
    return path[1]


def test_the_pages_file_is_found_and_its_taps_are_as_the_pages_code_prints_them(page, added, capsys):
    assert added in models.names()
    exec(block(page, "python"), {})
    taps = models.load_spec(added).taps
    assert capsys.readouterr().out == f"{list(taps.channels)} {list(taps.strides)}\n"


def test_the_pages_model_learns(added):
    torch.manual_seed(0)
    network = models.build(added, 3, weights="none")
    images, labels = torch.randint(0, 256, (2, 3, 64, 64)), torch.randint(0, 3, (2, 64, 64))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    losses = []
    for _ in range(2):
        loss = torch.stack(list(network.losses(*network.decode(network.features(images)), labels).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]


def test_the_pages_published_figure_is_the_packages(added, mmsegmentation):
    (fact,) = models.load_spec(added).published
    entries = yaml.safe_load((mmsegmentation.configs / "pspnet" / "metafile.yaml").read_text())["Models"]
    (entry,) = [entry for entry in entries if entry["Weights"].endswith(fact.checkpoint)]
    assert (entry["Results"]["Metrics"]["mIoU"], entry["Config"]) == (
        fact.miou,
        f"configs/{models.load_spec(added).config}",
    )


def test_the_pages_table_names_models_that_are_here(page):
    rows = re.findall(r"^\| (`.*?) \|", page.split("## What is here")[1], re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert {"hrnet_w48", "upernet_swin_t", "segformer_b1"} <= set(named) <= set(models.names())
