"""docs/tutorial.md: its file is a method that keeps the contract, and its commands exist."""

import re
import shlex
import shutil
import sys

import pytest
import torch
import yaml

from harness.experiment import discovery
from harness.experiment.schema import Experiment


@pytest.fixture(scope="module")
def tutorial(repository):
    """The fenced blocks of the tutorial as (language, content)."""
    return re.findall(r"```(\w+)\n(.*?)```", (repository / "docs/tutorial.md").read_text(), re.DOTALL)


@pytest.fixture
def method(tutorial, tmp_path, monkeypatch):
    """The tutorial's method, built from a user's own folder."""
    import methods

    ((_, code),) = [block for block in tutorial if block[0] == "python"]
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "center_margin.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    yield discovery.load("center_margin")
    sys.modules.pop("methods.center_margin", None)


def test_the_loss_is_the_formula(method):
    built = method([8], 3, dim=8, margin=0.4, weight=1.0)
    torch.manual_seed(0)
    embedding = torch.randn(1, 8, 4, 4, dtype=torch.float64)
    labels = torch.randint(0, 2, (1, 4, 4))  # class 2 is absent
    labels[0, 0] = 255
    (loss,) = built.loss([embedding], torch.zeros(1, 3, 4, 4), labels, 0).values()
    vectors = (embedding / embedding.norm(dim=1, keepdim=True))[0].movedim(0, -1)
    means = [vectors[labels[0] == c].mean(0) for c in (0, 1)]
    cosines = torch.stack([vectors @ (m / m.norm()) for m in means], -1)
    terms = [
        max(0.0, 0.4 + cosines[y, x, 1 - labels[0, y, x]].item() - cosines[y, x, labels[0, y, x]].item())
        for y in range(1, 4)
        for x in range(4)
    ]
    assert loss.item() == pytest.approx(sum(terms) / 12, abs=1e-12)


def test_constant_embeddings_are_at_the_stated_chance(method):
    built = method([8], 3)
    (loss,) = built.loss(
        [torch.ones(1, 8, 4, 4)], torch.zeros(1, 3, 4, 4), torch.arange(16).view(1, 4, 4) % 3, 0
    ).values()
    assert loss.item() == pytest.approx(built.diagnostics["chance/center_margin"].item(), rel=1e-5)


def test_its_experiment_loads(tutorial, method, repository, tmp_path):
    ((_, arms),) = [block for block in tutorial if block[0] == "yaml"]
    settings = yaml.safe_load((repository / "config/quick.yaml").read_text()) | yaml.safe_load(arms)
    path = tmp_path / "try_center_margin.yaml"
    path.write_text(yaml.safe_dump(settings))
    assert Experiment.load(path).arms["center_margin_small"].options["margin"] == 0.1


def test_its_commands_exist(tutorial, repository):
    from harness.cli.verbs import VERBS

    verbs = {name for panel in VERBS.values() for name in panel}
    commands = [
        line[2:] for kind, text in tutorial if kind == "console" for line in text.splitlines() if line.startswith("$ ")
    ]
    assert len(commands) == 5
    for command in commands:
        words = shlex.split(command)
        if "harness" in words:
            assert words[words.index("harness") + 1] in verbs
        elif "pytest" in words:
            assert (repository / words[-3]).is_file()
        else:
            assert words[0] in ("make", "export") and (words[0] == "export" or shutil.which("make"))
