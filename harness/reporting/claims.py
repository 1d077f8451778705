"""Published figures beside what was measured for them: every claim with its cell and its verdict."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import datasets
from harness.comparison import Cell, cells
from harness.evaluation.counts import REGION
from harness.evaluation.groups import groups
from harness.experiment.schema import Experiment, discovery
from harness.reporting import verdicts
from harness.reporting.published import Ablation, Figure, Settings, baseline_of
from harness.reporting.verdicts import Verdict
from harness.statistics.scores import frequency_metrics, metric_name, miou_of

Key = tuple[str, str, str, str, str, str, str]  # baseline, family, data set, model, protocol, metric, arm
THIRDS = ("miou_head", "miou_mid", "miou_tail")
# What is called boundary mIoU can be read in two ways; the tables of counts that say the same as a published metric.
READINGS = {"boundary": "boundary IoU", "trimap": "trimap"}
ABLATED = ("cityscapes", "hrnet_w48")
# The published ablations of Contextrast++ as options; None where a setting is the default.
ABLATION_OPTIONS = {"fusion": "fusion", "memory_bank": "stored"}
ABLATION_NAMES = {"adaptive_fusion": "adaptive"}


@dataclass(frozen=True)
class Claim:
    """A published figure, and where its counterpart is measured.

    `dataset`, `model`, `arm` and `baseline` are the measured ones, `arm` None without a counterpart (`gap` says why),
    `baseline` None for a row that is the baseline itself. `table` is the table of counts, `metric` its score; `reading`
    says which of two readings of the published metric it is. `published_gain` is over the published baseline.
    `deviations` are what differs from the published conditions, the protocol aside.
    """

    figure: Figure
    published_gain: float | None
    dataset: str
    model: str
    arm: str | None
    baseline: str | None
    table: str
    metric: str
    reading: str = ""
    setting: str = ""
    gap: Verdict | None = None
    deviations: tuple[str, ...] = ()

    @property
    def over(self) -> str | None:
        """The arm that cells are compared with."""
        return self.baseline or self.arm

    @property
    def family(self) -> str:
        """Whose arms are compared together: an ablation's; "" for all of the experiment."""
        return self.setting.partition(":")[0]


@dataclass(frozen=True)
class Finding:
    """A claim by one protocol: the measured cell, None where there cannot be one, and the verdict."""

    claim: Claim
    protocol: str
    cell: Cell | None
    verdict: Verdict

    @property
    def gain_difference(self) -> float | None:
        """The measured gain less the published one, in percentage points."""
        gain = self.claim.published_gain
        if gain is None or self.cell is None or self.cell.gain is None:
            return None
        return self.cell.gain.difference - gain

    @property
    def level_difference(self) -> float | None:
        """The measured mean less the published figure, in percentage points."""
        spread = self.cell.spread if self.cell else None
        return None if spread is None else spread.mean - self.claim.figure.value


def claims(experiment: Experiment, rows: list[Figure], settings: dict[tuple[str, str], Settings]) -> list[Claim]:
    """The claims of a published table on the data sets of an experiment."""
    found = []
    here = [row for row in rows if row.dataset in experiment.datasets]
    splits = {dataset: datasets.load(dataset).evaluation_split for dataset in {row.dataset for row in here}}
    for figure in here:
        base = baseline_of(rows, figure)
        is_baseline = base is None or base.method == figure.method
        arm, over = _arm(experiment, figure.method), None if base is None or is_baseline else base.method
        kind, _, width = figure.metric.partition("_miou@")
        readings: list[tuple[str, str]] = [("", _table(figure.metric))]
        if kind == "boundary":
            readings = [(reading, f"{name}@{width}") for name, reading in READINGS.items()]
        row = settings.get((figure.dataset, figure.model))
        gap = _gap(experiment, figure, over, splits[figure.dataset])
        for reading, table in readings:
            found.append(
                Claim(
                    figure=figure,
                    published_gain=None if base is None or is_baseline else figure.value - base.value,
                    dataset=figure.dataset,
                    model=figure.model,
                    arm=None if gap else arm,
                    baseline=None if gap else over,
                    table=table,
                    metric=figure.metric if figure.metric in THIRDS else metric_name(table),
                    reading=reading,
                    gap=gap,
                    deviations=() if gap or not arm else _deviations(experiment, figure, base, arm, over, row),
                )
            )
    return found


