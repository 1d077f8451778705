"""One bad run is a record with a reason, and does not stop the others."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness import datasets
from harness.compute.machine import Machine
from harness.errors import UserError
from harness.evaluation import evaluate as evaluation
from harness.evaluation.evaluate import evaluate
from harness.experiment.schema import Experiment
from harness.models.segmenter import state_hash
from harness.runs.ending import Terminated, TimedOut, ending
from harness.runs.locking import hold
from harness.runs.record import Record, inference_weights, read_json, write_json
from harness.runs.status import describe, retry, status_rows
from harness.training import checkpoint
from harness.training.train import train
from harness.training.trainer import Trainer

pytestmark = pytest.mark.slow

CPU = Machine("cpu", threads=1)


def fit(experiment, results, arm="cross_entropy", **options):
    run = experiment.run("tiny", "hrnet_tiny", arm, 0)
    root = options.pop("root", None) or datasets.resolve_root("tiny")
    return train(experiment, run, results, CPU, root=root, **options), run.folder(results)


def rows_by_arm(experiment, results):
    return {row.arm: row for row in status_rows(results, [experiment])}


def test_an_ending_keeps_the_reason_and_the_last_lines_of_the_log(capsys):
    with ending() as end:
        for number in range(50):
            print(f"line {number}", file=sys.stderr)
        raise ValueError("a bad value")
    assert (end.status, end.reason) == ("failed", "ValueError: a bad value")
    assert len(end.log_tail) == 20
    assert end.log_tail[-1] == "ValueError: a bad value"
    assert "line 49" in end.log_tail
    assert "line 0\n" in capsys.readouterr().err  # all of it still reached the terminal


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (TimedOut("not finished after 8 s"), "timeout"),
        (FileNotFoundError(2, "No such file", "a.png"), "failed"),
        (RuntimeError("a shape"), "failed"),
    ],
)
def test_errors_end_as_the_status_that_they_are(error, status):
    with ending() as end:
        raise error
    assert end.status == status


@pytest.mark.parametrize(
    "error", [UserError("x"), OSError(28, "No space left", "f"), Terminated(), KeyboardInterrupt()]
)
def test_what_is_no_result_of_the_run_passes(error):
    with pytest.raises(type(error)), ending():
        raise error


def small_memory(monkeypatch, fits):
    """A device that holds `fits` images; returns the sizes that it was asked for."""
    backward, seen = Trainer._backward, []

    def small(self, images, labels, share=None):
        seen.append(len(images))
        if len(images) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return backward(self, images, labels, share)

    monkeypatch.setattr(Trainer, "_backward", small)
    return seen


def test_out_of_memory_is_tried_again_with_half_the_micro_batch_at_the_same_batch(
    experiment_file, tiny_data, tmp_path, interrupted, monkeypatch, capsys
):
    schedule = {"iterations": 4, "batch": 4, "crop": [32, 32], "learning_rate": 0.1}
    schedule |= {"log_every": 2, "checkpoint_every": 2}
    experiment = Experiment.load(experiment_file(datasets=["tiny"], schedule=schedule))
    seen = small_memory(monkeypatch, fits=2)
    record, folder = fit(experiment, tmp_path)
    assert (record.status, record.micro_batch, record.settings["schedule"]["batch"]) == ("done", 2, 4)
    assert seen == [4] + 4 * [2, 2]
    assert "trying 2 (the batch stays 4)" in capsys.readouterr().err
    assert Record.load(folder / "training.json").micro_batch == 2
    # An interrupted run goes on with what fitted, and ends in the same bits.
    again = tmp_path / "again"
    with interrupted(3):
        fit(experiment, again)
    seen.clear()
    assert fit(experiment, again)[0].weights_hash == record.weights_hash
    assert seen == 2 * [2, 2]


def test_a_micro_batch_that_batch_norm_refuses_is_out_of_memory(experiment, tmp_path, monkeypatch):
    small_memory(monkeypatch, fits=1)  # the coarsest maps of a crop of 32 pixels have one value a channel
    record, _ = fit(experiment, tmp_path)
    assert (record.status, record.micro_batch) == ("out_of_memory", 1)
    assert "batch norm sees only one value" in record.reason


def test_a_run_that_fits_with_no_micro_batch_is_out_of_memory(experiment, tmp_path, monkeypatch):
    def never(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    monkeypatch.setattr(Trainer, "_backward", never)
    record, _ = fit(experiment, tmp_path)
    assert (record.status, record.reason) == ("out_of_memory", "CUDA out of memory. Tried to allocate 2 GiB")
    assert any("trying 1" in line for line in record.log_tail)
    assert rows_by_arm(experiment, tmp_path)["cross_entropy"].status == "out_of_memory"


def test_gradients_of_micro_batches_add_up_to_those_of_the_batch(experiment, monkeypatch):
    """With frozen batch norm statistics: each image has another number of valid pixels, one has none."""
    settings = experiment.settings(experiment.run("tiny", "hrnet_tiny", "cross_entropy", 0))
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 32, 32), generator=random, dtype=torch.uint8)
    labels = torch.randint(0, 3, (5, 32, 32), generator=random)
    for image, rows in enumerate((0, 3, 17, 32, 30)):
        labels[image, :rows] = 255
    found = []
    for micro_batch in (5, 2):
        trainer = Trainer(settings, 3, torch.device("cpu"))
        trainer.network.double().eval()
        monkeypatch.setattr(trainer.network, "train", lambda: None)
        trainer.micro_batch = micro_batch
        values = trainer.step(images, labels, 0, 0.0)
        gradients = [parameter.grad for parameter in trainer.network.parameters() if parameter.grad is not None]
        found.append((values["loss"].item(), torch.cat([gradient.flatten() for gradient in gradients])))
    (whole_loss, whole), (loss, parts) = found
    assert loss == pytest.approx(whole_loss, rel=1e-6)  # losses are float32
    assert torch.linalg.norm(parts - whole) < 1e-6 * torch.linalg.norm(whole)


def test_a_run_that_takes_too_long_is_a_timeout_and_goes_on_from_there(experiment, tmp_path):
    whole = fit(experiment, tmp_path / "whole")[0]
    record, _ = fit(experiment, tmp_path / "late", timeout=1e-9)
    assert (record.status, record.iterations) == ("timeout", 1)
    assert "not finished" in record.reason
    while record.status == "timeout":
        record, _ = fit(experiment, tmp_path / "late", timeout=1e-9)
    assert (record.status, record.weights_hash) == ("done", whole.weights_hash)


def test_missing_data_is_a_mistake_of_one_run_and_a_record_of_one_of_many(experiment, tiny_data, tmp_path):
    shutil.move(tiny_data / "train", tiny_data / "elsewhere")
    with pytest.raises(UserError, match="train"):
        fit(experiment, tmp_path)
    record, folder = fit(experiment, tmp_path, keep_going=True)
    assert record.status == "skipped"
    assert "train" in record.reason
    assert evaluate(folder, CPU).status == "skipped"
    row = rows_by_arm(experiment, tmp_path)["cross_entropy"]
    assert (row.status, row.reason) == ("skipped", " ".join(record.reason.split()))
    # Snakemake verifies again when verify.json is gone.
    report = datasets.report_path("tiny", tmp_path)
    assert json.loads(report.read_text())["status"] == "failed"
    assert retry(tmp_path, [row]) == [row]
    assert not report.exists()
    shutil.move(tiny_data / "elsewhere", tiny_data / "train")
    assert fit(experiment, tmp_path)[0].status == "done"
    # A finished run is not lost when its data goes.
    shutil.move(tiny_data / "train", tiny_data / "elsewhere")
    with pytest.raises(UserError, match="train"):
        fit(experiment, tmp_path, keep_going=True)
    assert Record.load(folder / "training.json").status == "done"


def test_an_evaluation_that_fails_is_a_record_and_retry_runs_it_again(experiment, tiny_data, tmp_path, monkeypatch):
    _, folder = fit(experiment, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "predicted", lambda *_: 1 / 0)
        record = evaluate(folder, CPU)
    assert (record.status, record.reason) == ("failed", "ZeroDivisionError: division by zero")
    assert record.scores == {}
    assert record.log_tail[-1] == "ZeroDivisionError: division by zero"
    rows = status_rows(tmp_path, [experiment])
    assert [(row.arm, row.status) for row in rows] == [("cross_entropy", "failed"), ("contextrast", "not run")]
    assert rows[0].log_tail[-1] == record.log_tail[-1]
    assert "failed: ZeroDivisionError" in describe(rows)
    assert [row.arm for row in retry(tmp_path, rows)] == ["cross_entropy"]
    assert rows_by_arm(experiment, tmp_path)["cross_entropy"].status == "not evaluated"
    assert (folder / "training.json").exists()
    assert evaluate(folder, CPU).status == "done"
    assert rows_by_arm(experiment, tmp_path)["cross_entropy"].status == "done"

    # What a record was made with is what is read later.
    record = Record.load(folder / "record.json")
    record.refuse_changed_files(folder)
    with (folder / "counts.npz").open("ab") as file:
        file.write(b"0")
    with pytest.raises(UserError, match=r"counts\.npz is not the file"):
        record.refuse_changed_files(folder)


def test_a_failed_training_is_listed_with_its_log_and_retried(experiment, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", lambda *_: 1 / 0)
        fit(experiment, tmp_path)
    row = rows_by_arm(experiment, tmp_path)["cross_entropy"]
    assert (row.status, row.log_tail[-1]) == ("failed", "ZeroDivisionError: division by zero")
    with pytest.raises(UserError, match="did you mean failed"):
        retry(tmp_path, [row], "fail")
    assert retry(tmp_path, [row], "diverged") == []
    assert retry(tmp_path, [row]) == [row]
    assert rows_by_arm(experiment, tmp_path)["cross_entropy"].status == "unfinished"


@pytest.mark.parametrize("state", ["unfinished", "diverged", "evaluated"])
def test_after_an_edit_an_old_run_of_any_state_is_stale_and_trained_again(experiment_file, tiny_data, tmp_path, state):
    def edited(**options):
        arms = {"cross_entropy": {}, "colder": {"method": "contextrast"} | options}
        return Experiment.load(experiment_file(datasets=["tiny"], arms=arms))

    before = edited(weight=1e38) if state == "diverged" else edited(temperature=0.05)
    old, folder = fit(before, tmp_path, "colder", timeout=1e-9 if state == "unfinished" else None)
    assert old.status == {"unfinished": "timeout", "diverged": "diverged", "evaluated": "done"}[state]
    if state == "unfinished":  # as a kill leaves it
        (folder / "training.json").unlink()
    elif state == "evaluated":
        evaluate(folder, CPU)
    after = edited(temperature=0.07)
    assert rows_by_arm(after, tmp_path)["colder"].status == "stale"
    record, _ = fit(after, tmp_path, "colder")
    assert (record.status, record.options["temperature"]) == ("done", 0.07)
    assert len(list(folder.parent.glob("seed0.stale-*"))) == 1


def test_a_run_that_is_worked_on_is_running_with_its_progress(experiment, tmp_path):
    folder = experiment.run("tiny", "hrnet_tiny", "contextrast", 0).folder(tmp_path)
    with hold(folder, "train") as lock:
        lock.tell(4, 10)
        row = rows_by_arm(experiment, tmp_path)["contextrast"]
        assert (row.status, row.done, row.total) == ("running", 4, 10)
        assert f"process {os.getpid()}" in row.reason
        assert retry(tmp_path, [row]) == []
        with pytest.raises(UserError, match=f"process {os.getpid()} on"):
            fit(experiment, tmp_path, arm="contextrast")


def test_weights_of_another_network_and_damaged_ones_are_refused(experiment, tmp_path):
    from safetensors.torch import load_file, save_file

    _, folder = fit(experiment, tmp_path)
    path = inference_weights(folder)
    state = load_file(path)
    changed = state | {"backbone.conv1.weight": state["backbone.conv1.weight"] * 2}
    assert state_hash(changed) != state_hash(state)
    save_file(changed, path)
    with pytest.raises(UserError, match=r"not those of its training\.json"):
        evaluate(folder, CPU)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="is damaged"):
        evaluate(folder, CPU)
    assert not (folder / "record.json").exists()


def test_a_checkpoint_of_another_network_is_refused(experiment, tmp_path, interrupted):
    with interrupted(6):
        fit(experiment, tmp_path)
    folder = experiment.run("tiny", "hrnet_tiny", "cross_entropy", 0).folder(tmp_path) / "checkpoints"
    state = checkpoint.load_newest(folder)
    state["network"].pop("backbone.conv1.weight")
    checkpoint.save(folder, 9, state)
    with pytest.raises(UserError, match="checkpoint is another network's"):
        fit(experiment, tmp_path)


def test_a_folder_of_another_schema_version_and_a_changed_record_are_refused(experiment, tmp_path):
    _, folder = fit(experiment, tmp_path)
    path = folder / "training.json"
    content = read_json(path)
    path.write_text(path.read_text().replace('"iterations": 10', '"iterations": 11', 1))
    with pytest.raises(UserError, match="was changed after it was written"):
        evaluate(folder, CPU)
    path.write_text('{"schema": 2}')
    with pytest.raises(UserError, match="another schema than 1"):
        evaluate(folder, CPU)
    write_json(path, content)
    assert evaluate(folder, CPU).status == "done"
    path.write_text('{"schema": 2}')
    fit(experiment, tmp_path)  # trains anew, and keeps what it cannot read
    (kept,) = folder.parent.glob("seed0.stale-*")
    assert (kept / "training.json").read_text() == '{"schema": 2}'


def test_nothing_is_written_below_a_data_root(experiment, tiny_data, tmp_path):
    def state():
        return {str(path): path.stat().st_mtime_ns for path in [tiny_data, *tiny_data.rglob("*")]}

    before = state()
    _, folder = fit(experiment, tmp_path / "out")
    assert evaluate(folder, CPU).status == "done"
    assert state() == before


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_results_folder_that_cannot_be_written_is_one_sentence(repository, tmp_path, verb, monkeypatch, capsys):
    from harness import cli

    (tmp_path / "file").write_text("")
    results = tmp_path / "file" / "results"
    arguments = ["--dataset", "scenes", "--model", "hrnet_tiny", "--arm", "cross_entropy", "--results", str(results)]
    monkeypatch.chdir(repository)
    monkeypatch.setattr(sys, "argv", ["harness", verb, *(arguments if verb == "train" else [str(results)])])
    assert cli.main() == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert "file" in error


def test_a_full_disk_leaves_the_checkpoint_before_it_and_one_sentence(experiment, tmp_path):
    """A limit on the size of files refuses as a full disk does, in the middle of a write."""
    folder = tmp_path / "checkpoints"
    checkpoint.save(folder, 1, {"iteration": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match=r"iteration_0000002\.pt cannot be written \(File too large\)"):
            checkpoint.save(folder, 2, {"iteration": 2, "tensor": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in folder.iterdir()] == ["iteration_0000001.pt"]
    assert checkpoint.load_newest(folder) == {"iteration": 1}


def test_training_on_a_disk_that_fills_up_goes_on_when_there_is_room(experiment, tmp_path):
    """On a file system of 6 MB, where the machine lets this user mount one."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a small file system; the test with a limit on file sizes stands for it")
    try:
        with (small / "filler").open("wb") as file:
            file.write(bytes(3_500_000))
        with pytest.raises((UserError, OSError), match="No space left on device"):
            fit(experiment, small)
        kept = checkpoint.load_newest(
            experiment.run("tiny", "hrnet_tiny", "cross_entropy", 0).folder(small) / "checkpoints"
        )
        Path(small / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,size=40m", str(small)], check=True)
        record, _ = fit(experiment, small)
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert kept is None or kept["iteration"] in (4, 8)
    assert record.weights_hash == fit(experiment, tmp_path / "roomy")[0].weights_hash


def test_sigterm_leaves_by_the_command_line_with_status_143_and_a_checkpoint(
    experiment, experiment_file, tmp_path, monkeypatch, capsys
):
    from harness import cli

    step = Trainer.step

    def asked_to_end(self, images, labels, iteration, rate):
        if iteration == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, images, labels, iteration, rate)

    monkeypatch.setattr(Trainer, "step", asked_to_end)
    chosen = ["--dataset", "tiny", "--model", "hrnet_tiny", "--arm", "cross_entropy", "--threads", "1"]
    given = [str(experiment_file(datasets=["tiny"])), "--results", str(tmp_path / "out"), "--keep-going"]
    monkeypatch.setattr(sys, "argv", ["harness", "train", *chosen, *given])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 143
    folder = experiment.run("tiny", "hrnet_tiny", "cross_entropy", 0).folder(tmp_path / "out")
    assert checkpoint.load_newest(folder / "checkpoints")["iteration"] == 3
    assert not (folder / "training.json").exists()
    assert "stops at a checkpoint after 3 iterations" in capsys.readouterr().err
