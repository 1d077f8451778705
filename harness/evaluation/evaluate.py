"""Evaluates a trained run: predictions -> counts -> scores -> record.json."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from harness import datasets, models
from harness.compute.machine import Machine
from harness.compute.progress import track
from harness.compute.torchrun import is_main
from harness.datasets.dataset import Dataset
from harness.errors import UserError
from harness.evaluation.counts import Counts
from harness.evaluation.pipeline import Counting, counting, predicted
from harness.evaluation.record import Counted, keep_and_count, map_path, save_counts, scores_of
from harness.experiment.schema import Schedule
from harness.models.checkpoints import check_finite
from harness.models.inference import Size, Window
from harness.models.segmenter import Segmenter, state_hash
from harness.runs.ending import Ending
from harness.runs.failures import not_evaluated
from harness.runs.health import health_of
from harness.runs.locking import Lock, hold, remove_leftovers
from harness.runs.record import RECORD, TRAINING, Record, file_hash, inference_weights, now
from harness.training import distributed

Tables = dict[str, np.ndarray]


def evaluate(
    folder: Path,
    machine: Machine,
    *,
    root: Path | None = None,
    protocols: Sequence[str] = (),
    absent: str | None = None,
    keep_going: bool = False,
) -> Record:
    """Evaluate the trained run in `folder` on its data set's evaluation split and return its record.

    Under torchrun each rank predicts its share of the images and rank 0 writes the record. Writes counts.npz,
    confusion.npz, the label maps of the first protocol under predictions/ and, last, record.json. A run that was not
    trained to the end, or whose evaluation fails, gets a record with its status and no scores.

    `keep_going` is for one run of many: missing data is a result too ("skipped"), and if another process is working on
    this run, it waits for that to end. Raises UserError for other mistakes.
    """
    with distributed.joined():
        if not folder.is_dir():
            Record.load(folder / TRAINING)  # raises UserError: the file is missing
        with distributed.on_main(hold(folder, "evaluate", keep_going)) as lock:
            return _evaluate(folder, machine, root, list(protocols), absent, keep_going, lock)


def _evaluate(
    folder: Path,
    machine: Machine,
    root: Path | None,
    protocols: list[str],
    absent: str | None,
    keep_going: bool,
    lock: Lock | None,
) -> Record:
    """Like `evaluate`, once rank 0 holds the folder's `lock`."""
    training = distributed.record_from_main(lambda: _training(folder))
    record = not_evaluated(training, absent)

    def write(end: Ending | None) -> None:
        nonlocal record
        record = record.but(**(asdict(end) if end else {}), evaluated=now())
        if is_main():
            record.save(folder / RECORD)

    if training.status != "done":
        write(None)
        return record
    with distributed.ending_together(write, missing_data=keep_going, status=0 if keep_going else 1) as end:
        chosen = protocols or training.protocols or ["whole"]
        record = record.but(**_evaluated(folder, training, machine, root, chosen, record.absent, lock))
    write(end)
    return record


def _training(folder: Path) -> Record:
    """The record of the run's training. Also removes leftover temporary files from its folder."""
    remove_leftovers(folder)
    return Record.load(folder / TRAINING)


def _evaluated(
    folder: Path,
    training: Record,
    machine: Machine,
    root: Path | None,
    protocols: list[str],
    absent: str,
    lock: Lock | None,
) -> dict[str, Any]:
    """The fields that an evaluation adds to the record of a finished training."""
    device = machine.use()
    distributed.start(device)
    dataset = open_dataset(training, root)
    with counting(device) as counters:
        network = load_network(folder, training.key.model, len(dataset.classes), device)
        if state_hash(network.inference_state()) != training.weights_hash:
            raise UserError(
                f"the weights in {folder} are not those of its training.json: remove them and run the training again"
            )
        window, fit = window_of(training.schedule), training.schedule.fit
        counts, confusions = measure(network, dataset, protocols, folder, counters, window=window, fit=fit, lock=lock)
    files = distributed.from_main(lambda: _saved(folder, counts, confusions))
    found: dict[str, Any] = {"split": dataset.evaluation_split, "files": files, "data_remark": dataset.remark or None}
    found["health"] = health_of(folder, training)
    return found | scores_of(counts, absent, training.class_pixels, confusions, dataset.categories)


