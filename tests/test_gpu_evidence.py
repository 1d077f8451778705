import subprocess
import sys

import pytest

from harness import gpu_evidence
from harness.compute import devices
from harness.gpu_evidence import REPORT, SPREADS, Slice, State, missing, slices, work, write_spread
from harness.runs.record import read_json, write_json


@pytest.fixture
def experiment(experiment_file):
    arms = {name: {} for name in ("contextrast", "pixel_contrast", "multiscale_contrast", "cross_entropy")}
    return experiment_file("camvid", arms=arms, models=["hrnet_tiny", "lite0_fpn"], seeds=[0, 1], baseline_seeds=2)


class Machine:
    """Does what a slice's command would: a training takes three calls, and what is named in `broken` fails."""

    def __init__(self, pieces, broken=(), dies=None):
        self.pieces = {piece.command: piece for piece in pieces}
        self.broken, self.dies, self.calls = broken, dies, []

    def __call__(self, command):
        piece = self.pieces[command]
        self.calls.append(piece.name)
        if len(self.calls) == self.dies:
            raise KeyboardInterrupt
        if any(word in piece.name for word in self.broken):
            return 1
        if piece.result is None:
            return 0
        training = piece.result.parent / "training.json"
        if piece.result.name == "record.json":
            content = read_json(training) | {"scores": {"whole": {"miou": 50.0 + len(self.calls) / 100}}}
        else:
            done = piece.ended()[1] + 10 if training.is_file() else 10
            content = {"status": "done" if done == 30 else "timeout", "iterations": done, "weights_hash": "w"}
        write_json(piece.result, content)
        return 0


@pytest.fixture
def evidence(experiment, tmp_path):
    """The slices and what is known of them, read from the disk as by a new process."""
    return lambda: (slices(tmp_path / "out", experiment), State(tmp_path / "out" / "state.json"))


def test_one_call_runs_everything_and_the_next_one_nothing(evidence):
    pieces, state = evidence()
    machine = Machine(pieces)
    ran = work(pieces, state, machine)
    trained = [name for name in machine.calls if "train " in name]
    assert ran == len(machine.calls) == len(pieces) + 2 * len(trained) / 3  # a training's first two calls end early
    assert machine.calls[0] == "tests" and machine.calls[-1] == REPORT
    assert work(*evidence(), machine) == 0 and missing(*evidence()) == []


def test_the_first_arms_come_in_pairs_on_the_fast_model_and_the_others_last(evidence):
    order = [piece.name.split("/")[1:] for piece in evidence()[0] if piece.name.startswith("train")]
    first = ("cross_entropy", "contextrast", "multiscale_contrast")
    assert order[:12] == [
        [model, arm, f"seed{seed}"] for model in ("lite0_fpn", "hrnet_tiny") for seed in (0, 1) for arm in first
    ]
    assert [arm for _, arm, _ in order[12:]] == ["pixel_contrast"] * 4
    assert len(order) == 16


def test_without_imagenet_weights_the_network_from_scratch_has_its_own_name(repository, tmp_path):
    config = repository / "config" / "camvid.yaml"
    usual, scratch = (slices(tmp_path, config, from_scratch=chosen) for chosen in (False, True))
    trained = [{piece.command for piece in pieces if piece.name.startswith("train")} for pieces in (usual, scratch)]
    swapped = "models=[hrnet_w48_scratch, lite0_fpn]"
    assert not any("--set" in command for command in trained[0])
    assert all(swapped in command for command in trained[1])
    assert [piece.name.replace("hrnet_w48_scratch", "hrnet_w48") for piece in scratch] == [each.name for each in usual]
    assert not any("camvid/hrnet_w48/" in piece.name for piece in scratch)


@pytest.mark.parametrize("dies", [1, 4, 9, 20])
def test_a_call_that_is_killed_goes_on_where_it_was(evidence, dies):
    pieces, state = evidence()
    machine = Machine(pieces, dies=dies)
    with pytest.raises(KeyboardInterrupt):
        work(pieces, state, machine)
    work(*evidence(), machine)
    assert missing(*evidence()) == []
    assert sum("train " in name for name in machine.calls) <= 3 * sum("train " in piece.name for piece in pieces) + 1
    assert all(machine.calls.count(piece.name) == 1 for piece in pieces[1:6] if piece.name != machine.calls[dies - 1])