def ablation_claims(
    experiment: Experiment, rows: Sequence[Ablation], settings: dict[tuple[str, str], Settings]
) -> list[Claim]:
    """The published ablations of Contextrast++, each over the full method, with every pair of an experiment.

    An arm of contextrast_pp or contextrast takes part whose options are the setting's and otherwise the defaults.
    Nothing if the experiment has no such arm besides the full method.
    """
    full = max(row.miou for row in rows)  # every ablation ends with the full method
    found = []
    methods = {row.ablation: _ablated_method(experiment, rows, row.ablation) for row in rows}
    for dataset, model in experiment.pairs():
        for row in rows:
            figure = Figure(ABLATED[0], "val", ABLATED[1], "contextrast_pp", "miou", row.miou, row.source)
            is_full = row.miou == full
            arm, over = _ablation_arms(experiment, methods[row.ablation], _ablation_options(row))
            gap = None
            if arm is None:
                gap = Verdict(verdicts.NOT_RUN, f"no arm of {experiment.name} has this setting alone")
            differences: list[str] = []
            if (dataset, model) != ABLATED:
                differences.append(f"{dataset} with {model}, published on {ABLATED[0]} with {ABLATED[1]}")
            elif arm is not None:
                differences += verdicts.deviations(experiment, arm, dataset, model, settings.get(ABLATED))
                differences = [each for each in differences if each.split()[0] not in _ablation_options(row)]
            if arm is not None and experiment.arms[arm].method != figure.method:
                differences.append(f"method {experiment.arms[arm].method}, published for {figure.method}")
            found.append(
                Claim(
                    figure=figure,
                    published_gain=None if is_full else row.miou - full,
                    dataset=dataset,
                    model=model,
                    arm=arm,
                    baseline=None if is_full else over,
                    table=REGION,
                    metric="miou",
                    setting=f"{row.ablation}: {row.setting}",
                    gap=gap,
                    deviations=tuple(differences),
                )
            )
    ablated = any(claim.arm is not None and claim.published_gain is not None for claim in found)
    return found if ablated else []


def measure(experiment: Experiment, results: Path, found: Sequence[Claim], known: Iterable[Cell] = ()) -> list[Finding]:
    """Every claim by every protocol of the experiment and the published one, with its verdict.

    `known` are cells that were computed already, with differences to the experiment's baseline.
    """
    board = {_key(experiment.baseline, "", cell): cell for cell in known}
    families: dict[str, set[str]] = {}
    needed: dict[tuple[str, str, str, str], list[str]] = {}
    for claim in found:
        if claim.arm and claim.over:
            families.setdefault(claim.family, set()).add(claim.arm)
            key = (claim.over, claim.family, claim.dataset, claim.model)
            if any((*key, protocol, claim.metric, claim.arm) not in board for protocol in experiment.protocols):
                tables = needed.setdefault(key, [])
                tables += [] if claim.table in tables else [claim.table]
    for (over, family, dataset, model), tables in needed.items():
        for group in groups(experiment, results, tables, pairs=[(dataset, model)]):
            metrics = [miou_of(table) for table in tables]
            if any(claim.metric in THIRDS for claim in found):
                metrics += frequency_metrics(group.thirds)
            computed = cells(experiment, group, metrics, over, families[family] if family else None)
            board |= {_key(over, family, cell): cell for cell in computed}
    protocols = list(dict.fromkeys([*experiment.protocols, verdicts.PROTOCOL]))
    return [_finding(claim, protocol, board) for claim in found for protocol in protocols]


def _key(baseline: str, family: str, cell: Cell) -> Key:
    return (baseline, family, cell.dataset, cell.model, cell.protocol, cell.metric, cell.arm)


def _finding(claim: Claim, protocol: str, board: dict[Key, Cell]) -> Finding:
    if claim.gap or not claim.arm or not claim.over:
        return Finding(claim, protocol, None, claim.gap or Verdict(verdicts.NOT_RUN))
    cell = board.get((claim.over, claim.family, claim.dataset, claim.model, protocol, claim.metric, claim.arm))
    if cell is None:
        return Finding(claim, protocol, None, Verdict(verdicts.NOT_RUN, f"nothing was evaluated by {protocol}"))
    if not cell.values:
        return Finding(claim, protocol, cell, Verdict(verdicts.NOT_RUN, cell.note or cell.status))
    reasons = list(claim.deviations)
    if protocol != verdicts.PROTOCOL:
        reasons.insert(0, f"protocol {protocol}, published with {verdicts.PROTOCOL}")
    if claim.published_gain is None:
        reasons.insert(0, "the baseline: a gain is over it")
    if reasons:
        return Finding(claim, protocol, cell, Verdict(verdicts.NOT_COMPARED, "; ".join(reasons)))
    return Finding(claim, protocol, cell, verdicts.judge(cell.gain, claim.published_gain or 0.0))


