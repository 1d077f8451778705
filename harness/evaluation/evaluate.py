"""Evaluates a trained run: predictions -> counts -> scores -> record.json."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file

from harness import atomic, datasets, models
from harness.datasets.dataset import Dataset
from harness.errors import UserError
from harness.evaluation.counts import Counts, confusion_image, count_image, stack
from harness.evaluation.inference import predict
from harness.machine import Machine
from harness.models.segmenter import Segmenter
from harness.progress import track
from harness.run import read_json, write_json
from harness.statistics.scores import score
from harness.training.train import inference_weights

Tables = dict[str, np.ndarray]


def evaluate(
    folder: Path,
    machine: Machine,
    *,
    root: Path | None = None,
    protocols: Sequence[str] = (),
    absent: str | None = None,
) -> dict[str, Any]:
    """Evaluate the trained run in `folder` on its data set's evaluation split and return what record.json holds.

    Writes counts.npz, confusion.npz, the label maps of the first protocol under predictions/ and, last, record.json.
    A run that was not trained to its end gets a record with its status and no scores.
    """
    training = read_json(folder / "training.json")
    protocols = list(protocols) or training["protocols"]
    only_training = ("schema", "protocols", "absent", "root", "class_pixels")
    record = {key: value for key, value in training.items() if key not in only_training}
    record |= {"absent": absent or training["absent"], "split": None, "scores": {}, "per_class": {}}
    if training["status"] == "done":
        device = machine.use()
        dataset = datasets.load(training["key"]["dataset"], root or Path(training["root"]))
        network = load_network(folder, training["key"]["model"], len(dataset.classes), device)
        record["split"] = dataset.evaluation_split
        counts, confusions = measure(network, dataset, protocols, folder / "predictions", str(folder))
        counts.save(folder / "counts.npz")
        with atomic.replacing(folder / "confusion.npz") as path:
            np.savez_compressed(path, allow_pickle=False, **confusions)
        for protocol, tables in counts.tables.items():
            scores, per_class = score(tables, dataset.classes, record["absent"], training["class_pixels"])
            record["scores"][protocol], record["per_class"][protocol] = scores, per_class
    record["evaluated"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / "record.json", record)
    return record


def load_network(folder: Path, model: str, num_classes: int, device: torch.device) -> Segmenter:
    """The inference network of a trained run, in eval mode. Raises UserError if its weights are missing."""
    path = inference_weights(folder)
    if not path.is_file():
        raise UserError(f"{path} is missing: train this run (with --restart) before evaluating it")
    network = models.build(model, num_classes, weights="none")
    network.load_inference_state(load_file(path))
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    return network.eval()


def measure(
    network: Segmenter, dataset: Dataset, protocols: Sequence[str], predictions: Path, title: str
) -> tuple[Counts, dict[str, np.ndarray]]:
    """Predict every image of the evaluation split by every protocol and count.

    Counting and writing run beside the network in threads of their own. Label maps of the first protocol are written
    to `predictions`/<protocol>/<id>.png (8-bit train ids).
    """
    samples = dataset.samples(dataset.evaluation_split)
    num_classes = len(dataset.classes)

    def count(
        image_id: str, prediction: np.ndarray, label: np.ndarray, target: Path | None
    ) -> tuple[Tables, np.ndarray]:
        if target is not None:
            with atomic.replacing(target / f"{image_id}.png") as path:
                cv2.imwrite(str(path), prediction)
        return count_image(prediction, label, num_classes), confusion_image(prediction, label, num_classes)

    tables: dict[str, Tables] = {}
    confusions: dict[str, np.ndarray] = {}
    for protocol in protocols:
        target = predictions / protocol if protocol == protocols[0] else None
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            pending = []
            for sample in track(samples, f"evaluate {title} {protocol}", len(samples)):
                image, label = dataset.read(sample)
                prediction = predict(network, image, protocol)
                pending.append(pool.submit(count, sample.id, prediction, label, target))
            results = [future.result() for future in pending]
        tables[protocol] = stack([counts for counts, _ in results])
        confusions[protocol] = np.sum([confusion for _, confusion in results], axis=0)
    return Counts([sample.id for sample in samples], dataset.classes, tables), confusions
