"""The command line as a user meets it: exit status, one line on standard error, no traceback."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli, datasets


def call(repository, *arguments, **environment):
    env = {key: value for key, value in os.environ.items() if key != "CAMVID_ROOT"} | environment
    return subprocess.run(
        [sys.executable, "-m", "harness", *map(str, arguments)], cwd=repository, env=env, capture_output=True, text=True
    )


def run_main(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["harness", *map(str, arguments)])
    return cli.main()


CAMVID_RUN = ["config/camvid.yaml", "--dataset", "camvid", "--model", "lite0_fpn", "--arm", "contextrast"]


def test_training_without_a_root_says_in_one_sentence_what_to_do(repository, tmp_path):
    result = call(repository, "train", *CAMVID_RUN, "--seed", "0", "--results", tmp_path)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    for word in ("camvid", "--root", "CAMVID_ROOT"):
        assert word in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_seed_that_no_table_shows_is_a_warning(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    monkeypatch.delenv("CAMVID_ROOT", raising=False)
    assert run_main(monkeypatch, "train", *CAMVID_RUN, "--seed", "77", "--results", tmp_path) == 2
    assert "no table shows seed 77" in capsys.readouterr().err


def test_results_in_a_file_are_refused_in_one_sentence(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "results"):
        assert run_main(monkeypatch, "run", "quick", "--results", place) == 2
        assert capsys.readouterr().err == f"error: {place} is or leads through a file: choose another folder\n"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk of x is full: make room"),
        (errno.EACCES, "no permission for x: change"),
        (errno.EIO, "x: "),
    ],
)
def test_what_the_operating_system_refuses_is_said_with_what_to_do(monkeypatch, capsys, number, words):
    def refuse(**_):
        raise OSError(number, os.strerror(number), "x")

    monkeypatch.setattr(cli, "app", refuse)
    assert run_main(monkeypatch) == 2
    assert capsys.readouterr().err.startswith(f"error: {words}")


def test_a_wrong_option_is_the_same_sentence_from_every_verb(experiment_file, tmp_path, monkeypatch, capsys):
    config = experiment_file(arms={"cross_entropy": {}, "contextrast": {"temperature": "hello"}})
    run = ["--dataset", "scenes", "--model", "hrnet_tiny", "--arm", "contextrast"]
    said = []
    for verb in (["plan"], ["status"], ["report"], ["borrow"], ["list", "arms"], ["train", *run]):
        assert run_main(monkeypatch, *verb, config, "--results", tmp_path / "results") == 2
        said.append(capsys.readouterr().err)
    (sentence,) = set(said)
    assert sentence.count("\n") == 1
    assert "tiny.yaml: arms.contextrast.temperature is 'hello'" in sentence
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], ["frobnicate"]),
        (["train", "--dataset", "camvid"], ["needs --model and --arm:"]),
        (["check-record"], ["needs DIR"]),
        (["list", "method"], ["methods"]),
        (["list", "models", "--markdown"], ["list methods"]),
        (["stale", "--keep", "config/quick.yaml", "--remove"], ["--keep", "--remove"]),
        (["latency", "--mode", "graph"], ["--mode", "--model"]),
        (["overhead", "--size", "64x64"], ["--size", "--model"]),
        (["cost", "--json"], ["--json", "--model"]),
        (["train", *CAMVID_RUN[:-1], "contextrasd"], ["did you mean contextrast"]),
        (["train", *CAMVID_RUN, "--seed", "-1"], ["--seed", "-1"]),
        (["train", "none.yaml", *CAMVID_RUN[1:]], ["none.yaml"]),
        (["train", *CAMVID_RUN, "--set", "schedule.batch=0"], ["schedule.batch", "0"]),
        (["evaluate", "nowhere"], ["nowhere"]),
        (["evaluate", "nowhere", "--protocol", "hole"], ["did you mean whole"]),
        (["report", "--part", "figure"], ["did you mean figures"]),
        (["report", "--results", "nowhere"], ["no results folder nowhere", "--results"]),
        (["report", "--results", "README.md"], ["no results folder README.md"]),
        (["verify", "--dataset", "camvid", "--root", "nowhere"], ["nowhere"]),
        (["verify", "--dataset", "camvit"], ["did you mean camvid"]),
        (["prepare"], ["--dataset"]),
        (["prepare", "--dataset", "coco_stuff10k", "--root", "nowhere"], ["nowhere"]),
        (["score", "--predictions", "nowhere", "--dataset", "camvid", "--root", "tests"], ["tests"]),
        (["predict", "nowhere", "--split", "test"], ["nowhere"]),
    ],
)
def test_a_mistake_ends_with_status_2_and_one_line(repository, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(repository)
    assert run_main(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    for word in words:
        assert word in captured.err
    assert not Path("nowhere").exists()


def test_a_report_of_no_runs_is_written_with_a_warning(experiment_file, tmp_path, monkeypatch, capsys):
    results = tmp_path / "out"
    results.mkdir()
    given = ["report", "--part", "tables", experiment_file(), "--results", results]
    assert run_main(monkeypatch, *given) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {results / 'runs' / 'tiny'} holds no run of ")
    assert "--results" in line
    assert (results / "reports" / "tiny" / "tables" / "miou.md").is_file()
    (results / "runs" / "tiny" / "scenes" / "hrnet_tiny" / "contextrast" / "seed0").mkdir(parents=True)
    assert run_main(monkeypatch, *given) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("package", ["typer", "torch"])
def test_a_python_without_the_packages_is_told_where_they_are(repository, tmp_path, package):
    """The first that is missed in a bare Python, and one that a verb needs."""
    verb = ["latency", "--device", "cpu", "--model", "hrnet_tiny", "--size", "32x32", "--results", str(tmp_path)]
    code = (
        f"import runpy, sys; sys.modules[{package!r}] = None; sys.argv = ['harness', *{verb}]\n"
        "runpy.run_module('harness', run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    for words in (f"no package {package}:", "make .venv/ready", ".venv/bin/python", ". .venv/bin/activate"):
        assert words in result.stderr


def test_a_module_of_the_project_that_is_missing_is_a_fault_and_shows_where(repository):
    code = (
        "import runpy, sys; sys.modules['harness.cli'] = None; sys.argv = ['harness', '--help']\n"
        "runpy.run_module('harness', run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_list_shows_methods_and_arms_with_their_options(repository, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    assert run_main(monkeypatch, "list", "methods", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["contextrast"]["options"]["keep"] == 0.5
    assert (listed["contextrast"]["venue"], listed["contextrast"]["year"]) == ("CVPR", 2024)
    assert listed["cross_entropy"]["options"] == {}
    assert run_main(monkeypatch, "list", "methods") == 0
    shown = capsys.readouterr().out
    assert re.search(r"^contextrast +Contextrast +CVPR +2024 +At every encoder map", shown, re.MULTILINE)
    assert "temperature" not in shown.partition("contextrast_pp")[0].partition("\ncontextrast ")[2]
    assert run_main(monkeypatch, "list", "methods", "contextrast") == 0
    shown = capsys.readouterr().out
    assert "2404.10633" in shown
    assert re.search(r"^keep +0\.5 +a number above 0 and at most 1 +K_s, the share", shown, re.MULTILINE)
    assert re.search(r"^layer_weights +\[0\.1, 0\.3, 0\.7, 1\.0\] .*fine to coarse", shown, re.MULTILINE)
    assert run_main(monkeypatch, "list", "methods", "contrast") == 2
    assert "contextrast" in capsys.readouterr().err
    assert run_main(monkeypatch, "list", "arms", "config/camvid.yaml") == 0
    assert "contextrast" in capsys.readouterr().out


def test_with_keep_going_missing_and_wrong_data_are_written_down_and_no_mistake(
    tiny_data, tmp_path, monkeypatch, capsys
):
    def verify():
        status = run_main(monkeypatch, "verify", "--dataset", "tiny", "--results", tmp_path / "out", "--keep-going")
        report = json.loads((tmp_path / "out/data/tiny/verify.json").read_text())
        assert report["fingerprint"] is None or report["status"] == "ok"
        return status, report["status"], capsys.readouterr().err

    tiny_data.rename(tmp_path / "elsewhere")
    missing = datasets.missing("tiny")
    assert missing.startswith(f"the root {tiny_data} of the data set tiny is no folder: set ") and "--root" in missing
    assert verify() == (0, "missing", f"{datasets.missing('tiny')}: its runs are skipped\n")
    tiny_data.mkdir()  # a disk that is not mounted
    assert "train.txt" in datasets.missing("tiny")
    assert verify()[:2] == (0, "missing")
    tiny_data.rmdir()
    (tmp_path / "elsewhere").rename(tiny_data)
    assert datasets.missing("tiny") == ""
    label = tiny_data / "testannot" / "test_1.png"
    label.rename(tmp_path / "label.png")
    status, said, error = verify()
    assert (status, said) == (0, "failed")
    assert "testannot/test_1.png" in error
    assert datasets.missing("tiny") == ""  # it is there, and wrong
    assert not datasets.is_verified("tiny", tmp_path / "out")
    (tmp_path / "label.png").rename(label)
    assert verify()[:2] == (0, "ok")
    assert datasets.is_verified("tiny", tmp_path / "out")


def test_verify_takes_roots_that_are_set_for_one_call(experiment_file, tiny_data, tmp_path, monkeypatch):
    experiment = experiment_file(datasets=["tiny"], roots={"tiny": "/nowhere"})
    given = ["verify", "--dataset", "tiny", "--results", tmp_path / "out", experiment]
    assert run_main(monkeypatch, *given) == 2
    assert run_main(monkeypatch, *given, "--set", f"roots.tiny={tiny_data}") == 0


@pytest.mark.slow
def test_train_evaluate_and_a_failed_run_by_the_command_line(experiment_file, tiny_data, tmp_path, monkeypatch, capsys):
    from harness.training.trainer import Trainer

    results = tmp_path / "out"
    common = [experiment_file(datasets=["tiny"]), "--results", results, "--threads", 1]
    chosen = ["--dataset", "tiny", "--model", "hrnet_tiny", "--arm", "contextrast"]
    assert run_main(monkeypatch, "train", *common, *chosen, "--seed", 5, "--set", "seeds=[0]") == 0
    folder = results / "runs/tiny/tiny/hrnet_tiny/contextrast/seed5"
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"evaluate {folder}")
    assert run_main(monkeypatch, "evaluate", folder, "--threads", 1, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((folder / "record.json").read_text())["scores"]
    assert run_main(monkeypatch, "train", *common, *chosen, "--seed", 5, "--set", "seeds=[0]") == 0
    assert "report" in capsys.readouterr().err.splitlines()[-1]  # nothing is left to do

    def broken(*_):
        raise ZeroDivisionError("broken")

    monkeypatch.setattr(Trainer, "step", broken)
    assert run_main(monkeypatch, "train", *common, *chosen) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("ended as failed: ZeroDivisionError: broken")
    assert run_main(monkeypatch, "train", *common, *chosen, "--keep-going") == 0
