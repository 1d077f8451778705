"""environment.yml, pyproject.toml, the lock, the package index and the installed packages agree."""

import ast
import itertools
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from harness import __version__

PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin")
PYTHONS = ("3.11", "3.12", "3.13")
ALWAYS_TRIED = ("3.13", "aarch64-apple-darwin")  # farthest from where the tests run
BROUGHT_BY_USERS = {"detectron2"}
# Published as sources alone; pure Python, so that they install anywhere.
SOURCES = ("connection-pool", "onedl-mmcv", "onedl-mmsegmentation")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines) -> dict[str, str]:
    pairs = (line.split("==") for line in lines if "==" in line)
    return {normal(name): version.strip() for name, version in pairs}


@pytest.fixture
def requirements(repository) -> Path:
    return repository / "requirements"


@pytest.fixture
def lock(requirements) -> dict[str, str]:
    """What is installed besides torch and the packages of its CUDA build."""
    return pins((requirements / "lock.txt").read_text().splitlines())


@pytest.fixture
def torch(requirements) -> dict[str, str]:
    return pins((requirements / "torch.txt").read_text().splitlines())


@pytest.fixture
def cuda(requirements) -> dict[str, str]:
    return pins((requirements / "cuda.txt").read_text().splitlines())


@pytest.fixture
def project(repository) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


def test_every_direct_dependency_is_pinned_as_in_the_lock(lock, torch, project):
    direct = pins(project["dependencies"])
    for extra in ("train", "report", "snakemake", "dev"):
        direct |= pins(project["optional-dependencies"][extra])
    assert {name: (lock | torch).get(name) for name in direct} == direct


def test_every_package_that_the_project_imports_is_a_direct_dependency(repository, project):
    imported = set()
    for folder in ("harness", "methods", "workflow"):
        for path in (repository / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {each.name.partition(".")[0] for each in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    imported.add(node.module.partition(".")[0])
    own = {"harness", "methods", "workflow"}
    packages = metadata.packages_distributions()
    distributions = {
        normal(packages.get(name, [name])[0]) for name in imported - own - sys.stdlib_module_names - BROUGHT_BY_USERS
    }
    listed = pins(itertools.chain(project["dependencies"], *project["optional-dependencies"].values()))
    assert not distributions - set(listed)


def test_the_lock_is_what_is_installed(lock, torch):
    # A local label such as +cpu says which build of a version it is, not which version.
    assert {name: metadata.version(name).split("+")[0] for name in lock | torch} == lock | torch


def test_one_opencv_and_no_second_torch(lock, torch, requirements):
    assert [name for name in lock if name.startswith("opencv")] == ["opencv-python-headless"]
    assert list(torch) == ["torch"]
    assert not {"torch", "torchvision", "torchaudio", "timm", "triton"} & lock.keys()
    alias = tomllib.loads((requirements / "opencv-alias" / "pyproject.toml").read_text())
    assert alias["tool"]["setuptools"] == {"py-modules": []}  # it brings no module of its own


def resolve(repository: Path, requirements: list[str], python: str, platform: str) -> dict[str, str]:
    """What the package index alone, without any local wheel, makes of requirements for a Python on a platform."""
    command = [str(Path(sys.executable).parent / "uv"), "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    command += ["--no-config", "--python-version", python, "--python-platform", platform, "--only-binary", ":all:"]
    for name in SOURCES:
        command += ["--no-binary", name]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    kept["MACOSX_DEPLOYMENT_TARGET"] = "14.0"  # the oldest macOS that torch is built for
    done = subprocess.run(
        [*command, "-"], cwd=repository, env=kept, input="\n".join(requirements), capture_output=True, text=True
    )
    if done.returncode and re.search(r"Could not connect|error sending request|dns error|timed out", done.stderr):
        pytest.skip(f"the package index does not answer: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return pins(done.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("python", "platform"),
    [
        pytest.param(*pair, marks=[] if pair == ALWAYS_TRIED else pytest.mark.exhaustive)
        for pair in itertools.product(PYTHONS, PLATFORMS)
    ],
)
def test_the_lock_meets_every_requirement_of_its_packages(repository, lock, torch, cuda, python, platform):
    """With all requirements resolved, exactly the locked packages come out: none is missing, and no pin conflicts."""
    environment = yaml.safe_load((repository / "environment.yml").read_text())
    *_, by_pip = environment["dependencies"]
    resolved = resolve(repository, by_pip["pip"], python, platform)
    expected = lock | torch | (cuda if "linux" in platform else {})
    assert {name: version for name, version in resolved.items() if name != "opencv-python"} == expected


def test_conda_installs_what_make_installs(repository, project):
    environment = yaml.safe_load((repository / "environment.yml").read_text())
    *_, by_pip = environment["dependencies"]
    assert "python=3.11" in environment["dependencies"]
    assert by_pip == {"pip": ["./requirements/opencv-alias", "-r requirements/torch.txt", "-r requirements/lock.txt"]}
    assert project["requires-python"] == ">=3.11,<3.14"


def test_another_python_is_refused_before_anything_is_made(requirements, tmp_path):
    code = "import sys; sys.version_info = (3, 14, 0); sys.argv = ['install.py', sys.argv[1]]; exec(sys.stdin.read())"
    source = f"__file__ = {str(requirements / 'install.py')!r}\n" + (requirements / "install.py").read_text()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "venv")], input=source, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "3.14" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "venv").exists()


def test_licence_and_citation_agree(repository, project):
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert citation["license"] == project["license"] == "MIT"
    assert (repository / "LICENSE").read_text().startswith("MIT License")
    assert citation["version"] == __version__


def test_ci_calls_make_test(repository):
    assert "make test" in (repository / ".ci" / "run").read_text().splitlines()
