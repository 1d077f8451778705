"""The page's first screen: the experiment in words, one sentence with the answer, and the ranked table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import fmean
from typing import NamedTuple

from harness.comparison import Cell, by_gain
from harness.experiment import discovery
from harness.experiment.schema import Experiment
from harness.reporting.entries import interval_text
from harness.reporting.markup import points
from harness.reporting.measured import Measured, edge_protocol
from harness.reporting.names import (
    arm_name,
    arm_styles,
    baseline_name,
    dataset_name,
    in_sentence,
    metric_title,
    model_name,
    protocol_name,
)
from harness.reporting.page.content import hover, run_key
from harness.runs.external_arms import EXTERNAL
from harness.runs.health import MEANING
from harness.statistics.interval import Gain
from harness.statistics.settings import MeanGain

Facts = Mapping[str, dict[str, str]]  # of every run, by its key
MIOU = "miou"
BOUNDARY = "boundary_miou@3px"
CHOICES = {"dataset": "Data set", "model": "Network", "metric": "Metric", "protocol": "Protocol"}  # and labels
MARGIN = 0.06  # of the axis, free on both sides


class Span(NamedTuple):
    """A gain in points with the ends of its interval."""

    difference: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{points(self.difference, True)} {interval_text(self.low, self.high)} points"


@dataclass(frozen=True)
class Rank:
    """A row: an arm with its numbers as texts, what they sort by, and its gain's place on the table's axis.

    `bar` is (low, gain, high) in percent of the axis, None for an end that is unknown; `told` whether the interval
    leaves out 0. `runs` are keys of the page's runs.
    """

    arm: str
    name: str
    color: str
    method: str
    published: str
    is_baseline: bool
    runs: str
    provenance: str
    mean: str
    sd: str
    mean_value: float | None
    gain: str
    interval: str
    gain_value: float | None
    bar: tuple[float | None, float | None, float | None]
    told: bool
    boundary: str
    boundary_gain: str
    boundary_value: float | None
    cost: str
    cost_title: str
    cost_value: float | None
    health: list[str]
    status: str


@dataclass(frozen=True)
class Board:
    """A ranking on one data set and network, by one metric and protocol; `zero`: where 0 is, in percent of the axis.

    `choices` are {one of `CHOICES`: (key, name)}.
    """

    key: str
    choices: dict[str, tuple[str, str]]
    zero: float
    rows: list[Rank]
    notes: list[str] = field(default_factory=list)

    @property
    def setting(self) -> str:
        """Data set and network by name."""
        return f"{self.choices['dataset'][1]}, {self.choices['model'][1]}"

    @property
    def metric(self) -> str:
        """The metric's name."""
        return self.choices["metric"][1]

    @property
    def title(self) -> str:
        """Data set, network and protocol by name."""
        return f"{self.setting}, {self.choices['protocol'][1]}"


def boards(experiment: Experiment, measured: Sequence[Measured], facts: Facts) -> list[Board]:
    """A board for every metric, protocol, data set and network, mIoU by the first protocol first."""
    found: list[Board] = []
    metrics = dict.fromkeys([MIOU, *(cell.metric for each in measured for cell in each.region)])
    for metric, protocol, each in product(metrics, experiment.protocols, measured):
        cells = by_rank([cell for cell in each.region if cell.protocol == protocol and cell.metric == metric])
        found.append(_board(experiment, f"board-{len(found)}", metric, protocol, cells, each, facts))
    return found


def by_rank(cells: Sequence[Cell]) -> list[Cell]:
    """Cells of a column by mIoU, the highest first, and holes last."""
    return sorted(by_gain(cells), key=lambda cell: -cell.spread.mean if cell.spread else 0.0)


