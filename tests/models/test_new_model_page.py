"""docs/new-model.md: its file is a model, and what it says about it is so."""

import re
import textwrap

import pytest
import torch
import yaml

from harness import models


@pytest.fixture
def page(repository) -> str:
    return (repository / "docs" / "new-model.md").read_text(encoding="utf-8")


def block(page: str, language: str, after: str) -> str:
    """The first block of code in `language` behind the words `after`."""
    found = re.search(rf"^ *```{language}\n(.*?)```", page.split(after, 1)[1], re.DOTALL | re.MULTILINE)
    assert found is not None
    return textwrap.dedent(found[1])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the user's own."""
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("CONTEXTRAST_BENCH_MODELS", str(tmp_path / "mine"))
    return tmp_path / "mine"


@pytest.fixture
def added(page, folder) -> str:
    """The name of the page's configuration of mmsegmentation's, which lies in the user's folder now."""
    (folder / "pspnet_r18.yaml").write_text(block(page, "yaml", "`pspnet_r18.yaml`:"))
    return "pspnet_r18"


def test_the_pages_file_is_found_and_its_taps_are_as_the_pages_code_prints_them(page, added, capsys):
    assert added in models.names()
    exec(block(page, "python", "strides are these"), {})
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
