"""The training loop: from a run's newest checkpoint to the end of the schedule, with checkpoints on the way."""

import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.compute.energy import Energy, EnergyMeter
from harness.compute.machine import Machine
from harness.compute.progress import Progress, duration
from harness.compute.torchrun import is_main
from harness.datasets.cache import open_cache
from harness.datasets.dataset import Dataset
from harness.errors import UserError
from harness.runs.ending import Diverged, Notice, Terminated, TimedOut, is_out_of_memory, noticing_sigterm
from harness.runs.locking import Lock
from harness.runs.record import refuse_other_settings
from harness.training import checkpoint, distributed
from harness.training.board import Board
from harness.training.device_samples import DeviceSamples, room_on
from harness.training.embeddings import note_embeddings
from harness.training.history import History
from harness.training.samples import batches, slots_of, training_images, training_samples
from harness.training.schedule import learning_rate
from harness.training.trainer import Trainer

DEADLINE, SIGTERM = 1, 2  # reasons to stop early; the max over ranks decides


@dataclass
class Job:
    """A run being trained in its `folder`, which rank 0 has locked."""

    name: str
    folder: Path
    settings: dict[str, Any]
    dataset: Dataset
    machine: Machine
    device: torch.device
    weights: str
    cache: Path  # the folder for decoded images, if they are cached on disk
    lock: Lock | None  # None except on rank 0
    trainer: Trainer
    timeout: float | None = None  # seconds that this process may train
    until: int | None = None  # stop after so many iterations; None: at the end of the schedule
    tensorboard: bool = False  # also write TensorBoard event files
    samples: str = "cpu"  # where samples are augmented
    board: Board | None = None

    def __post_init__(self) -> None:
        self.resume()

    def resume(self) -> None:
        """Load the newest checkpoint, if any, into trainer and history.

        Raises UserError if ranks see different checkpoints.
        """
        self.history = History()
        self.done, self.seconds = 0, 0.0  # iterations and seconds, including those before an interruption
        self._earlier: Energy = {}  # energy before an interruption
        self._meter: EnergyMeter | None = None
        for module in (self.trainer.network, self.trainer.method):
            distributed.copy_from_main(module)
        if (state := checkpoint.load_newest(self.folder / "checkpoints")) is not None:
            refuse_other_settings(self.folder, self.settings, state["settings"])
            self.trainer.load_state_dict(state)
            self.history.load_state_dict(state, self.device)
            self.done, self.seconds = state["iteration"], state["seconds"]
            self._earlier = state.get("energy", {})  # missing in old checkpoints
        if distributed.max_over_ranks(self.done) != -distributed.max_over_ranks(-self.done):
            raise UserError(f"the processes see different checkpoints in {self.folder}: give a shared --results folder")

    @property
    def energy(self) -> Energy:
        """The energy that the iterations used, as far as it was measured (`EnergyMeter.energy`)."""
        return self._meter.energy(self._earlier) if self._meter else self._earlier

    def finish(self) -> None:
        """Train to the end. If memory runs out, continue from the last checkpoint with half the micro-batch.

        Distributed runs do not retry: the other ranks would be stuck in the middle of an iteration.

        Raises Diverged, TimedOut, Terminated (after SIGTERM), or the out-of-memory error of the last attempt.
        """
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        while True:
            micro_batch = self.trainer.micro_batch
            try:
                return self._loop(deadline)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if distributed.world_size() > 1:
                    first = str(error).partition("\n")[0]
                    raise MemoryError(
                        f"rank {distributed.rank()} of {distributed.world_size()} ran out of memory with {micro_batch} "
                        f"images at a time; only a single process retries with fewer: start more processes, or one "
                        f"({first})"
                    ) from None
                if micro_batch == 1:
                    raise
            except ValueError as error:
                if micro_batch == self.trainer.part or "more than 1 value per channel" not in str(error):
                    raise
                raise MemoryError(
                    f"{2 * micro_batch} images at a time do not fit, and with {micro_batch} batch norm sees only one "
                    "value per channel"
                ) from None
            # Outside the handler, since the exception keeps alive the tensors that filled the memory.
            self._halve(micro_batch)

    def _halve(self, micro_batch: int) -> None:
        smaller = (micro_batch + 1) // 2
        print(
            f"warning: {self.name} ran out of memory with {micro_batch} images at a time: trying {smaller} "
            f"(the batch stays {self.trainer.schedule.batch})",
            file=sys.stderr,
            flush=True,
        )
        del self.trainer
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        classes = len(self.dataset.classes)
        self.trainer = Trainer(self.settings, classes, self.device, self.weights, self.machine.graphs)
        self.resume()
        self.trainer.micro_batch = smaller

    def _loop(self, deadline: float | None) -> None:
        schedule, start = self.trainer.schedule, self.done
        end = schedule.iterations if self.until is None else self.until
        if self.lock is not None:
            self.lock.begin("train", start, end)
        if start == 0 and is_main():
            note_embeddings(self.folder, "before", self.trainer, self.dataset)
        clock = time.monotonic() - self.seconds
        with (
            noticing_sigterm() as terminating,
            self._open_board(),
            EnergyMeter(self.device) as self._meter,
            Progress(f"train {self.name}", end, start) as progress,
        ):
            for iteration, (images, labels) in enumerate(self._batches(start, end), start=start):
                rate = learning_rate(schedule, iteration)
                self.history.add(self.trainer.step(images, labels, iteration, rate))
                self.done, self.seconds = iteration + 1, time.monotonic() - clock
                self._meter.follow()
                last = self.done == schedule.iterations
                if self.trainer.observes(iteration):
                    self._log(rate)
                if self.done % schedule.checkpoint_every == 0 or last:
                    clock += self._show_predictions()
                    self._save()
                # Checked once per iteration; the max over ranks makes all ranks stop at the same iteration.
                stop = 0 if last else distributed.max_over_ranks(_asked_to_stop(terminating, deadline))
                if stop and self.done % schedule.checkpoint_every:
                    self._refuse_divergence()
                    self._save()
                if stop == SIGTERM:
                    print(
                        f"SIGTERM: {self.name} stops at a checkpoint after {self.done} iterations; "
                        "run the same command to continue",
                        file=sys.stderr,
                        flush=True,
                    )
                    raise Terminated
                if stop == DEADLINE:
                    raise TimedOut(f"not finished after {duration(self.timeout or 0)} (iteration {self.done})")
                progress.advance(f"loss {self.history.rows[-1]['loss']:.3f}" if self.history.rows else "")
        if end == schedule.iterations and is_main():
            note_embeddings(self.folder, "after", self.trainer, self.dataset)

    def _batches(self, start: int, end: int) -> Iterator[tuple[Tensor, Tensor]]:
        schedule = self.trainer.schedule
        samples = training_images(self.dataset, schedule)
        reads = (end - start) * schedule.batch
        reader = open_cache(self.dataset, samples, self.machine.cache, self.cache, reads)
        keyed = training_samples(reader, samples, schedule, self.trainer.seed, self.trainer.network.pad_value)
        slots = slots_of(distributed.rank(), distributed.world_size(), schedule.batch)
        gpu = self.device.type == "cuda"
        readers = self.machine.readers(self.device)
        if gpu and self.machine.gpu_samples:
            self.samples = "gpu"
            room = room_on(self.device)
            return DeviceSamples(self.dataset, keyed, self.device, room, slots, readers).batches(start, end)
        return batches(keyed, start, end, readers, slots, pinned=gpu)

    @contextmanager
    def _open_board(self) -> Iterator[None]:
        if not (self.tensorboard and is_main()):
            yield
            return
        with Board(self.folder, self.dataset, self.history.rows, self.done) as self.board:
            yield

    def _show_predictions(self) -> float:
        """Draw predictions in TensorBoard, if used; returns the seconds spent, which do not count as training time."""
        before = time.monotonic()
        if self.board:
            self.board.show(self.trainer.network, self.done)
        return time.monotonic() - before

    def _refuse_divergence(self) -> None:
        if (bad := self.trainer.diverged_at()) is not None:
            raise Diverged(f"loss or gradient is not finite at iteration {bad}")

    def _log(self, rate: float) -> None:
        self._refuse_divergence()
        row = self.history.close_row(self.done, rate, round(self.seconds, 2))
        if self.lock is not None:
            self.history.write(self.folder)
            self.lock.tell(self.done, self.trainer.schedule.iterations)
        if self.board:
            self.board.add(row)

    def _save(self) -> None:
        state = {
            "iteration": self.done,
            "seconds": self.seconds,
            "energy": self.energy,
            "settings": self.settings,
            **self.history.state_dict(),
            **self.trainer.state_dict(),
        }
        if is_main():
            checkpoint.save(self.folder / "checkpoints", self.done, state)


def _asked_to_stop(terminating: Notice, deadline: float | None) -> int:
    if terminating.given:
        return SIGTERM
    return DEADLINE if deadline and time.monotonic() > deadline else 0