def _board(
    experiment: Experiment,
    key: str,
    metric: str,
    protocol: str,
    cells: Sequence[Cell],
    each: Measured,
    facts: Facts,
) -> Board:
    gains = [cell.gain for cell in cells if cell.gain]
    ends = [0.0] + [end for gain in gains for end in (gain.low, gain.difference, gain.high) if end is not None]
    low, high = min(ends), max(ends)
    reach = (high - low) or 1.0

    def at(value: float | None) -> float | None:
        share = None if value is None else (value - low) / reach
        return None if share is None else round(100 * (MARGIN + (1 - 2 * MARGIN) * share), 2)

    edges = {
        cell.arm: cell
        for cell in each.edges
        if cell.metric == BOUNDARY and cell.values and cell.protocol == edge_protocol(experiment)
    }
    of_baseline = _seconds(experiment, each, experiment.baseline, facts)
    styles, rows = arm_styles(experiment), []
    for cell in cells:
        keys = [run_key(cell.dataset, cell.model, cell.arm, seed) for seed in sorted(cell.values or cell.missing)]
        edge, spread, gain = edges.get(cell.arm), cell.spread, cell.gain
        cost, minutes = _cost(_seconds(experiment, each, cell.arm, facts), of_baseline)
        if experiment.demonstration:  # a minute on a laptop that does other things too
            cost, minutes = None, ""
        arm = experiment.arms[cell.arm]
        rows.append(
            Rank(
                arm=cell.arm,
                name=arm_name(experiment, cell.arm),
                color=styles[cell.arm][0],
                method=arm.method,
                published="" if arm.method == EXTERNAL else discovery.about(arm.method).published,
                is_baseline=cell.is_baseline,
                runs=" ".join(keys),
                provenance=hover([facts[each_key] for each_key in keys]),
                mean=points(spread.mean) if spread else "",
                sd=points(spread.sd) if spread and spread.sd is not None else "",
                mean_value=spread.mean if spread else None,
                gain=points(gain.difference, True) if gain else "",
                interval=interval_text(gain.low, gain.high) if gain else "",
                gain_value=gain.difference if gain else None,
                bar=(at(gain.low), at(gain.difference), at(gain.high)) if gain else (None, None, None),
                told=cell.excludes_zero,
                boundary=points(edge.spread.mean) if edge and edge.spread else "",
                boundary_gain=points(edge.gain.difference, True) if edge and edge.gain else "",
                boundary_value=edge.spread.mean if edge and edge.spread else None,
                cost="" if cost is None else f"{cost:.1f}×",
                cost_title=minutes,
                cost_value=cost,
                health=list(cell.marks),
                status=_status(cell),
            )
        )
    shared = any(of_run.get("sharers") for of_run in facts.values())
    notes = _notes(experiment, cells, metric, protocol, any(row.cost for row in rows), shared)
    shown = {mark for mark in MEANING for cell in cells if any(text.startswith(mark) for text in cell.marks)}
    notes += [f"{mark[0].upper()}{mark[1:]}: {MEANING[mark]}." for mark in MEANING if mark in shown]
    choices = {
        "dataset": (each.dataset, dataset_name(each.dataset)),
        "model": (each.model, model_name(each.model)),
        "metric": (metric, metric_title(metric)),
        "protocol": (protocol, protocol_name(protocol)),
    }
    return Board(key, choices, at(0.0) or 0.0, rows, notes)


def selects(found: Sequence[Board]) -> dict[str, dict[str, str]]:
    """{one of `CHOICES`: {key: name}} for those in which the boards differ."""
    named = {choice: dict(board.choices[choice] for board in found) for choice in CHOICES}
    return {choice: names for choice, names in named.items() if len(names) > 1}


def _status(cell: Cell) -> str:
    """What is to be said of a row's runs: that some are missing, or why all are."""
    if not cell.values:
        return cell.status.replace("_", " ")
    return f"{len(cell.values)} of {cell.asked} runs" if cell.missing else ""


def _seconds(experiment: Experiment, each: Measured, arm: str, facts: Facts) -> dict[str, list[float]]:
    """Seconds in the training loop of an arm's runs that are done and had their device to themselves, by device."""
    found: dict[str, list[float]] = {}
    for seed in experiment.seeds_of(arm):
        of_run = facts[run_key(each.dataset, each.model, arm, seed)]
        if of_run["status"] == "done" and of_run.get("seconds") and not of_run.get("sharers"):
            found.setdefault(of_run["device"], []).append(float(of_run["seconds"]))
    return found


