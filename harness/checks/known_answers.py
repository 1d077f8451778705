"""Evaluates mmsegmentation's trained networks and compares their scores with the published ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import models
from harness.compute.machine import Machine
from harness.datasets.dataset import Dataset
from harness.errors import UserError
from harness.evaluation.evaluate import measure, ready
from harness.evaluation.pipeline import counting
from harness.evaluation.record import scores_of
from harness.models.inference import Window
from harness.models.spec import Published
from harness.models.weights import load_segmentation_checkpoint


def evaluate_checkpoint(
    path: Path,
    model: str,
    dataset: Dataset,
    machine: Machine,
    *,
    protocols: Sequence[str] = (),
    absent: str = "skip",
    window: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Score the segmentation checkpoint `path` on the evaluation split of `dataset`.

    `protocols`: default those with a published score, or else `whole`. A published score fixes the window and the size
    of the test images; otherwise `window` (height, width) is used for the protocol `slide`.

    Returns `model`, `dataset`, `split`, `images`, `absent`, `checkpoint`, `sha256`, `scores` and `per_class` by
    protocol, and `known_answers`: {protocol: {published, tolerance, measured, passed}}, mIoU in percent. A published
    score is compared only for the checkpoint with its sha256. Raises UserError for another model's file.
    """
    network = models.build(model, dataset.num_classes, weights="none")
    loaded = load_segmentation_checkpoint(network, path)
    device = machine.use()
    ready(network, device)
    published: dict[str, Published] = {
        each.protocol: each for each in models.published(model, dataset.name, loaded.sha256)
    }
    scores: dict[str, Any] = {}
    per_class: dict[str, Any] = {}
    answers: dict[str, Any] = {}
    images = 0
    for protocol in protocols or list(published) or ["whole"]:
        fact = published.get(protocol)
        seen = fact.window if fact else window
        if protocol == "slide" and seen is None:
            raise UserError("the protocol slide needs its window: pass --window HEIGHTxWIDTH")
        through = Window.of(seen, fact.stride if fact else None) if seen else None
        fit = fact.fit if fact else None
        with counting(device) as counters:
            counts, confusions = measure(network, dataset, [protocol], None, counters, window=through, fit=fit)
        found = scores_of(counts, absent, None, confusions, dataset.categories)
        scores |= found["scores"]
        per_class |= found["per_class"]
        images = len(counts.image_ids)
        if fact:
            miou = scores[protocol]["miou"]
            answers[protocol] = {
                "published": fact.miou,
                "tolerance": fact.tolerance,
                "measured": miou,
                "passed": miou is not None and abs(miou - fact.miou) <= fact.tolerance,
            }
    return {
        "model": model,
        "dataset": dataset.name,
        "split": dataset.evaluation_split,
        "images": images,
        "absent": absent,
        "checkpoint": path.name,
        "sha256": loaded.sha256,
        "scores": scores,
        "per_class": per_class,
        "known_answers": answers,
    }
