"""Whether a record's commit is all of the code that ran, and which processor it says that it ran on."""

import platform
import subprocess

import pytest

from harness.compute import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one committed method."""
    folder = tmp_path / "checkout"
    for name in ("methods", "harness", "config", "results", "docs"):
        (folder / name).mkdir(parents=True)
    (folder / "methods" / "mine.py").write_text("1\n")
    (folder / ".gitignore").write_text("__pycache__/\n")
    author = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    monkeypatch.setattr(provenance, "ROOT", folder)
    return folder


def is_dirty():
    return provenance.provenance("cpu")["dirty"]


@pytest.mark.parametrize("name", ["methods/new.py", "harness/models/new.yaml", "config/try_new.yaml"])
def test_a_file_that_takes_part_and_is_in_no_commit_makes_the_code_another(checkout, name):
    assert not is_dirty()
    (checkout / name).parent.mkdir(exist_ok=True)
    (checkout / name).write_text("1\n")
    assert is_dirty()


def test_a_changed_file_makes_the_code_another(checkout):
    (checkout / "methods" / "mine.py").write_text("2\n")
    assert is_dirty()


def test_results_notes_and_what_is_ignored_do_not(checkout):
    for name in ("results/record.json", "docs/notes.md", "todo.txt", "methods/__pycache__/mine.pyc"):
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text("1\n")
    assert not is_dirty()


def commit_and_dirty():
    found = provenance.provenance("cpu")
    return found["commit"], found["dirty"]


def test_without_a_repository_nothing_is_known_of_the_code(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert commit_and_dirty() == (None, None)
    assert "is unknown" in caplog.text


def test_a_repository_around_the_project_is_not_its_own(checkout, monkeypatch, caplog):
    inside = checkout / "results" / "project"
    inside.mkdir()
    (checkout / ".gitignore").write_text("results/\n")
    monkeypatch.setattr(provenance, "ROOT", inside)
    assert commit_and_dirty() == (None, None)
    assert f"another repository, {checkout}" in caplog.text


def test_a_repository_that_git_refuses_to_look_at_is_unknown(checkout, monkeypatch, caplog):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert commit_and_dirty() == (None, None)
    assert "dubious ownership" in caplog.text


def test_without_git_nothing_is_known_of_the_code(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit_and_dirty() == (None, None)


def test_the_environment_of_a_hook_names_no_other_repository(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    commit, dirty = commit_and_dirty()
    assert (len(commit), dirty) == (40, False)


X86 = "processor\t: {0}\ncpu family\t: 6\nmodel\t\t: {1}\nmodel name\t: Some Processor\nstepping\t: 2\n"
ARM = "processor\t: {0}\nCPU implementer\t: 0x41\nCPU variant\t: 0x3\nCPU part\t: {1}\nCPU revision\t: 1\n"


@pytest.mark.parametrize(
    ("text", "name", "model"),
    [
        (X86.format(0, 207) + "\n" + X86.format(1, 85), "Some Processor", "cpu family 6, model 207, stepping 2"),
        (ARM.format(0, "0xd0c"), None, "CPU implementer 0x41, CPU variant 0x3, CPU part 0xd0c, CPU revision 1"),
        ("", None, None),
        (None, None, None),
    ],
)
def test_a_processor_is_named_and_numbered(text, name, model, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "CPUINFO", tmp_path / "cpuinfo")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    found = provenance.processor()
    assert found["name"] == (name or platform.processor() or platform.machine())
    assert found.get("model") == model
    assert found.items() <= provenance.provenance("cpu")["device"].items()