def _cost(arm: Mapping[str, list[float]], baseline: Mapping[str, list[float]]) -> tuple[float | None, str]:
    """How often the baseline's time an arm trains, on the device that both have most runs of; and that in minutes."""
    shared = [device for device in arm if device in baseline]
    if not shared:
        return None, ""
    device = max(shared, key=lambda name: min(len(arm[name]), len(baseline[name])))
    ours, theirs = fmean(arm[device]), fmean(baseline[device])
    return (ours / theirs if theirs else None), f"{ours / 60:.1f} min a run on {device}, the baseline {theirs / 60:.1f}"


def _notes(
    experiment: Experiment, cells: Sequence[Cell], metric: str, protocol: str, costs: bool, shared: bool
) -> list[str]:
    """What a reader must know of the table, each thing once. costs: it has them; shared: runs shared a GPU."""
    gains = [cell for cell in cells if cell.gain]
    said = f"Gain: over {baseline_name(experiment)}, in points of {metric_title(metric)}"
    if any(cell.gain.low is not None for cell in gains if cell.gain):
        said += ", with its 95 % interval for all rows at once; filled if it leaves out 0, hollow if it does not"
    notes = [f"{said}. Ranked by {metric_title(metric)}: ranks whose intervals overlap are not told apart."]
    reasons = dict.fromkeys(cell.no_interval for cell in gains if cell.gain and cell.gain.low is None)
    notes += [f"{reason[0].upper()}{reason[1:]}." for reason in reasons]
    cost = ""
    if costs:
        cost = "Cost: time in the training loop of these runs over the baseline's; rough if runs shared a machine. "
    elif shared and not experiment.demonstration:
        cost = "No cost, since runs shared a GPU: measure it with python -m harness overhead. "
    notes.append(
        f"Boundary mIoU: 3 pixels, protocol {edge_protocol(experiment)}. {cost}"
        "Health: what a run's curve shows about its method; no mark, no fault found."
    )
    if (metric, protocol) != (MIOU, experiment.protocols[0]):
        notes.append(f"Verdicts are by mIoU with the protocol {experiment.protocols[0]}; this ranking is a detail.")
    return notes


def title(experiment: Experiment) -> str:
    """The experiment in words: "7 methods against cross entropy on CamVid"; the lesser kind of arms goes unsaid."""
    on = _and([dataset_name(name) for name in experiment.datasets])
    arms, kind = _compared(experiment, experiment.arms)
    if not arms:
        return f"{arm_name(experiment, experiment.baseline)} on {on}"
    return f"{len(arms)} {kind}{'s' if len(arms) > 1 else ''} against {baseline_name(experiment)} on {on}"


def _compared(experiment: Experiment, arms: Iterable[str]) -> tuple[set[str], str]:
    """Of `arms`, those of other methods than the baseline's, or if these are fewer, its variants; and what they are.

    Arms of another length of training are left out, if there are others.
    """
    own, compared = experiment.arms[experiment.baseline].method, set(arms) - {experiment.baseline}
    compared = {arm for arm in compared if experiment.arms[arm].longer == 1} or compared
    methods = {arm for arm in compared if experiment.arms[arm].method != own}
    return (methods, "method") if 2 * len(methods) >= len(compared) else (compared - methods, "variant")


def answer(experiment: Experiment, measured: Sequence[Measured], means: Mapping[str, MeanGain]) -> str:
    """What came out, in one sentence."""
    shown = MIOU, experiment.protocols[0]
    cells = [cell for each in measured for cell in each.region if (cell.metric, cell.protocol) == shown]
    cells = [cell for cell in cells if not cell.is_baseline]
    over = baseline_name(experiment)
    gains = [cell for cell in cells if cell.gain]
    if not gains:
        return f"There is no result yet: no arm and {over} have a run each."
    if means:
        spans = {arm: Span(mean.difference, mean.low, mean.high) for arm, mean in means.items()}
        return f"Over {len(measured)} data sets and networks {_sentence(experiment, spans, over)}."
    on = _and(list(dict.fromkeys(dataset_name(cell.dataset) for cell in gains)))
    judged = [(cell.arm, span) for cell in gains if (span := _span(cell.gain)) is not None]
    if not judged:
        low, high = (end(cell.gain.difference for cell in gains if cell.gain) for end in (min, max))
        spread = points(low, True) if len(gains) == 1 else f"{points(low, True)} to {points(high, True)}"
        return (
            f"On {on} there are not enough runs for an answer: single runs differ from {over} by {spread} points, and "
            "nothing follows about the methods."
        )
    if len({(cell.dataset, cell.model) for cell in gains}) > 1:
        better = sum(span.low > 0 for _, span in judged)
        worse = sum(span.high < 0 for _, span in judged)
        return f"Of {len(gains)} comparisons with {over} {better} are better, {worse} worse and the others undecided."
    return f"On {on} {_sentence(experiment, dict(judged), over)}."


