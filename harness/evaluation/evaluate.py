"""Evaluates a trained run: predictions -> counts -> scores -> record.json."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from harness import datasets, models
from harness.datasets.dataset import Dataset
from harness.ending import ending
from harness.errors import UserError
from harness.evaluation.counts import Counts, stack
from harness.evaluation.inference import Size, Window, predict
from harness.evaluation.record import Counted, count_pair, map_path, save_counts, scores_of, write_map
from harness.locking import Lock, hold, remove_leftovers
from harness.machine import Machine
from harness.models.segmenter import Segmenter, state_hash
from harness.progress import track
from harness.run import file_hash, inference_weights, read_json, write_json

Tables = dict[str, np.ndarray]


def evaluate(
    folder: Path,
    machine: Machine,
    *,
    root: Path | None = None,
    protocols: Sequence[str] = (),
    absent: str | None = None,
    keep_going: bool = False,
) -> dict[str, Any]:
    """Evaluate the trained run in `folder` on its data set's evaluation split and return what record.json holds.

    Writes counts.npz, confusion.npz, the label maps of the first protocol under predictions/ and, last, record.json.
    A run that was not trained to its end, or whose evaluation fails, gets a record with its status and no scores.

    With `keep_going`, as one run of many: data that is missing is a result too ("skipped"), and if another process
    works on this run already, its end is waited for. Raises UserError for other mistakes.
    """
    if not folder.is_dir():
        read_json(folder / "training.json")  # refuses, with the sentence for it
    with hold(folder, "evaluate", keep_going) as lock:
        remove_leftovers(folder)
        training = read_json(folder / "training.json")
        only_training = ("schema", "protocols", "absent", "root", "class_pixels")
        record = {key: value for key, value in training.items() if key not in only_training}
        record |= {"absent": absent or training["absent"], "split": None, "scores": {}, "per_class": {}}
        if training["status"] == "done":
            with ending(missing_data=keep_going) as end:
                chosen = list(protocols) or training["protocols"]
                record |= _evaluated(folder, training, machine, root, chosen, record["absent"], lock)
            record |= end.as_record()
        record["evaluated"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(folder / "record.json", record)
    return record


def _evaluated(
    folder: Path,
    training: dict[str, Any],
    machine: Machine,
    root: Path | None,
    protocols: list[str],
    absent: str,
    lock: Lock,
) -> dict[str, Any]:
    """What an evaluation adds to the record of a run that is done."""
    device = machine.use()
    dataset = datasets.load(training["key"]["dataset"], root or Path(training["root"]))
    network = load_network(folder, training["key"]["model"], len(dataset.classes), device)
    if state_hash(network.inference_state()) != training["weights_hash"]:
        raise UserError(f"the weights in {folder} are not those of its training.json: train it again with --restart")
    window = window_of(training["settings"]["schedule"])
    counts, confusions = measure(network, dataset, protocols, folder, window=window, lock=lock)
    save_counts(folder, counts, confusions)
    files = {name: file_hash(folder / name) for name in ("counts.npz", "confusion.npz")}
    return {"split": dataset.evaluation_split, "files": files} | scores_of(counts, absent, training["class_pixels"])


def load_network(folder: Path, model: str, num_classes: int, device: torch.device) -> Segmenter:
    """The inference network of a trained run, in eval mode. Raises UserError if its weights are missing."""
    path = inference_weights(folder)
    if not path.is_file():
        raise UserError(f"{path} is missing: train this run (with --restart) before evaluating it")
    network = models.build(model, num_classes, weights="none")
    try:
        network.load_inference_state(load_file(path))
    except SafetensorError:
        raise UserError(f"{path} is damaged: train this run again (with --restart)") from None
    return ready(network, device)


def ready(network: Segmenter, device: torch.device) -> Segmenter:
    """The network on its device, in eval mode and with the memory format that convolutions run fastest in."""
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    return network.eval()


def window_of(schedule: Mapping[str, Any]) -> Window:
    """The window of the protocol `slide` in a run's schedule: its own, or the crop."""
    size, stride = schedule.get("slide_window") or schedule["crop"], schedule.get("slide_stride")
    return Window.of((size[0], size[1]), (stride[0], stride[1]) if stride else None)


def measure(
    network: Segmenter,
    dataset: Dataset,
    protocols: Sequence[str],
    folder: Path | None,
    *,
    window: Window | None = None,
    fit: Size | None = None,
    lock: Lock | None = None,
) -> tuple[Counts, dict[str, np.ndarray]]:
    """Predict every image of the evaluation split by every protocol and count.

    Counting and writing run beside the network in threads of their own. Label maps of the first protocol are written
    to the run's `folder` (`record.map_path`), if there is one. `window` and `fit` as `inference.scores` takes them. The
    run's `lock` is told of the images of each protocol.
    """
    samples = dataset.samples(dataset.evaluation_split)
    num_classes = len(dataset.classes)

    def count(prediction: np.ndarray, label: np.ndarray, kept: Path | None) -> Counted:
        if kept is not None:
            write_map(kept, prediction)
        return count_pair(prediction, label, num_classes)

    tables: dict[str, Tables] = {}
    confusions: dict[str, np.ndarray] = {}
    for protocol in protocols:
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            pending: list[Future[Counted]] = []
            if lock:
                lock.begin(f"evaluate {protocol}", 0, len(samples))
            for sample in track(samples, f"evaluate {folder or dataset.name} {protocol}", len(samples)):
                image, label = dataset.read(sample)
                prediction = predict(network, image, protocol, window, fit)
                kept = map_path(folder, protocol, sample.id) if folder and protocol == protocols[0] else None
                pending.append(pool.submit(count, prediction, label, kept))
                if lock:
                    lock.tell(len(pending), len(samples))
            results = [future.result() for future in pending]
        tables[protocol] = stack([counts for counts, _ in results])
        confusions[protocol] = np.sum([confusion for _, confusion in results], axis=0)
    return Counts([sample.id for sample in samples], dataset.classes, tables), confusions