def _table(metric: str) -> str:
    """The table of counts that a published metric is a score of."""
    return f"objects@{metric.removeprefix('miou_objects_')}" if metric.startswith("miou_objects_") else REGION


def _arm(experiment: Experiment, method: str) -> str | None:
    """The arm that stands for a published method: one with the published options, else the one with its name."""
    of_method = {name: arm for name, arm in experiment.arms.items() if arm.method == method}
    as_published = (name for name, arm in of_method.items() if not verdicts.arm_deviations(arm))
    return next(as_published, method if method in of_method else None)


def _gap(experiment: Experiment, figure: Figure, over: str | None, measured_split: str) -> Verdict | None:
    """Why a figure has no counterpart, if it has none."""
    if figure.split != measured_split:
        withheld = f"the labels of {figure.dataset}'s {figure.split} split are withheld"
        return Verdict(verdicts.NOT_MEASURABLE, withheld)
    if (figure.dataset, figure.model) not in experiment.pairs():
        return Verdict(verdicts.NOT_RUN, f"{experiment.name} has no {figure.model} on {figure.dataset}")
    for method in (figure.method, over):
        if method and not _arm(experiment, method):
            return Verdict(verdicts.NOT_RUN, f"{experiment.name} has no arm {method}")
    return None


def _deviations(
    experiment: Experiment, figure: Figure, base: Figure | None, arm: str, over: str | None, row: Settings | None
) -> tuple[str, ...]:
    found = verdicts.deviations(experiment, arm, figure.dataset, figure.model, row)
    if quoted := [each.value for each in (figure, base) if each and each.quoted]:
        figures = " and ".join(f"{value:g}" for value in dict.fromkeys(quoted))
        found.append(f"{figures} seem quoted from another paper (one decimal), trained under settings not known here")
    of_baseline = verdicts.arm_deviations(experiment.arms[over]) if over else []
    return (*found, *(f"{over}: {each}" for each in of_baseline))


def _ablation_options(row: Ablation) -> dict[str, Any]:
    """What a published setting changes of the method's options, {} for nothing."""
    if row.ablation == "layer_weights":
        return {"layer_weights": [float(weight) for weight in row.setting.split(",")]}
    if row.ablation == "layers":
        defaults = discovery.options("contextrast_pp")["layer_weights"]
        kept = set(row.setting.split("+"))
        return {
            "layer_weights": [weight if str(layer) in kept else 0.0 for layer, weight in enumerate(defaults, start=1)]
        }
    return {ABLATION_OPTIONS[row.ablation]: ABLATION_NAMES.get(row.setting, row.setting)}


def _ablated_method(experiment: Experiment, rows: Sequence[Ablation], ablation: str) -> str:
    """The method whose arms stand for the rows of an ablation: the one of which more settings are there."""
    settings = [_ablation_options(row) for row in rows if row.ablation == ablation]

    def there(method: str) -> int:
        return sum(_ablation_arms(experiment, method, changed)[0] is not None for changed in settings)

    return max(("contextrast_pp", "contextrast"), key=there)


def _ablation_arms(experiment: Experiment, method: str, changed: dict[str, Any]) -> tuple[str | None, str | None]:
    """The arm of the method with these options and otherwise the defaults, and the one with all defaults."""
    defaults = discovery.options(method)
    if not changed.keys() <= defaults.keys():
        return None, None
    with_options = {
        name: verdicts.plain(defaults | arm.options)
        for name, arm in experiment.arms.items()
        if arm.method == method and (arm.starts_at, arm.ends_at, arm.longer, arm.compute_of) == (0, 1, 1, None)
    }
    arm = next((name for name, has in with_options.items() if has == verdicts.plain(defaults | changed)), None)
    full = next((name for name, has in with_options.items() if has == verdicts.plain(defaults)), None)
    return (arm, full) if arm is not None and full is not None else (None, None)