def _span(gain: Gain | None) -> Span | None:
    if gain is None or gain.low is None or gain.high is None:
        return None
    return Span(gain.difference, gain.low, gain.high)


def _sentence(experiment: Experiment, gains: Mapping[str, Span], over: str) -> str:
    """Who beats the baseline, and what bounds the others; of other methods, or if these are fewer, of all arms."""
    others, kind = _compared(experiment, gains)
    methods = {arm: gains[arm] for arm in (others if kind == "method" else gains)}
    better = {arm: span for arm, span in methods.items() if span.low > 0}
    limit = max(span.high for span in methods.values())
    alone = in_sentence(experiment, next(iter(methods))) if len(methods) == 1 else ""
    if better:
        best = max(better, key=lambda arm: better[arm].difference)
        of = alone or f"{len(better)} of {len(methods)} {kind}s"
        said = f"{of} {'beat' if len(better) > 1 else 'beats'} {over}"
        said += f": {better[best]}" if alone else f", {in_sentence(experiment, best)} by most: {better[best]}"
    elif limit <= 0:
        said = f"{alone or f'every {kind}'} is behind {over}"
    else:
        said = f"{alone} does not beat" if alone else f"no {kind} beats"
        said += f" {over} by more than {points(limit)} points"
        if not any(span.high < 0 for span in methods.values()):
            said += f", and {'cannot' if alone else 'none can'} be told from it"
    declared, kind = _compared(experiment, experiment.arms)
    if lacking := len(declared - gains.keys()):
        said += f"; {lacking} other {kind}{'s have' if lacking > 1 else ' has'} too few runs"
    for arm in gains.keys() - methods.keys():
        if experiment.arms[arm].longer > 1 and gains[arm].low > 0:
            said += f"; training {experiment.arms[arm].longer:g} times as long does, by {gains[arm]}"
        if (other := experiment.arms[arm].compute_of) is not None and gains[arm].low > 0:
            said += f"; training as long as {in_sentence(experiment, other)} takes does, by {gains[arm]}"
    return said


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def key_facts(experiment: Experiment, measured: Sequence[Measured], facts: Facts) -> list[tuple[str, str]]:
    """What was run, on what, when and with which code, in a few words each."""
    done = [of_run for of_run in facts.values() if of_run["status"] == "done"]
    images = {each.dataset: len(each.image_ids) for each in measured if each.image_ids}
    data = [
        dataset_name(name) + (f", {images[name]} test images" if images.get(name) else "")
        for name in experiment.datasets
    ]
    schedules = {str(s := experiment.schedule_of(*pair)): s for pair in experiment.pairs()}
    training = [
        f"{s.iterations:,} iterations, batch {s.batch}, crop {s.crop[0]}×{s.crop[1]}" for s in schedules.values()
    ]
    own = len(experiment.seeds_of(experiment.baseline))
    seeds = f"{len(experiment.seeds)}" + (f", {own} of the baseline" if own != len(experiment.seeds) else "")
    days = sorted({of_run["started"][:10] for of_run in done if of_run.get("started")})
    found = [
        ("Data", "; ".join(data)),
        ("Network", ", ".join(map(model_name, experiment.models))),
        ("Training", training[0] if len(training) == 1 else f"{len(training)} schedules"),
        ("Seeds", seeds),
        ("Runs", f"{len(done)} of {len(facts)} done"),
        ("Machine", ", ".join(dict.fromkeys(of_run["device"] for of_run in done))),
        ("Trained", days[0] if len(days) == 1 else " to ".join([*days[:1], *days[-1:]])),
        ("Code", ", ".join(dict.fromkeys(of_run["commit"][:7] for of_run in done))),
    ]
    return [(term, text) for term, text in found if text]