def test_a_call_of_one_slice_runs_one(evidence):
    pieces, _ = evidence()
    machine = Machine(pieces)
    for _ in range(9):
        assert work(*evidence(), machine, most=1) == 1
    assert len(machine.calls) == 9
    assert machine.calls[6:9] == [pieces[6].name] * 3


def test_what_fails_fails_once_a_call_comes_last_and_is_named(evidence):
    pieces, state = evidence()
    machine = Machine(pieces, broken=["overhead", "seed1"])
    work(pieces, state, machine)
    assert machine.calls.count("overhead") == 1
    gaps = missing(*evidence())
    assert "overhead: exit status 1" in gaps
    assert sum("seed1" in gap for gap in gaps) == len(gaps) - 1 == 16
    machine.broken, before = ["seed1"], len(machine.calls)
    work(*evidence(), machine)
    again = machine.calls[before:]
    assert again[0] == "overhead" and again[-1] == REPORT and len(again) == 18


def test_a_training_without_headway_is_a_failure(evidence):
    pieces, state = evidence()
    stuck = next(piece for piece in pieces if piece.name.startswith("train"))
    calls = []

    def start(command):
        calls.append(command)
        write_json(stuck.result, {"status": "skipped", "iterations": 0})
        return 0

    work([stuck], state, start)
    assert len(calls) == 2
    assert missing([stuck], state) == [f"{stuck.name}: it ended as skipped"]


def test_repeats_of_a_seed_are_compared(evidence, experiment, tmp_path):
    results = tmp_path / "out"
    assert write_spread(results, experiment) is None
    pieces, state = evidence()
    work(pieces, state, Machine(pieces))
    for number, (repeat, miou) in enumerate(zip((0, 1, 2), (50.0, 50.25, 49.5), strict=True)):
        path = next(each.result for each in pieces if each.name.startswith(f"spread default {repeat}: evaluate"))
        changed = {"weights_hash": f"w{min(number, 1)}", "scores": {"whole": {"miou": miou}}}
        write_json(path, read_json(path) | changed)
    lines = [line for line in write_spread(results, experiment).read_text().splitlines() if "|" in line]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2] == ["default", "3", "2", "50.000, 50.250, 49.500", "0.750"]
    assert cells[3][:3] == ["deterministic", "3", "1"]
    assert [row[0] for row in cells[2:]] == list(SPREADS)


def test_a_command_that_takes_too_long_is_ended_by_a_signal_it_can_heed(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_evidence, "LIMIT_SECONDS", 1)
    heeding = f"trap 'touch {tmp_path}/heard; exit 0' TERM; sleep 60 & wait"
    assert gpu_evidence.start(["sh", "-c", heeding]) == -15
    assert (tmp_path / "heard").exists()
    assert gpu_evidence.start(["sh", "-c", "exit 3"]) == 3


def test_without_a_gpu_it_says_so_and_lists_what_would_run(monkeypatch, capsys, tmp_path):
    from harness import cli

    monkeypatch.setattr(devices, "visible", lambda: [])
    monkeypatch.setattr(sys, "argv", ["harness", "gpu-evidence", "--results", str(tmp_path)])
    monkeypatch.setattr(subprocess, "Popen", lambda *_: pytest.fail("nothing may be started"))
    assert cli.main() == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("there is no GPU here, so nothing was run; with one ")
    assert first.endswith(f"{len(rest)} of {len(rest)} slices would run")
    assert any("--deterministic" in line and line.startswith("spread deterministic 0: train") for line in rest)
    assert any("--model hrnet_w48 --size 512x1024 --batch 8" in line for line in rest)
    assert list(tmp_path.iterdir()) == []


def test_damaged_state_is_no_state(tmp_path):
    (tmp_path / "state.json").write_text("{")
    piece = Slice("one", ("true",))
    state = State(tmp_path / "state.json")
    assert not state.done(piece)
    state.note(piece, None)
    assert State(tmp_path / "state.json").done(piece)
