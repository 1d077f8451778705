"""Published figures joined with what was measured for them: one data frame, a row a figure, reading and protocol."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import datasets
from harness.comparison import Cell, cells
from harness.evaluation.counts import REGION
from harness.evaluation.groups import groups
from harness.experiment.schema import Experiment
from harness.reporting import verdicts
from harness.reporting.measured import PARTS
from harness.reporting.published import metrics, training_settings
from harness.reporting.verdicts import Verdict
from harness.statistics.scores import frequency_metrics, metric_name, miou_of

if TYPE_CHECKING:
    import pandas as pd

Row = Any  # of a data frame, its columns as attributes
Defaults = Mapping[str, dict[str, Any]]  # options by method
TABLE_OF = {metric_name(table): table for _, tables in PARTS.values() for table in tables}  # other metrics: REGION
# What columns of published figures are called next to those of measured ones.
PUBLISHED = {name: f"published_{name}" for name in ("protocol", "gain", "baseline")} | {"value": "published"}
# The columns on which published and measured rows are merged; gains of a `family` of arms are corrected together.
KEY = ["over", "family", "measured_dataset", "measured_model", "protocol", "measured_metric", "arm"]
MEASURED = ["runs", "mean", "sd", "gain", "low", "high", "one_pair"]


def claims(experiment: Experiment, figures: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of a published table on the data sets of an experiment, each with the measured arm to compare it with.

    An ablation's rows have one with every pair of the experiment. `measured_metric` is the counterpart of the metric,
    `reading` which of two readings of it. `arm` and `baseline` are None without a counterpart (`gap` says why),
    `baseline` also for a row that is a baseline; `over` is the arm that gains are over. `deviations` are what
    differs from the published conditions, the protocol aside.
    """
    import pandas as pd

    found = figures.rename(columns=PUBLISHED)
    found = found.merge(metrics()[["metric", "reading", "counterpart"]], how="left", on="metric")
    found = found.assign(
        reading=found["reading"].fillna(""), measured_metric=found["counterpart"].fillna(found["metric"])
    )
    if (found["setting"] != "").all():
        pairs = pd.DataFrame(experiment.pairs(), columns=["measured_dataset", "measured_model"])
        found = pairs.merge(found, how="cross")
    else:
        found = found[found["dataset"].isin(experiment.datasets)]
        found = found.assign(measured_dataset=found["dataset"], measured_model=found["model"])
    splits = {name: datasets.load(name).evaluation_split for name in found["measured_dataset"].unique()}
    defaults, settings = verdicts.default_options(experiment), training_settings()
    methods = {
        family: _measured_method(experiment, defaults, rows) for family, rows in found.groupby("ablation") if family
    }
    found["measured_split"] = found["measured_dataset"].map(splits)
    named = zip(found["ablation"], found["method"], strict=True)
    found["measured_method"] = [methods.get(family, method) for family, method in named]
    counterparts = [_counterpart(experiment, defaults, settings, row) for row in found.itertuples()]
    columns = ["arm", "baseline", "gap", "deviations"]
    found[columns] = pd.DataFrame(counterparts, columns=columns, index=found.index, dtype=object)
    said = (found["ablation"] + ": " + found["setting"]).where(found["setting"] != "", "")
    return found.assign(
        setting=said,
        family=found["ablation"],
        over=found["baseline"].fillna(found["arm"]),
        claim=range(len(found)),
    )


def compared(
    experiment: Experiment, results: Path, claimed: "pd.DataFrame", known: Iterable[Cell] = ()
) -> "pd.DataFrame":
    """Every claim by every protocol of the experiment and the published ones, with its cell and its verdict.

    `known` are cells that were computed already, with differences to the experiment's baseline.
    """
    import pandas as pd

    protocols = dict.fromkeys([*experiment.protocols, *claimed["published_protocol"]])
    found = claimed.merge(pd.DataFrame({"protocol": list(protocols)}), how="cross")
    found = found.merge(_measured(experiment, results, claimed, known), how="left", on=KEY)
    found["level_difference"] = found["mean"] - found["published"]
    found["gain_difference"] = found["gain"] - found["published_gain"]
    found["runs"] = found["runs"].fillna(0).astype(int)
    found = found.astype(object).where(found.notna(), None)
    judged = [_verdict(row) for row in found.itertuples()]
    return found.assign(
        verdict=[each.kind for each in judged],
        reason=[each.reason for each in judged],
        gain_visible=pd.Series([each.visible for each in judged], index=found.index, dtype=object),
    )


