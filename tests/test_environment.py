"""environment.yml, pyproject.toml, the lock and the installed packages agree."""

import re
import tomllib
from importlib import metadata

import pytest
import yaml


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines) -> dict[str, str]:
    pairs = (line.split("==") for line in lines if line.strip())
    return {normal(name): version.strip() for name, version in pairs}


@pytest.fixture
def lock(repository) -> dict[str, str]:
    return pins((repository / "requirements" / "lock.txt").read_text().splitlines())


@pytest.fixture
def project(repository) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


def test_every_direct_dependency_is_pinned_as_in_the_lock(lock, project):
    direct = pins(project["dependencies"]) | pins(project["optional-dependencies"]["dev"])
    assert {name: lock.get(name) for name in direct} == direct
    assert lock["torch"] == "2.13.0"


def test_the_lock_is_what_is_installed(lock):
    # A local label such as +cpu says which build of a version it is, not which version.
    assert {name: metadata.version(name).split("+")[0] for name in lock} == lock


def test_the_lock_is_complete():
    from packaging.requirements import Requirement

    missing = []
    for distribution in metadata.distributions():
        for text in distribution.requires or []:
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            try:
                version = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                missing.append(requirement.name)
                continue
            assert requirement.specifier.contains(version, prereleases=True), f"{distribution.name} needs {text}"
    # The fork asks for the OpenCV with windows; the lock has the headless one, which provides the same module.
    assert set(missing) <= {"opencv-python"}


def test_one_opencv_and_no_second_torch(lock):
    assert [name for name in lock if name.startswith("opencv")] == ["opencv-python-headless"]
    assert not {"torchvision", "torchaudio", "timm", "triton"} & lock.keys()


def test_conda_installs_the_same_lock_on_the_same_python(repository, project):
    environment = yaml.safe_load((repository / "environment.yml").read_text())
    python, pip, by_pip = environment["dependencies"]
    assert (python, pip) == ("python=3.11", "pip")
    assert by_pip == {"pip": ["-r requirements/lock.txt"]}
    assert project["requires-python"] == ">=3.11"


def test_licence_and_citation_agree(repository, project):
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert citation["license"] == project["license"] == "MIT"
    assert (repository / "LICENSE").read_text().startswith("MIT License")
    assert citation["version"] == project["version"]


def test_ci_calls_make_test(repository):
    assert "make test" in (repository / ".ci" / "run").read_text().splitlines()
