import importlib
import shutil
import subprocess
import sys

import pytest
import torch

from harness.errors import UserError
from harness.experiment.new_method import write_new_method
from harness.experiment.schema import Experiment, discovery

NAME = "my_method"  # README's example, so whoever follows it has a file of that name


@pytest.fixture(params=["fresh", "followed"])
def checkout(request, tmp_path, monkeypatch):
    """The folder of methods as it is committed, or after README's example was followed."""
    folder = tmp_path / "checkout"
    shutil.copytree(discovery.FOLDER, folder, ignore=shutil.ignore_patterns(f"{NAME}.py", "__pycache__"))
    if request.param == "followed":
        (folder / f"{NAME}.py").write_text("raise RuntimeError('not the method that the test has written')\n")
    monkeypatch.setattr(discovery, "FOLDER", folder)


@pytest.fixture
def written(checkout, tmp_path, monkeypatch, repository):
    """A new method in a folder of methods of its own, which borrows the project's parts."""
    import methods

    folder, config = tmp_path / "methods", tmp_path / "config"
    config.mkdir()
    shutil.copytree(discovery.FOLDER, folder, ignore=shutil.ignore_patterns(f"{NAME}.py"))
    monkeypatch.setattr(discovery, "FOLDER", folder)
    monkeypatch.setattr(methods, "__path__", [str(folder)])
    monkeypatch.delitem(sys.modules, f"methods.{NAME}", raising=False)  # theirs, if another test has imported it
    importlib.invalidate_caches()
    paths = write_new_method(NAME, config, repository / "config" / "smoke.yaml")
    yield paths
    sys.modules.pop(f"methods.{NAME}", None)
    importlib.invalidate_caches()


def test_the_copy_is_found_and_its_experiment_loads(written):
    _, config = written
    assert "my_method" in discovery.names()
    assert discovery.options("my_method") == {"dim": 64, "temperature": 0.1, "weight": 0.1}
    experiment = Experiment.load(config)
    assert list(experiment.arms) == ["cross_entropy", "contextrast", "my_method"]


def test_the_copy_of_the_template_trains(written):
    torch.manual_seed(0)
    method = discovery.load("my_method")([8, 16], 3)
    features = [torch.randn(2, 8, 8, 8, requires_grad=True), torch.randn(2, 16, 4, 4)]
    labels = torch.randint(0, 3, (2, 32, 32))
    labels[:, :4] = 255
    terms = method(features, torch.randn(2, 3, 8, 8), labels, 0)
    assert list(terms) == ["my_method"]
    terms["my_method"].backward()
    assert features[0].grad.abs().sum() > 0
    # One class against its own mean alone has nothing to separate; no pixel at all is 0 with a graph.
    for only in (1, 255):
        alone = method(features, torch.randn(2, 3, 8, 8), torch.full((2, 32, 32), only), 0)["my_method"]
        assert alone.item() == 0
        assert alone.requires_grad


def test_the_copy_is_clean_and_short(written):
    method, _ = written
    assert "template" not in method.read_text().lower()
    ruff = [sys.executable, "-m", "ruff"]
    assert subprocess.run([*ruff, "check", "--isolated", "--line-length", "120", str(method)]).returncode == 0
    assert subprocess.run([*ruff, "format", "--check", "--line-length", "120", str(method)]).returncode == 0
    assert len(method.read_text().splitlines()) < 90


@pytest.mark.parametrize("name", ["MyMethod", "my-method", "../up", "class", "contextrast", "my_method"])
def test_a_name_that_is_taken_or_no_identifier_is_refused(written, tmp_path, repository, name):
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        write_new_method(name, tmp_path / "config", repository / "config" / "smoke.yaml")
