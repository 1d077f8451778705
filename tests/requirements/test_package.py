"""`pip install .`: what is installed works from a folder of the user's own."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def command(repository, tmp_path_factory):
    """The installed console script; its environment borrows the packages of this one."""
    folder = tmp_path_factory.mktemp("package")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    site = next((folder / "env").glob("lib/python*/site-packages"))
    here = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "borrowed.pth").write_text(here + "\n")
    # A copy, since setuptools builds inside the folder it installs from.
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "harness", "methods", "config",
                            "results/published", "setup.py", "pyproject.toml", "README.md", "LICENSE"],
                           cwd=repository, check=True, capture_output=True, text=True).stdout.split()  # fmt: skip
    for name in filter(lambda name: (repository / name).is_file(), names):
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "source" / name).write_bytes((repository / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--python", folder / "env" / "bin" / "python", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--no-index", folder / "source"], check=True)
    return folder / "env" / "bin" / "contextrast-bench"


@pytest.mark.slow
def test_a_project_of_ones_own_finds_methods_experiments_and_published_figures(command, tmp_path):
    def run(*arguments, status=0):
        done = subprocess.run([command, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    from harness import __version__

    assert run("--version").strip() == f"contextrast-bench {__version__}"
    assert "new-method" in run("init", "mine")
    tmp_path = tmp_path / "mine"
    assert "contextrast-bench run config/try_my_loss.yaml" in run("new-method", "my_loss")  # there is no Makefile
    assert (tmp_path / "methods" / "my_loss.py").is_file()
    assert "my_loss" in run("list", "methods")
    assert "my_loss" in run("plan", "config/try_my_loss.yaml")
    assert "exists: choose an empty folder" in run("init", status=2)
    installed = [command.parent / "python", "-c", "from harness.reporting.published import FOLDER; print(FOLDER)"]
    folder = subprocess.run(installed, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
    assert "site-packages" in folder and (Path(folder) / "miou_main.csv").is_file()

    (tmp_path / "methods" / "broken.py").write_text("class Broken(:\n")
    assert "my_loss" in run("list", "methods")  # a broken file stops nobody else
    said = run("plan", "config/try_my_loss.yaml", "--set", "arms.broken={}", status=2)
    assert "methods/broken.py, line 1 is not valid Python" in said

    (tmp_path / "methods" / "contextrast.py").write_text("")
    assert "rename it" in run("plan", "config/try_my_loss.yaml", status=2)
