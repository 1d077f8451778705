"""The help: every verb stands in a panel, every option is described, and every example parses."""

import shlex
from pathlib import Path

import pytest
import typer

from harness.cli import app
from harness.cli.verbs import VERBS
from harness.experiment.project import experiment_path

GROUP = typer.main.get_command(app)
EXAMPLES = [(name, example) for verbs in VERBS.values() for name, examples in verbs.items() for example in examples]


def test_every_verb_has_a_panel_and_an_example():
    listed = [name for verbs in VERBS.values() for name in verbs]
    assert sorted(listed) == sorted(GROUP.commands)
    assert {name for name, _ in EXAMPLES} == set(listed)


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_every_example_parses_and_stands_in_the_help(name, example, monkeypatch, repository):
    monkeypatch.chdir(repository)
    command = GROUP.commands[name]
    verb, *arguments = shlex.split(example)
    assert verb == name
    command.make_context(name, arguments)  # refuses an option that there is none of, and a missing one
    assert f"python -m harness {example}" in command.epilog


def test_a_wrong_example_would_be_found():
    with pytest.raises(Exception, match="No such option"):
        GROUP.commands["plan"].make_context("plan", ["--configuration", "quick"])


@pytest.mark.parametrize("name", sorted(GROUP.commands))
def test_every_verb_and_option_is_described(name):
    command = GROUP.commands[name]
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_an_experiment_is_a_name_or_a_path(monkeypatch, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mine.yaml").touch()
    (tmp_path / "here.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert experiment_path("mine") == Path("config/mine.yaml")
    for path in ("here.yaml", "config/mine.yaml", "unknown", str(tmp_path / "here.yaml")):
        assert experiment_path(path) == Path(path)


@pytest.mark.parametrize(
    ("given", "option", "begun", "proposed"),
    [
        ([], "config", "camvid-sc", ["camvid-scratch"]),
        (["ablations"], "arm", "contextrast_v1", ["contextrast_v1_constants"]),
        (["nowhere"], "arm", "c", []),
    ],
)
def test_the_shell_completes_experiments_and_their_arms(given, option, begun, proposed, monkeypatch, repository):
    monkeypatch.chdir(repository)
    command = GROUP.commands["train"]
    context = command.make_context("train", given, resilient_parsing=True)
    (parameter,) = [each for each in command.params if each.name == option]
    assert [item.value for item in parameter.shell_complete(context, begun)] == proposed
