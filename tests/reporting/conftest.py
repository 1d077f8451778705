"""Experiments and result folders with known counts."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from run_files import make_record

from harness import datasets
from harness.datasets.dataset import Dataset
from harness.evaluation.counts import DEFAULT_WIDTHS, Counts, count_image, stack
from harness.experiment.schema import Experiment
from harness.statistics.scores import score

CLASSES = ("Sky", "Road", "Sign_Symbol", "Never")  # "Never" is in no image


@pytest.fixture(scope="session")
def experiment_in() -> Callable[..., Experiment]:
    """`experiment_in(folder, key=value, ...)`: an experiment, its file in that folder, with some keys changed."""

    def make(folder: Path, **changes: Any) -> Experiment:
        content = {
            "arms": {
                "rival_one": {"method": "cross_entropy"},
                "plain": {"method": "cross_entropy"},
                "cross_entropy": {},
            },
            "baseline": "plain",
            "datasets": ["scenes"],
            "models": ["lite0_fpn"],
            "seeds": [0, 1],
            "protocols": ["whole", "ms_flip"],
            "schedule": {"iterations": 50, "batch": 2, "crop": [32, 32], "learning_rate": 0.1},
        } | changes
        path = folder / "little.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return Experiment.load(path)

    return make


@pytest.fixture
def make_experiment(experiment_in: Callable[..., Experiment], tmp_path: Path) -> Callable[..., Experiment]:
    """`make_experiment(key=value, ...)`: an experiment with some keys changed."""
    return partial(experiment_in, tmp_path)


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Counts]:
    """`write_run(experiment, results, arm, seed, ...)`: writes a run's folder and returns its counts."""
    return _write_run


@pytest.fixture(scope="session")
def write_all() -> Callable[..., dict[tuple[str, str, str, int], Counts]]:
    """Writes every run of an experiment; later arms are better by about `step` points."""

    def write(experiment: Experiment, results: Path, step: float = 2.0, **options: Any):
        arms = list(experiment.arms)
        return {
            (run.dataset, run.model, run.arm, run.seed): _write_run(
                experiment,
                results,
                run.arm,
                run.seed,
                dataset=run.dataset,
                model=run.model,
                skill=0.7 + 0.01 * step * arms.index(run.arm),
                **options,
            )
            for run in experiment.runs()
        }

    return write


@pytest.fixture
def write_predictions(tiny_data: Path, predictions_of: Callable[..., None]) -> Callable[..., None]:
    """`write_predictions(experiment, results, arm, ...)`: `predictions_of` the data set `tiny`."""
    return lambda *given: predictions_of(datasets.load("tiny", tiny_data), *given)


@pytest.fixture(scope="session")
def predictions_of(write_run: Callable[..., Counts]) -> Callable[..., None]:
    """`predictions_of(data set, experiment, results, arm, ...)`: runs with label maps and their counts.

    The first arm predicts the ground truth, with class 1 where it is ignored, the others class 0 everywhere.
    """

    def write(dataset: Dataset, experiment: Experiment, results: Path, *arms: str) -> None:
        samples = dataset.samples("test")
        for arm in arms:
            write_run(experiment, results, arm, 0, dataset="tiny", classes=dataset.classes)
            folder = experiment.run("tiny", "lite0_fpn", arm, 0).folder(results)
            counts = []
            for sample in samples:
                label = dataset.read_label(sample)
                prediction = np.where(label == 255, 1, label) if arm == arms[0] else np.zeros_like(label)
                counts.append(count_image(prediction.astype(np.uint8), label, 3))
                path = folder / "predictions" / experiment.protocols[0] / f"{sample.id}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), prediction.astype(np.uint8))
            tables = {protocol: stack(counts) for protocol in experiment.protocols}
            Counts([sample.id for sample in samples], dataset.classes, tables).save(folder / "counts.npz")

    return write


def _write_run(
    experiment: Experiment,
    results: Path,
    arm: str,
    seed: int,
    *,
    dataset: str = "scenes",
    model: str = "lite0_fpn",
    status: str = "done",
    reason: str | None = None,
    skill: float = 0.7,
    images: int = 30,
    classes: tuple[str, ...] = CLASSES,
    curve: bool = True,
    device: str = "",
    source: str | None = None,
    initial_weights: dict[str, Any] | None = None,
) -> Counts:
    run = experiment.run(dataset, model, arm, seed)
    folder = run.folder(results)
    folder.mkdir(parents=True, exist_ok=True)
    luck = np.random.default_rng([seed, len(arm), sum(map(ord, arm + model + dataset))])
    if curve:
        _write_curve(folder / "curve.csv", arm, luck, iterations=50 if status == "done" else 30)
    known: dict[str, Any] = {"status": status, "reason": reason, "absent": experiment.absent, "scores": {}}
    known |= {"per_class": {}, "initial_weights": initial_weights}
    if device:
        known["provenance"] = {"commit": "c0ffee1" * 6, "packages": {"torch": "2.13.0"}}
        known["provenance"]["device"] = {"type": "cpu", "name": device}
    if source is not None:
        known["settings"] = {"method_source": source}
    own_skill = skill + luck.normal(0, 0.01)
    tables = {
        protocol: {
            table: _table(images, len(classes), own_skill - 0.05 * (table != "region"), luck)
            for table in ("region", *(f"{kind}@{width}" for kind in ("boundary", "trimap") for width in DEFAULT_WIDTHS))
        }
        for protocol in experiment.protocols
    }
    counts = Counts([f"clip_{index:03d}" for index in range(images)], classes, tables)
    if status == "done":
        counts.save(folder / "counts.npz")
        for protocol, of_protocol in tables.items():
            known["scores"][protocol], known["per_class"][protocol] = score(of_protocol, classes, experiment.absent)
    make_record(experiment, run, **known).save(folder / "record.json")
    return counts


def _table(images: int, classes: int, skill: float, luck: np.random.Generator) -> np.ndarray:
    """TP, FP, FN [images, classes, 3]: the same images for all runs, each run's own luck; the last class absent."""
    sizes = np.random.default_rng(7).integers(50, 2000, (images, classes))
    sizes[:, -1] = 0
    hits = luck.binomial(sizes, np.clip(skill + np.linspace(0.1, -0.1, images)[:, None], 0, 1))
    false = luck.binomial(sizes, 0.1)
    return np.stack([hits, false, sizes - hits], axis=-1).astype(np.int64)


def _write_curve(path: Path, arm: str, luck: np.random.Generator, iterations: int) -> None:
    header = ["iteration", "learning_rate", "loss", "cross_entropy", "gradient_norm"]
    terms = [] if arm in ("plain", "cross_entropy") else ["pixel_anchor", "kept_share", "pixel_anchor/layer1"]
    lines = [",".join([*header, *terms, "seconds"])]
    for iteration in range(5, iterations + 1, 5):
        loss = 2.0 * np.exp(-iteration / 20) + 0.5 + luck.normal(0, 0.05)
        values = [iteration, 0.1 * (1 - iteration / 51), loss + 0.3 * bool(terms), loss, 1 + luck.random()]
        values += [0.3 + luck.normal(0, 0.02) for _ in terms]
        lines.append(",".join(map(str, [*values, iteration * 0.5])))
    path.write_text("\n".join(lines) + "\n")
