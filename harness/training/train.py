"""Trains one run: from its settings to weights, curve, diagnostics and training.json."""

import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from torch import Tensor

from harness import atomic, datasets
from harness.datasets.augmentation import Augmentation
from harness.datasets.cache import open_cache
from harness.datasets.dataset import Dataset
from harness.datasets.verify import verify
from harness.errors import UserError
from harness.experiment import Experiment
from harness.machine import Machine
from harness.models.segmenter import state_hash
from harness.progress import Progress
from harness.provenance import provenance
from harness.run import Run, fingerprint, read_json, refuse_other_settings, write_json
from harness.training import checkpoint
from harness.training.history import History
from harness.training.samples import TrainingSamples, batches
from harness.training.schedule import learning_rate
from harness.training.trainer import Trainer

FINISHED = ("done", "diverged")  # the same settings would end the same way again


class Diverged(Exception):
    """The loss or its gradient is no longer finite."""


def train(
    experiment: Experiment,
    run: Run,
    results: Path,
    machine: Machine,
    *,
    root: Path,
    weights: str = "auto",
    restart: bool = False,
) -> dict[str, Any]:
    """Train `run` to its end, continuing where it was, and return what training.json holds.

    A failure (diverged, out of memory, any exception that is not the user's mistake) is a result: training.json is
    written with its status and reason. Raises UserError for mistakes, before anything is written.
    """
    folder = run.folder(results)
    device = machine.use()
    dataset, verified = open_dataset(run.dataset, root, results)
    settings = experiment.settings(run) | {"data": verified["fingerprint"]}
    trainer = Trainer(settings, len(dataset.classes), device, weights)
    settings["initial_weights"] = trainer.network.initial_weights_sha256
    if restart and folder.exists():
        rmtree(folder)
    if (folder / "training.json").exists():
        finished = read_json(folder / "training.json")
        refuse_other_settings(folder, settings, finished["settings"])
        if finished["status"] in FINISHED:
            return finished

    started, origin = datetime.now(UTC).isoformat(timespec="seconds"), provenance(str(device))
    history = History()
    done, seconds = _continue(folder, settings, trainer, history)
    job = _Job(run, folder, settings, dataset, trainer, history, machine, results / "cache", done, seconds)
    status, reason = "done", None
    try:
        job.loop()
        if not trainer.counted:
            status, reason = "failed", f"the terms of {settings['method']} were 0 in all {job.done} iterations"
    except Diverged as error:
        status, reason = "diverged", str(error)
    except torch.OutOfMemoryError as error:
        status, reason = "out_of_memory", str(error).splitlines()[0]
    except UserError:
        raise
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        status, reason = "failed", f"{type(error).__name__}: {error}"
    if history.rows:
        history.write(folder)
    record = {
        "key": run.key(),
        "method": settings["method"],
        "options": settings["options"],
        "status": status,
        "reason": reason,
        "iterations": job.done,
        "weights_hash": _export(trainer, folder) if status == "done" else None,
        "protocols": list(experiment.protocols),
        "absent": experiment.absent,
        "root": str(dataset.folder().resolve()),
        "class_pixels": list(verified["splits"][dataset.train_split]["class_pixels"].values())[:-1],
        "settings": settings,
        "fingerprint": fingerprint(settings),
        "provenance": origin
        | {"data_fingerprint": settings["data"], "initial_weights_sha256": settings["initial_weights"]},
        "started": started,
        "seconds": round(job.seconds, 1),
    }
    write_json(folder / "training.json", record)
    return record


def open_dataset(name: str, root: Path, results: Path) -> tuple[Dataset, dict[str, Any]]:
    """The data set under its root, rendered if it is a generated one, and its verify.json."""
    dataset = datasets.load(name, root)
    datasets.prepare(dataset)
    return dataset, verify(dataset, datasets.report_path(name, results))


@dataclass
class _Job:
    run: Run
    folder: Path
    settings: dict[str, Any]
    dataset: Dataset
    trainer: Trainer
    history: History
    machine: Machine
    cache: Path  # the folder of decoded images, if they are kept on the disk
    done: int  # iterations
    seconds: float  # of training, those before an interruption included

    def loop(self) -> None:
        """Iterate from where the run is to the schedule's end."""
        schedule = self.trainer.schedule
        start, clock = self.done, time.monotonic() - self.seconds
        with Progress(f"train {self.run}", schedule.iterations, start) as progress:
            for iteration, (images, labels) in enumerate(self._batches(start), start=start):
                rate = learning_rate(schedule, iteration)
                self.history.add(self.trainer.step(images, labels, iteration, rate))
                self.done, self.seconds = iteration + 1, time.monotonic() - clock
                last = self.done == schedule.iterations
                if self.done % schedule.log_every == 0 or last:
                    self._log(rate)
                if self.done % schedule.checkpoint_every == 0 or last:
                    self._save()
                progress.advance(f"loss {self.history.rows[-1]['loss']:.3f}" if self.history.rows else "")

    def _batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        schedule = self.trainer.schedule
        augmentation = Augmentation(
            crop=schedule.crop,
            scale=schedule.scale,
            fit=schedule.fit,
            flip=schedule.flip,
            photometric=schedule.photometric.model_dump() if schedule.photometric else None,
            pad=self.trainer.network.pad_value,
        )
        samples = self.dataset.samples(self.dataset.train_split)
        reader = open_cache(self.dataset, samples, self.machine.cache, self.cache)
        keyed = TrainingSamples(reader, samples, augmentation, self.trainer.seed, schedule.batch)
        return batches(keyed, start, schedule.iterations, self.machine.workers)

    def _log(self, rate: float) -> None:
        if (bad := self.trainer.diverged_at()) is not None:
            raise Diverged(f"loss or gradient is not finite at iteration {bad}")
        self.history.close_row(self.done, rate, round(self.seconds, 2))
        self.history.write(self.folder)

    def _save(self) -> None:
        state = {
            "iteration": self.done,
            "seconds": self.seconds,
            "settings": self.settings,
            "history": self.history.state_dict(),
            **self.trainer.state_dict(),
        }
        checkpoint.save(self.folder / "checkpoints", self.done, state)


def _continue(folder: Path, settings: dict[str, Any], trainer: Trainer, history: History) -> tuple[int, float]:
    """Load the newest checkpoint, if any; returns the iterations and seconds done."""
    state = checkpoint.load_newest(folder / "checkpoints")
    if state is None:
        return 0, 0.0
    refuse_other_settings(folder, settings, state["settings"])
    trainer.load_state_dict(state)
    history.load_state_dict(state["history"])
    return state["iteration"], state["seconds"]


def inference_weights(folder: Path) -> Path:
    """Where a run keeps the tensors of its inference network."""
    return folder / "checkpoints" / "inference.safetensors"


def _export(trainer: Trainer, folder: Path) -> str:
    """Save the network without its auxiliary heads and without the method; returns its hash."""
    from safetensors.torch import save_file

    state: dict[str, Tensor] = {
        name: tensor.detach().cpu().contiguous() for name, tensor in trainer.network.inference_state().items()
    }
    with atomic.replacing(inference_weights(folder)) as path:
        save_file(state, path)
    return state_hash(state)
