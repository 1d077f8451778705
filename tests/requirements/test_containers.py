"""The container files ask for things that exist: no builder runs in the tests."""

import re
import shlex
import shutil
import subprocess
import tomllib

import pytest
from packaging.specifiers import SpecifierSet


@pytest.fixture(scope="module")
def instructions(repository):
    """The Dockerfile's instructions as (name, rest), continued lines joined."""
    text = (repository / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]


def test_what_the_dockerfile_copies_exists_and_is_not_ignored(repository, instructions):
    copied = [shlex.split(rest)[0] for name, rest in instructions if name == "COPY"]
    assert copied == ["requirements", "Makefile", "."]
    assert all((repository / source).exists() for source in copied)
    ignored = (repository / ".dockerignore").read_text().split()
    assert not {"requirements", ".git", "harness", "methods", "config", "Makefile", "Snakefile"} & set(ignored)


@pytest.mark.parametrize("torch", ["", "cpu"])
def test_the_packages_install_from_what_is_copied_before_them(repository, tmp_path, instructions, torch):
    before = [rest for name, rest in instructions if name == "COPY"][:2]
    for rest in before:
        source = repository / shlex.split(rest)[0]
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / source.name)
    (command,) = [rest for name, rest in instructions if name == "RUN" and "make " in rest and "apt-get" not in rest]
    command = command.replace("make ", "make --dry-run ").replace("${TORCH}", torch).replace("${INDEX}", "")
    planned = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr
    assert "requirements/install.py .venv" in planned.stdout
    assert ("--torch cpu" in planned.stdout) == bool(torch)


def test_both_use_a_python_that_the_project_supports(repository):
    supported = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["requires-python"]
    versions = re.findall(r"PYTHON=(\d\.\d+)$", (repository / "Dockerfile").read_text(), re.MULTILINE)
    versions += re.findall(r"^From: python:(\d\.\d+)-", (repository / "apptainer.def").read_text(), re.MULTILINE)
    assert len(versions) == 2
    assert all(version in SpecifierSet(supported) for version in versions)


def test_the_apptainer_definition_has_its_sections(repository):
    text = (repository / "apptainer.def").read_text()
    assert re.findall(r"^%(\w+)", text, re.MULTILINE) == ["files", "post", "environment", "runscript", "test"]
    post = text.partition("%post")[2].partition("%environment")[0]
    checked = subprocess.run(["sh", "-n"], input=post, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