def _measured(experiment: Experiment, results: Path, claimed: "pd.DataFrame", known: Iterable[Cell]) -> "pd.DataFrame":
    """The cells that the claims need as rows of `KEY` and `MEASURED`, and themselves in the column `cell`."""
    import pandas as pd

    rows = [_row(experiment.baseline, "", cell) for cell in known]
    there = {(*row[:4], row[5]) for row in rows}
    for key, of_pair in claimed.dropna(subset=["arm"]).groupby(KEY[:4], sort=False):
        over, family, *pair = key
        lacking = [name for name in of_pair["measured_metric"].unique() if (*key, name) not in there]
        tables = list(dict.fromkeys(TABLE_OF.get(name, REGION) for name in lacking))
        for group in groups(experiment, results, tables, pairs=[tuple(pair)]) if tables else []:
            possible = [*map(miou_of, tables), *frequency_metrics(group.thirds)]
            wanted = [metric for metric in possible if metric.name in lacking]
            arms = set(of_pair["arm"]) if family else None
            rows += [_row(over, family, cell) for cell in cells(experiment, group, wanted, over, arms)]
    return pd.DataFrame(rows, columns=[*KEY, *MEASURED, "cell"])


def _row(over: str, family: str, cell: Cell) -> list[Any]:
    spread, gain = cell.spread, cell.gain
    return [
        *(over, family, *cell.column, cell.arm, len(cell.values)),
        *((spread.mean, spread.sd) if spread else (None, None)),
        *((gain.difference, gain.low, gain.high, gain.one_pair) if gain else [None] * 4),
        cell,
    ]


def _verdict(row: Row) -> Verdict:
    if row.gap:
        return row.gap
    if row.cell is None:
        return Verdict(verdicts.NOT_RUN, f"nothing was evaluated by {row.protocol}")
    if not row.runs:
        return Verdict(verdicts.NOT_RUN, row.cell.note or row.cell.status)
    reasons = [] if row.published_baseline else ["the baseline: a gain is over it"]
    if row.protocol != row.published_protocol:
        reasons.append(f"protocol {row.protocol}, published with {row.published_protocol}")
    if reasons := [*reasons, *row.deviations]:
        return Verdict(verdicts.NOT_COMPARED, "; ".join(reasons))
    return verdicts.judge(row.cell.gain, row.published_gain)


def _counterpart(
    experiment: Experiment, defaults: Defaults, settings: Mapping[Any, dict[str, Any]], row: Row
) -> tuple[str | None, str | None, Verdict | None, list[str]]:
    """Of a row: the arm, its baseline's arm, why there is none, and what is not as published."""
    pair, of_paper = (row.measured_dataset, row.measured_model), (row.dataset, row.model)
    if pair == of_paper and row.split != row.measured_split:
        withheld = f"the labels of {row.dataset}'s {row.split} split are withheld"
        return None, None, Verdict(verdicts.NOT_MEASURABLE, withheld), []
    if pair not in experiment.pairs():
        return None, None, Verdict(verdicts.NOT_RUN, f"{experiment.name} has no {row.model} on {row.dataset}"), []
    arm = _arm(experiment, defaults, row.measured_method, row.options, exactly=bool(row.setting))
    over = None
    if row.published_baseline:
        base = row.measured_method if row.setting else row.published_baseline
        over = _arm(experiment, defaults, base, row.options_of_baseline, exactly=bool(row.setting))
    if arm is None or (row.published_baseline and over is None):
        said = f"{experiment.name} has no arm {row.published_baseline if arm else row.method}"
        said = f"no arm of {experiment.name} has this setting alone" if row.setting else said
        return None, None, Verdict(verdicts.NOT_RUN, said), []
    if pair == of_paper:
        found = verdicts.deviations(experiment, defaults, arm, settings.get(pair), row.options, row.absent)
    else:
        found = [f"{pair[0]} with {pair[1]}, published on {row.dataset} with {row.model}"]
    quoted = [(row.quoted, row.published), (row.quoted_of_baseline is True, row.value_of_baseline)]
    if figures := dict.fromkeys(f"{value:g}" for is_quoted, value in quoted if is_quoted):
        said = " and ".join(figures)
        found.append(f"{said} seem quoted from another paper (one decimal), trained under settings not known here")
    if over:
        of_baseline = verdicts.arm_deviations(experiment.arms[over], defaults, row.options_of_baseline)
        found += [f"{over}: {each}" for each in of_baseline]
    if (measured := experiment.arms[arm].method) != row.method:
        found.append(f"method {measured}, published for {row.method}")
    return arm, over, None, found


def _arm(
    experiment: Experiment, defaults: Defaults, method: str, options: Mapping[str, Any], exactly: bool = False
) -> str | None:
    """The arm that represents a published method: one with the published options, else the one with its name.

    Of several arms with these options it is the one with the method's name, or the experiment's baseline. `exactly`:
    none but one with these options.
    """
    of_method = sorted(
        (name for name, arm in experiment.arms.items() if arm.method == method),
        key=lambda name: (name != method, name != experiment.baseline),
    )
    as_published = (name for name in of_method if not verdicts.arm_deviations(experiment.arms[name], defaults, options))
    return next(as_published, method if method in of_method and not exactly else None)


def _measured_method(experiment: Experiment, defaults: Defaults, rows: "pd.DataFrame") -> str:
    """The method whose arms represent an ablation: of its own and those that are `also` for it the most complete."""

    def there(method: str) -> int:
        return sum(_arm(experiment, defaults, method, options, True) is not None for options in rows["options"])

    return max([rows["method"].iloc[0], *rows["also"].iloc[0]], key=there)
