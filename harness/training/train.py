"""Trains one run: from its settings to weights, curve, diagnostics and training.json."""

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
    """Train `run` to its end, continuing where it was, and return its record, which training.json holds.

    Started by torchrun on several processes, it is one run on all of them, whose main process writes; the others return
    the same record, but for times and for what is each process's own.

    A failure (diverged, out of memory, `timeout` seconds of this process gone, any exception that is not the user's
    mistake) is a result: training.json is written with its status and reason. Raises UserError for mistakes, before
    anything is written, and Terminated after SIGTERM, when a checkpoint is written.

    What the run's folder holds of other settings, or with `restart` of these, is set aside (`runs.aside`).

    With `keep_going`, as one run of many: data that is missing or wrong is a result too ("skipped"), and if another
    process trains this run already, its end is waited for. With `tensorboard` event files are written too
    (`board.Board`), which changes nothing of the training; raises UserError if the package is not there.
    """
    if tensorboard:
        require_tensorboard()
    folder = run.folder(results)
    settings = experiment.settings(run)
    with (
        distributed.joined(),
        # Before the device, which nobody shall keep while he waits.
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
        del trainer  # the job's alone, which drops it when memory runs out
        return _run(experiment, run, job, verified, keep_going)


def _verified(experiment: Experiment, run: Run, dataset: Dataset, results: Path, keep_going: bool) -> dict[str, Any]:
    """The verify.json of the data set, which is rendered if it is a generated one.

    With `keep_going`, where data is missing or wrong, {"skipped": why}.
    """
    schedule = experiment.schedule_of(run.dataset, run.model)
    if schedule.batch % distributed.number():
        raise UserError(
            f"schedule.batch is {schedule.batch} images, which {distributed.number()} processes cannot share evenly: "
            "start a number of processes that divides it"
        )
    try:
        datasets.prepare(dataset)
        return verify(dataset, datasets.report_path(dataset.name, results))
    except UserError as error:
        if not keep_going:
            raise
        return {"skipped": str(error)}


def _made_before(
    experiment: Experiment, run: Run, results: Path, settings: dict[str, Any], restart: bool
) -> Record | None:
    """The record of a training with these settings that is over, here or in another experiment; else None.

    What the run's folder holds of other settings, or at all with `restart`, is set aside; a run that was set aside and
    has these settings is moved back.
    """
    folder = run.folder(results)
    remove_leftovers(folder)
    if (why := _why_not_continued(folder, settings, restart)) and (place := set_aside(folder)):
        print(f"{why}: what {folder} held is kept as {place.name}", file=sys.stderr, flush=True)
    if not restart and (place := restore(folder, settings)):
        print(f"these settings were trained before: {folder} is {place.name} again", file=sys.stderr, flush=True)
    if (found := finished(folder)) is not None or restart:
        return found
    if borrowed := borrow_training(experiment, run, results, settings):
        print(f"{run}: the same settings were trained as {borrowed.borrowed_from}", file=sys.stderr, flush=True)
    return borrowed


def _why_not_continued(folder: Path, asked: dict[str, Any], restart: bool) -> str:
    """Why a training cannot go on from what its folder holds, in words; "" if it can, or if there is nothing."""
    made = _settings_of(folder, asked["method_source"])
    if made is None:
        return ""
    if restart:
        return "started over"
    if changed := in_words(asked, made, asked["method"]):
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        return f"trained with other settings, {', '.join(changed[:3])}{more}"
    if not (folder / TRAINING).exists() and not (folder / "checkpoints").exists() and not _begins(folder):
        return "a record without the run"
    # What the network made of pixels before training is seen at its start alone.
    return "" if (folder / EMBEDDINGS).exists() or _begins(folder) else f"{EMBEDDINGS} is gone"


def _begins(folder: Path) -> bool:
    """Whether a training has begun and written no checkpoint yet."""
    return (folder / SETTINGS).exists() and not (folder / "checkpoints").exists()


def _settings_of(folder: Path, source: str) -> dict[str, Any] | None:
    """The settings of what training left in a run's folder, None if it left nothing."""
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
            processes=distributed.number(),
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
        (job.folder / RECORD).unlink(missing_ok=True)  # of an earlier try
        write_json(job.folder / SETTINGS, {"key": run.key(), "settings": settings})
    with distributed.ending_together(give_up, status=0 if keep_going else 1) as end:
        job.finish()
        if not job.trainer.ever_counted():
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
    """What provenance says of how a GPU was used: what made the samples, how steps were computed, and the most memory
    that torch held.
    """
    return {
        "gpu_bytes": torch.cuda.max_memory_reserved(job.device),
        "samples": job.samples,
        "cuda_graph": job.trainer.replays,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def _export(trainer: Trainer, folder: Path) -> str:
    """Save the network without its auxiliary heads and without the method, on the main process; returns its hash."""
    state: dict[str, Tensor] = {
        name: tensor.detach().cpu().contiguous() for name, tensor in trainer.network.inference_state().items()
    }
    if is_main():
        with atomic.replacing(inference_weights(folder)) as path:
            save_file(state, path)
    return state_hash(state)
