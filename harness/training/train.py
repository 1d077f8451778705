"""Trains one run: writes weights, curve, diagnostics and training.json."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from harness import datasets
from harness.compute import atomic
from harness.compute.energy import gpu_hours
from harness.compute.machine import Machine
from harness.compute.provenance import provenance
from harness.compute.torchrun import is_main
from harness.datasets.dataset import Dataset
from harness.datasets.verify import verify
from harness.errors import UserError
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.models.compiled import require_compiler
from harness.models.segmenter import state_hash
from harness.runs.aside import restore, set_aside
from harness.runs.borrowing import borrow_training
from harness.runs.ending import Ending
from harness.runs.failures import untrained, write_skipped
from harness.runs.locking import hold, remove_leftovers
from harness.runs.record import RECORD, TRAINING, Record, inference_weights, now, write_json
from harness.runs.state import SETTINGS, finished, in_words, settings_in
from harness.training import checkpoint, distributed
from harness.training.board import require_tensorboard
from harness.training.embeddings import NAME as EMBEDDINGS
from harness.training.loop import Job
from harness.training.trainer import Trainer


def train(
    experiment: Experiment,
    run: Run,
    results: Path,
    machine: Machine,
    *,
    root: Path,
    weights: str = "auto",
    restart: bool = False,
    timeout: float | None = None,
    keep_going: bool = False,
    tensorboard: bool = False,
) -> Record:
    """Train `run` to the end, resuming from its last checkpoint; returns its record (training.json).

    Under torchrun all processes train the one run. Rank 0 writes; the others return the same record except for times
    and other values of their own.

    A failure (divergence, out of memory, more than `timeout` seconds in this process, any exception that is not the
    user's mistake) is a result: training.json records its status and reason. Raises UserError for mistakes, before
    anything is written, and Terminated after SIGTERM, once a checkpoint is written.

    Earlier results in the run's folder that were made with other settings, or any with `restart`, are set aside
    (`runs.aside`).

    `keep_going` is for one run of many: missing or wrong data is a result too ("skipped"), and if another process is
    training this run, it waits for that to end. `tensorboard` also writes event files (`board.Board`), which does not
    change the training; raises UserError if the package is missing.
    """
    if tensorboard:
        require_tensorboard()
    folder = run.folder(results)
    settings = experiment.settings(run)
    with (
        distributed.joined(),
        # Lock first: a process that waits for the lock must not occupy a GPU.
        distributed.on_main(hold(folder, "train", keep_going)) as lock,
    ):
        device = machine.use()
        machine.hasten(device, settings["schedule"]["iterations"])
        distributed.start(device)
        dataset = datasets.load(run.dataset, root)
        verified = distributed.from_main(lambda: _verified(experiment, run, dataset, results, keep_going))
        if (reason := verified.get("skipped")) is not None:
            return distributed.record_from_main(lambda: write_skipped(experiment, run, folder, reason))
        settings["data"] = verified["fingerprint"]
        trainer = distributed.main_first(
            lambda: Trainer(settings, len(dataset.classes), device, weights, machine.graphs)
        )
        settings["initial_weights"] = trainer.network.initial_weights_sha256
        if made := distributed.record_from_main(lambda: _made_before(experiment, run, results, settings, restart)):
            return made
        if trainer.schedule.compile:
            require_compiler(device)
        cache = results / "cache"
        job = Job(str(run), folder, settings, dataset, machine, device, weights, cache, lock, trainer)
        job.timeout, job.tensorboard = timeout, tensorboard
        del trainer  # only the job may hold it, so that it can free it when memory runs out
        return _run(experiment, run, job, verified, keep_going)


def _verified(experiment: Experiment, run: Run, dataset: Dataset, results: Path, keep_going: bool) -> dict[str, Any]:
    """The data set's verification report (verify.json); a generated data set is rendered first.

    A new report's warnings are printed. With `keep_going` and missing or wrong data: {"skipped": reason}.
    """
    schedule = experiment.schedule_of(run.dataset, run.model)
    if schedule.batch % distributed.world_size():
        raise UserError(
            f"schedule.batch is {schedule.batch} images, which {distributed.world_size()} processes cannot share "
            "evenly: start a number of processes that divides it"
        )
    path = datasets.report_path(dataset.name, results)
    before = path.read_bytes() if path.is_file() else b""
    try:
        datasets.prepare(dataset)
        report = verify(dataset, path)
        for text in report["warnings"] if path.read_bytes() != before else []:
            print(f"warning: {text}", file=sys.stderr)
        return report
    except UserError as error:
        if not keep_going:
            raise
        return {"skipped": str(error)}


def _made_before(
    experiment: Experiment, run: Run, results: Path, settings: dict[str, Any], restart: bool
) -> Record | None:
    """The record of a finished training with these settings, from this or another experiment, or None.

    Results in the run's folder that were made with other settings (any results with `restart`) are set aside. A run
    with these settings that was set aside earlier is moved back.
    """
    folder = run.folder(results)
    remove_leftovers(folder)
    if (why := _why_not_continued(folder, settings, restart)) and (place := set_aside(folder)):
        print(f"{why}: the earlier results in {folder} are kept as {place.name}", file=sys.stderr, flush=True)
    if not restart and (place := restore(folder, settings)):
        print(f"these settings were trained before: {place.name} is {folder} again", file=sys.stderr, flush=True)
    if (found := finished(folder)) is not None or restart:
        return found
    if borrowed := borrow_training(experiment, run, results, settings):
        print(f"{run}: the same settings were trained as {borrowed.borrowed_from}", file=sys.stderr, flush=True)
    return borrowed


def _why_not_continued(folder: Path, settings: dict[str, Any], restart: bool) -> str:
    """Why training cannot resume from the run's folder, in words; "" if it can, or if the folder is empty."""
    made = _settings_of(folder, settings["method_source"])
    if made is None:
        return ""
    if restart:
        return "started over"
    if changed := in_words(settings, made, settings["method"]):
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        return f"trained with other settings, {', '.join(changed[:3])}{more}"
    if not (folder / TRAINING).exists() and not (folder / "checkpoints").exists() and not _begins(folder):
        return "a record without the run"
    # The embeddings from before training can only be computed at its start.
    return "" if (folder / EMBEDDINGS).exists() or _begins(folder) else f"{EMBEDDINGS} is gone"


def _begins(folder: Path) -> bool:
    """Whether training has begun but not yet written a checkpoint."""
    return (folder / SETTINGS).exists() and not (folder / "checkpoints").exists()


def _settings_of(folder: Path, source: str) -> dict[str, Any] | None:
    """The settings that a run's folder was trained with, from its files or checkpoint; None if there are none."""
    found = settings_in(folder, source)
    if found is None and (state := checkpoint.load_newest(folder / "checkpoints")) is not None:
        found = dict(state["settings"])
    return found


def _run(experiment: Experiment, run: Run, job: Job, verified: dict[str, Any], keep_going: bool) -> Record:
    started, origin = now(), provenance(str(job.device))
    settings, dataset = job.settings, job.dataset
    loaded = job.trainer.network.initial_weights

    def record_of(end: Ending, weights_hash: str | None) -> Record:
        return untrained(
            experiment,
            run,
            **asdict(end),
            iterations=job.done,
            processes=distributed.world_size(),
            micro_batch=job.trainer.micro_batch,
            weights_hash=weights_hash,
            initial_weights=loaded.as_record() if loaded else None,
            root=str(dataset.folder().resolve()),
            class_pixels=list(verified["splits"][dataset.train_split]["class_pixels"].values())[:-1],
            settings=settings,
            provenance=origin
            | {"data_fingerprint": settings["data"], "initial_weights_sha256": settings["initial_weights"]}
            | {"deterministic": job.machine.deterministic, "undetermined": sorted(job.machine.undetermined)}
            | (_on_the_gpu(job) if job.device.type == "cuda" else {}),
            started=started,
            seconds=round(job.seconds, 1),
            gpu_hours=gpu_hours(job.seconds, job.device),
            energy=job.energy,
        )

    def give_up(end: Ending) -> None:
        record_of(end, None).save(job.folder / TRAINING)

    if is_main():
        (job.folder / RECORD).unlink(missing_ok=True)  # from an earlier attempt
        if (job.folder / TRAINING).exists() and Record.load(job.folder / TRAINING).status == "skipped":
            (job.folder / TRAINING).unlink()
        write_json(job.folder / SETTINGS, {"key": run.key(), "settings": settings})
    with distributed.ending_together(give_up, status=0 if keep_going else 1) as end:
        job.finish()
        if not job.trainer.method_was_active():
            end.status, end.reason = "failed", f"the terms of {settings['method']} were 0 in all {job.done} iterations"
    record = record_of(end, _export(job.trainer, job.folder) if end.status == "done" else None)
    if is_main():
        if job.history.rows:
            job.history.write(job.folder)
        record.save(job.folder / TRAINING)
        if record.status == "done":
            (job.folder / SETTINGS).unlink(missing_ok=True)
    return record


def _on_the_gpu(job: Job) -> dict[str, Any]:
    """Provenance of a GPU run: who augmented the samples, how steps were computed, and torch's peak memory."""
    return {
        "gpu_bytes": torch.cuda.max_memory_reserved(job.device),
        "samples": job.samples,
        "cuda_graph": job.trainer.replays,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def _export(trainer: Trainer, folder: Path) -> str:
    """Save the network without auxiliary heads and method (on rank 0 only); returns its hash."""
    state: dict[str, Tensor] = {
        name: tensor.detach().cpu().contiguous() for name, tensor in trainer.network.inference_state().items()
    }
    if is_main():
        with atomic.replacing(inference_weights(folder)) as path:
            save_file(state, path)
    return state_hash(state)
