"""Runs within a time: their order, how many at a time, what fits, and how they end."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
from run_files import make_record

from harness import cli
from harness.compute import devices
from harness.errors import UserError
from harness.experiment.schema import Experiment
from harness.runs import budget, sharing
from harness.runs.budget import Budget, multi_process_service, pieces, places, read_budget
from harness.runs.record import Record
from harness.runs.state import work_left

# What takes the place of `python -m harness`: a training of STEPS steps that heeds SIGTERM, and leaves a record.
FAKE = """
    import json, os, signal, sys, time
    from pathlib import Path
    from harness.runs.locking import hold
    arguments = sys.argv[1:]
    if arguments[0] == "verify":
        sys.exit()
    told = dict(zip(arguments[2::2], arguments[3::2]))  # the options before the flags
    name = f"{told['--arm']}/seed{told['--seed']}"
    experiment = Path(arguments[1]).stem
    folder = Path(told["--results"]) / "runs" / experiment / told["--dataset"] / told["--model"] / name
    steps, pause = int(os.environ["STEPS"]), float(os.environ["PAUSE"])
    if told["--arm"] == os.environ.get("DEAF"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if told["--arm"] == os.environ.get("BROKEN"):
        print("error: torn")
        sys.exit(7)
    with hold(folder, "train") as lock:
        lock.begin("train", 0, steps)
        for step in range(steps):
            time.sleep(pause)
            lock.tell(step + 1, steps)
        key = {name: told[f"--{name}"] for name in ("dataset", "model", "arm")}
        key |= {"experiment": experiment, "seed": int(told["--seed"])}
        record = {"schema": 1, "key": key, "method": key["arm"], "status": "done", "settings": {}}
        (folder / "record.json").write_text(json.dumps(record | {"scores": {"whole": {}}}))
"""


@pytest.fixture
def config(experiment_file):
    arms = {name: {} for name in ("contextrast", "cross_entropy", "pixel_contrast")}
    return experiment_file("first", arms=arms, seeds=[4, 7], baseline_seeds=3)


@pytest.fixture
def fake(monkeypatch, tmp_path, repository):
    """Puts a process that only pretends to train into the place of the real one: fake(steps, pause, **environment)."""

    def put(steps=2, pause=0.01, **environment):
        script = tmp_path / "fake.py"
        script.write_text(textwrap.dedent(FAKE))
        settings = environment | {"STEPS": str(steps), "PAUSE": str(pause), "PYTHONPATH": str(repository)}

        def start(self, arguments, **streams):
            return subprocess.Popen(
                [sys.executable, str(script), *arguments], env=os.environ | settings, start_new_session=True, **streams
            )

        monkeypatch.setattr(Budget, "_harness", start)
        monkeypatch.setattr(budget, "START_SECONDS", 0.5)
        monkeypatch.setattr(budget, "SECONDS_BETWEEN_LOOKS", 0.05)

    return put


def names(found):
    return [f"{piece.run.arm} {piece.run.seed}" for piece in found]


def test_every_arm_of_a_seed_comes_before_the_next_seed_and_experiments_in_their_order(config, experiment_file):
    second = experiment_file("second")
    found = pieces([second, config])
    arms = ["cross_entropy", "contextrast", "pixel_contrast"]
    assert names(found[:2]) == ["cross_entropy 0", "contextrast 0"]
    assert names(found[2:]) == [f"{arm} {seed}" for seed in (4, 7) for arm in arms] + ["cross_entropy 8"]
    assert found[0].told == (str(second),)
    narrowed = pieces([config], ["seeds=[7]", "baseline_seeds=1"], ["pixel_contrast", "cross_entropy"])
    assert names(narrowed) == ["pixel_contrast 7", "cross_entropy 7"]
    assert narrowed[0].told[1:] == ("--set", "seeds=[7]", "--set", "baseline_seeds=1")
    of_both = pieces([second, config], ["seeds=[7]"], ["pixel_contrast", "contextrast"])  # second has only the latter
    assert names(of_both) == ["contextrast 7", "pixel_contrast 7", "contextrast 7"]
    with pytest.raises(UserError, match="unknown arm 'contrast' in experiment first: did you mean"):
        pieces([config], arms=["contrast"])


@pytest.mark.parametrize(("text", "seconds"), [("8m", 480), ("90s", 90), ("90", 90), ("1h30m", 5400), ("1h2m3s", 3723)])
def test_a_time_is_read(text, seconds):
    assert read_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "8x", "0", "m", "8m1h", "-5", "1.5h"])
def test_another_time_is_a_mistake(text):
    with pytest.raises(UserError, match="give a time such as 8m, 90s or 1h30m"):
        read_budget(text)


@pytest.mark.slow
def test_all_runs_are_made_so_many_at_a_time_and_the_next_call_makes_none(config, fake, tmp_path, capsys):
    fake()
    work = Budget(pieces([config]), tmp_path / "out", jobs=2)
    assert len(work.left()) == 7
    work.work()
    said = capsys.readouterr().err
    assert work.left() == [] and said.count("started") == said.count(": done") == 7
    assert "2 running" in said and "3 running" not in said
    assert work.describe() == "7 runs: 7 done; nothing is left to do"
    Budget(pieces([config]), tmp_path / "out", jobs=2).work()
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_when_time_is_up_runs_are_asked_to_end_and_the_deaf_one_is_killed(config, fake, tmp_path, capsys):
    fake(steps=1000, pause=0.05, DEAF="cross_entropy")
    begun = time.monotonic()
    work = Budget(pieces([config]), tmp_path / "out", jobs=2, seconds=5)
    work.work()
    assert 3.9 < time.monotonic() - begun < 7
    said = capsys.readouterr().err
    assert "time is up: 2 runs to save a checkpoint and end" in said
    assert work.running == {} and work.crashed == [] and len(work.left()) == 7
    # At 50 ms a step, measured, 10 iterations a run (the experiment's) of 7 runs on 2 places, and the starts.
    assert "left: " in work.describe() and "for 7 runs, 2 at a time" not in said


def test_ctrl_c_asks_for_the_end_at_once(config, fake, tmp_path, capsys):
    fake(steps=1000, pause=0.05)
    work = Budget(pieces([config]), tmp_path, jobs=2)
    handler = signal.getsignal(signal.SIGINT)

    def press():
        while len(work.running) < 2:
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    work.work()
    assert work.asked == signal.SIGINT and work.running == {} and work.crashed == []
    assert "asked by SIGINT: 2 runs to save a checkpoint and end" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is handler


def test_of_known_pace_only_what_ends_or_reaches_a_checkpoint_is_begun(config, tmp_path, monkeypatch):
    work = Budget(pieces([config]), tmp_path, jobs=1, seconds=1000)
    monkeypatch.setattr(work, "_time_left", lambda: 100.0)
    first = work.pieces[0]
    assert work.seconds_of(first) is None and work._next() is first  # nothing known: it is tried
    work._paces = {piece.setting: 1.0 for piece in work.pieces}
    assert work.seconds_of(first) == budget.START_SECONDS + 10
    work._paces = {piece.setting: 1000.0 if piece.run.arm != "pixel_contrast" else 8.0 for piece in work.pieces}
    assert work._next().run.arm == "pixel_contrast"  # the first that ends in time
    work._paces = {piece.setting: 20.0 if piece.run.arm == "contextrast" else 1000.0 for piece in work.pieces}
    assert work._next().run.arm == "contextrast"  # none ends; its checkpoint is 4 iterations away
    work.complete = True
    assert work._next() is None
    work.complete = False
    work._paces = dict.fromkeys(work._paces, 1000.0)
    assert work._next() is None
    # With 9 of 10 iterations saved one is left.
    saved = first.run.folder(tmp_path) / "checkpoints" / "iteration_0000009.pt"
    saved.parent.mkdir(parents=True)
    saved.touch()
    work._paces = dict.fromkeys(work._paces, 50.0)
    assert work.seconds_of(first) == budget.START_SECONDS + 50 and work._next() is first


def test_paces_are_those_of_records_on_this_kind_of_device_until_there_are_some(config, tmp_path):
    experiment = Experiment.load(config)
    run = experiment.runs()[0]
    for seed, (kind, seconds) in enumerate((("cpu", 30.0), ("cuda", 5.0))):
        path = run.folder(tmp_path).with_name(f"seed{90 + seed}") / "record.json"
        made = {"device": {"type": kind, "name": kind}}
        make_record(experiment, run, method="cross_entropy", provenance=made, seconds=seconds, iterations=10).save(path)
    for on_gpu, pace in ((False, 3.0), (True, 0.5)):
        work = Budget(pieces([config]), tmp_path, on_gpu=on_gpu)
        assert {work._pace(piece) for piece in work.pieces} == {pace}  # of other methods the slowest that is known
    work._paces[work.pieces[0].setting] = 2.0
    assert work._pace(work.pieces[0]) == work._pace(work.pieces[1]) == 2.0


def test_a_run_of_the_same_settings_in_another_experiment_waits_to_borrow(experiment_file, tmp_path):
    both = [experiment_file("one"), experiment_file("two")]
    work = Budget(pieces(both), tmp_path, jobs=4)
    work.running[work.pieces[0]] = None
    work._tried.update(work.pieces[:2])
    assert work._next() is work.pieces[3]
    assert work._twin(work.pieces[2]) and not work._twin(work.pieces[1]) and not work._twin(work.pieces[3])


@pytest.mark.slow
def test_a_process_that_breaks_is_named_and_the_others_go_on(config, fake, tmp_path, capsys):
    fake(BROKEN="contextrast")
    work = Budget(pieces([config]), tmp_path, jobs=3)
    work.work()
    assert sorted(work.crashed) == [
        f"first/scenes/hrnet_tiny/contextrast/seed{seed} (exit status 7)" for seed in (4, 7)
    ]
    assert capsys.readouterr().err.count("not run; error: torn") == 2
    assert names(work.left()) == ["contextrast 4", "contextrast 7"]
    assert "7 runs: 5 done, 2 not run" in work.describe().replace("2 not run, 5 done", "5 done, 2 not run")


def test_a_call_that_skips_every_run_says_why_and_fails(experiment_file, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("CAMVID_ROOT", raising=False)
    path = experiment_file("absent", datasets=["camvid"], arms={"cross_entropy": {}}, seeds=[0])
    experiment = Experiment.load(path)
    run = experiment.runs()[0]
    make_record(experiment, run, "skipped", reason="no root").save(run.folder(tmp_path) / "record.json")
    command = ["harness", "run", str(path), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*command, "--dry"])  # which only tells what is left
    assert cli.main() == 0
    monkeypatch.setattr(sys, "argv", command)
    assert cli.main() == 1
    assert "every run was skipped: no root" in capsys.readouterr().err


@pytest.mark.slow
def test_what_another_process_works_on_is_left_to_it(config, fake, tmp_path):
    from harness.runs.locking import hold

    fake()
    work = Budget(pieces([config]), tmp_path, jobs=3)
    with hold(work.pieces[0].run.folder(tmp_path), "train"):
        work.work()
    assert work.left() == [work.pieces[0]]


def test_as_many_as_fit_the_memory_of_a_gpu_and_one_a_core_without(config, tmp_path, monkeypatch):
    left = pieces([config])
    monkeypatch.delenv(devices.SHARE, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    monkeypatch.setattr(devices, "visible", lambda: ["GPU-a", "GPU-b"])
    need = max(row.gpu_bytes for row in budget.planning.plan(left[0].experiment, tmp_path))
    for fitting, at_a_time in ((0.5, 2), (2.1, 4), (3.1, 6), (50, 2 * sharing.MOST)):
        memory = int(fitting * (need + sharing.CONTEXT_BYTES) / sharing.ROOM)
        monkeypatch.setattr(devices, "memory", lambda names, memory=memory: memory)
        assert places(left, tmp_path) == (at_a_time, 2)
    monkeypatch.setattr(devices, "memory", lambda names: 0)
    assert places(left, tmp_path) == (2, 2)
    assert places(left, tmp_path, "cpu") == (16, 0)
    monkeypatch.setenv(devices.SHARE, "7")
    assert places(left, tmp_path) == (14, 2)


def test_the_multi_process_service_runs_in_a_folder_of_its_own_and_ends(tmp_path, monkeypatch):
    service = tmp_path / budget.MPS
    service.write_text(
        '#!/bin/sh\nif [ "$1" = -f ]; then echo $$ > "$CUDA_MPS_PIPE_DIRECTORY/control"\n'
        'while [ -e "$CUDA_MPS_PIPE_DIRECTORY/control" ]; do sleep 0.05; done; exit; fi\n'
        'read said; [ "$said" != quit ] || rm "$CUDA_MPS_PIPE_DIRECTORY/control"\n'
    )
    service.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with multi_process_service() as environment:
        folder = Path(environment["CUDA_MPS_PIPE_DIRECTORY"])
        while not (folder / "control").exists():
            time.sleep(0.02)
        pid = int((folder / "control").read_text())
        os.kill(pid, 0)
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    service.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(UserError, match="does not start here; leave the option out"), multi_process_service():
        pass
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="there is no nvidia-cuda-mps-control on the PATH"), multi_process_service():
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "everywhere"),
    [
        (signal.SIGTERM, False),
        pytest.param(signal.SIGTERM, True, marks=pytest.mark.exhaustive),
        pytest.param(signal.SIGKILL, False, marks=pytest.mark.exhaustive),
    ],
)
def test_a_call_that_is_ended_keeps_checkpoints_and_the_next_one_goes_on_there(
    repository, experiment_file, scenes_root, tmp_path, number, everywhere
):
    """With real trainings, on a CPU: the folder of a run, moved elsewhere, is all that the next call needs.

    `everywhere`: as a scheduler does, the signal goes to all processes of the job.
    """
    schedule = {"iterations": 60, "batch": 2, "crop": [32, 32], "learning_rate": 0.1}
    schedule |= {"log_every": 1, "checkpoint_every": 50}
    config = experiment_file("real", arms={"cross_entropy": {}}, schedule=schedule)
    results = tmp_path / "here"
    command = [sys.executable, "-m", "harness", "run", str(config), "--device", "cpu", "--jobs", "1", "--results"]
    run = Experiment.load(config).runs()[0]
    env = os.environ | {"OMP_NUM_THREADS": "1", "SCENES_ROOT": str(scenes_root)}
    process = subprocess.Popen([*command, str(results)], cwd=repository, env=env)
    curve = run.folder(results) / "curve.csv"
    while not (curve.exists() and len(curve.read_text().splitlines()) > 5):
        assert process.poll() is None
        time.sleep(0.05)
    for child in psutil.Process(process.pid).children(recursive=True) if everywhere else ():
        child.send_signal(number)
    process.send_signal(number)
    assert process.wait(60) == (-number if number == signal.SIGKILL else 128 + number)
    patient_until = time.monotonic() + 30
    while not list((run.folder(results) / "checkpoints").glob("*.pt")):
        assert time.monotonic() < patient_until
        time.sleep(0.05)
    while budget.holder(run.folder(results)):
        time.sleep(0.05)
    (saved,) = (run.folder(results) / "checkpoints").glob("*.pt")
    assert 5 <= int(saved.stem.removeprefix("iteration_")) < 50
    moved = tmp_path / "there"
    run.folder(moved).parent.mkdir(parents=True)
    run.folder(results).rename(run.folder(moved))
    ended = subprocess.run([*command, str(moved)], cwd=repository, env=env, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert work_left(Experiment.load(config), run, moved) == ""
    assert Record.load(run.folder(moved) / "record.json").iterations == 60
    assert len((run.folder(moved) / "curve.csv").read_text().splitlines()) == 61
