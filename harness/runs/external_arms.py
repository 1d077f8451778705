"""An arm whose predictions were made elsewhere: its key, its folder and its record."""

from pathlib import Path
from shutil import rmtree
from typing import Any, cast

from harness import models
from harness.datasets.dataset import Dataset
from harness.errors import UserError, guess, unknown
from harness.experiment.run import Run
from harness.experiment.schema import FOLDER_NAME, Absent, Arm, Experiment
from harness.runs.record import RECORD, Provenance, Record, is_set_aside, now, refuse_other_settings

EXTERNAL = "external"  # the method of such an arm, and its experiment and model if there are no runs to show it with


def external_run(
    results: Path, dataset: str, arm: str, experiment: str | None = None, model: str | None = None, seed: int = 0
) -> Run:
    """The key under which the predictions of `arm` enter the tables.

    An experiment or a model that is not given is the only one with runs on the data set in `results`, so that the arm
    is shown with them; "external" if there are no runs. Raises UserError if there are several to choose from,
    for a model that the project does not have, and for a name that cannot be a folder's.
    """
    for name in (arm, experiment, model):
        if name is not None and not FOLDER_NAME.fullmatch(name):
            raise UserError(f"{name!r} names a folder: use letters, digits, '_', '-', '.' and '+' only")
    if model is not None and model not in (known := [*models.names(), EXTERNAL]):
        raise unknown("model", model, known)
    if seed < 0:
        raise UserError(f"--seed must be 0 or larger, not {seed}")
    if experiment is None or model is None:
        folders = Path(results).glob(f"runs/{experiment or '*'}/{dataset}/{model or '*'}")
        places = sorted({(folder.parent.parent.name, folder.name) for folder in folders if folder.is_dir()})
        if len(places) > 1:
            listed = "; ".join(f"--experiment {one} --model {other}" for one, other in places)
            raise UserError(f"runs on {dataset} are in several places: say which ones to show {arm} with ({listed})")
        there = places[0] if places else (EXTERNAL, EXTERNAL)
        experiment, model = experiment or there[0], model or there[1]
    return Run(experiment, dataset, model, arm, seed)


def external_records(experiment: Experiment, results: Path) -> list[Path]:
    """The record.json of every external arm in the experiment's folder, in order of their paths."""
    folders = [
        Path(results) / "runs" / experiment.name / dataset / model
        for dataset in experiment.datasets
        for model in experiment.models
    ]
    paths = sorted(path for folder in folders for path in folder.glob("*/seed*/record.json"))
    return [
        path for path in paths if _arm(path) not in experiment.arms and not is_set_aside(path) and _is_external(path)
    ]


def with_external_arms(experiment: Experiment, results: Path) -> Experiment:
    """The experiment with the external arms in its folder, after its own, in order of name."""
    names = sorted({_arm(path) for path in external_records(experiment, results)})
    arms = {name: Arm(method=EXTERNAL, options={}) for name in names}
    return experiment.model_copy(update={"arms": experiment.arms | arms})


def why_not_shown(run: Run, protocol: str, config: Path) -> str:
    """Why no report shows the record of an external arm, and what to do; "" if the one of the file `config` does."""
    if not config.is_file():
        if run.experiment == EXTERNAL:
            return f"no experiment has runs on {run.dataset} yet: pass --experiment and --model, whose tables are meant"
        near = guess(config.stem, (each.stem for each in config.parent.glob("*.yaml")))
        return f"there is no experiment file {config}: {near}pass --experiment with the name of one that is there"
    try:
        experiment = Experiment.load(config)
    except UserError as error:
        return str(error)
    if (run.dataset, run.model) not in experiment.pairs():
        there = [model for dataset, model in experiment.pairs() if dataset == run.dataset]
        what = f"pass --model {' or '.join(there)}" if there else f"its data sets are {', '.join(experiment.datasets)}"
        return f"{config} runs no {run.model} on {run.dataset}: {what}"
    if run.arm in experiment.arms:
        return f"{run.arm} is an arm of {config} itself: choose another name for --arm"
    for key, value, shown in (("seed", run.seed, experiment.seeds), ("protocol", protocol, experiment.protocols)):
        if value not in shown:
            return f"{config} shows --{key} {', '.join(map(str, shown))} and not {value}"
    return ""


def settings_of(
    run: Run, split: str, protocol: str, encoding: str, sha256: str, void_is_wrong: bool = False
) -> dict[str, Any]:
    """What decides the scores of an external arm; plain JSON values."""
    named = {"dataset": run.dataset, "model": run.model, "method": EXTERNAL, "seed": run.seed}
    void = {"void": "wrong"} if void_is_wrong else {}
    return named | {"split": split, "protocol": protocol, "format": encoding, "predictions": sha256} | void


def claim(folder: Path, settings: dict[str, Any], restart: bool) -> None:
    """Make sure that a run's folder may take this arm's record; with `restart` what it holds of another is removed.

    Raises UserError if it holds a trained run or, without `restart`, if it holds the record of other predictions.
    """
    if _is_trained(folder):
        raise UserError(f"{folder} holds a trained run: choose another name for --arm")
    if restart and folder.is_symlink():  # rmtree refuses it too, on Python 3.13 without a message
        raise UserError(f"{folder} is a link: remove it yourself, or choose another name for --arm")
    if restart and folder.exists():
        rmtree(folder)
    if (folder / RECORD).exists():
        refuse_other_settings(folder, settings, Record.load(folder / RECORD).settings)


def write_record(
    folder: Path,
    run: Run,
    settings: dict[str, Any],
    found: dict[str, dict[str, Any]],
    dataset: Dataset,
    absent: str,
    source: str,
    started: str,
) -> None:
    """Write record.json of an external arm; what is not known of its training stays None.

    `found` is `scores` and `per_class` by protocol; `source` the name of the predictions' folder.
    """
    origin = {"folder": source, "format": settings["format"], "sha256": settings["predictions"]}
    split = settings["split"]
    Record(
        key=run,
        method=EXTERNAL,
        status="done",
        settings=settings,
        provenance=Provenance(**_provenance(dataset, split) | {"predictions": origin}),
        started=started,
        absent=cast(Absent, absent),
        split=split,
        scores=found["scores"],
        per_class=found["per_class"],
        evaluated=now(),
        data_remark=dataset.remark or None,
    ).save(folder / RECORD)


def _arm(record: Path) -> str:
    return record.parent.parent.name


def _method(record: Path) -> str:
    """The method that a record names; "" if there is no record or a damaged one."""
    try:
        return Record.load(record).method
    except UserError:
        return ""


def _is_external(record: Path) -> bool:
    return _method(record) == EXTERNAL


def _is_trained(folder: Path) -> bool:
    """Whether a folder holds a run that was trained, here or elsewhere: handed in records come without weights."""
    left = any((folder / name).exists() for name in ("training.json", "checkpoints", "curve.csv"))
    return left or _method(folder / "record.json") not in ("", EXTERNAL)


def _provenance(dataset: Dataset, split: str) -> dict[str, Any]:
    """Where, with what code and on which data the predictions were scored."""
    from harness.compute.provenance import provenance  # imports torch

    try:
        whole = dataset.fingerprint()
    except UserError:  # scoring needs no other split, so it may not be there
        whole = None
    hashes = {"data_fingerprint": whole, "split_fingerprint": dataset.fingerprint([split])}
    return provenance("cpu") | hashes | {"initial_weights_sha256": None}