def open_dataset(training: Record, root: Path | None) -> Dataset:
    """The data set of a trained run; `root`: default the folder that it was trained from."""
    return datasets.load(training.key.dataset, root or Path(training.root or ""))


def _saved(folder: Path, counts: Counts, confusions: dict[str, np.ndarray]) -> dict[str, str]:
    """Write counts.npz and confusion.npz; returns the files' hashes."""
    save_counts(folder, counts, confusions)
    return {name: file_hash(folder / name) for name in ("counts.npz", "confusion.npz")}


def load_network(folder: Path, model: str, num_classes: int, device: torch.device) -> Segmenter:
    """The inference network of a trained run, in eval mode. Raises UserError if its weights are missing."""
    path = inference_weights(folder)
    if not path.is_file():
        raise UserError(f"{path} is missing: train this run again before evaluating it")
    network = models.build(model, num_classes, weights="none")
    try:
        state = load_file(path)
        check_finite(path, state)
        network.load_inference_state(state)
    except SafetensorError:
        raise UserError(f"{path} is damaged: remove it and run the training again") from None
    return ready(network, device)


def ready(network: Segmenter, device: torch.device) -> Segmenter:
    """The network on `device`, in eval mode and channels-last, in which convolutions are fastest."""
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    return network.eval()


def window_of(schedule: Schedule) -> Window:
    """The window of the protocol `slide`: the schedule's `slide_window`, or else its crop."""
    return Window.of(schedule.slide_window or schedule.crop, schedule.slide_stride)


def measure(
    network: Segmenter,
    dataset: Dataset,
    protocols: Sequence[str],
    folder: Path | None,
    counters: Counting,
    *,
    window: Window | None = None,
    fit: Size | None = None,
    lock: Lock | None = None,
) -> tuple[Counts, dict[str, np.ndarray]]:
    """Counts and confusion matrices by protocol of `network` on every image of the evaluation split.

    Images are read, predicted and counted concurrently (`pipeline`); `counters` do the counting. Label maps of the
    first protocol are written to the run's `folder` (`record.map_path`), if given. `window` and `fit` are those of
    `inference.scores`. Rank r predicts images r, r + world_size, ...; every rank returns the counts of all images.
    Progress is written to the run's `lock`.
    """
    samples = dataset.samples(dataset.evaluation_split)
    own = range(distributed.rank(), len(samples), distributed.world_size())
    num_classes = len(dataset.classes)
    tables: dict[str, Tables] = {}
    confusions: dict[str, np.ndarray] = {}
    for protocol in protocols:
        if lock:
            lock.begin(f"evaluate {protocol}", 0, len(own))
        maps = predicted(network, (samples[index] for index in own), dataset.read, protocol, window, fit)
        pending: dict[int, Future[Counted]] = {}
        for each in track(maps, f"evaluate {folder or dataset.name} {protocol}", len(own)):
            kept = map_path(folder, protocol, each.item.id) if folder and protocol == protocols[0] else None
            pending[each.place] = counters.start(keep_and_count, kept, each.labels, each.extra, num_classes)
            if lock:
                lock.tell(len(pending), len(own))
        results = [pending[place].result() for place in range(len(own))]
        tables[protocol], confusions[protocol] = _of_all_images(results, own, len(samples), num_classes)
    return Counts([sample.id for sample in samples], dataset.classes, tables), confusions


def _of_all_images(results: list[Counted], own: range, images: int, num_classes: int) -> tuple[Tables, np.ndarray]:
    """The tables [N, K, 3] of all N images and their confusion matrix [K, K], from each rank's own images.

    On each rank the rows of the other ranks' images are 0, so the sum over ranks is the full table.
    """
    names = distributed.from_main(lambda: list(results[0][0]))  # other ranks may have no image
    counts = torch.zeros(images, len(names), num_classes, 3, dtype=torch.int64)
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for index, (tables, matrix) in zip(own, results, strict=True):
        counts[index] = torch.from_numpy(np.stack([tables[name] for name in names]))
        confusion += torch.from_numpy(matrix)
    counts, confusion = distributed.all_sum([counts, confusion])
    return {name: counts[:, place].numpy() for place, name in enumerate(names)}, confusion.numpy()
