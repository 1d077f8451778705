"""Tables of measured costs, from the records in results/cost: latency, and training with the published figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.compute import atomic
from harness.config import size_name
from harness.cost import records
from harness.cost.equivalence import LEVEL, MARGIN, Ratio, ratio
from harness.errors import UserError
from harness.reporting.costs.networks import costs
from harness.reporting.markup import markdown_table
from harness.reporting.names import method_name
from harness.reporting.writing import csv_text

SETTING = ("model", "dataset", "size", "mode", "batch", "precision", "channels_last", "compiled")
TIMES = ("p50_ms", "p90_ms", "p99_ms", "mean_ms", "iqr_ms", "n")
CONDITIONS = ("drift", "processor_share", "warnings", "commit", "started")
LATENCY_COLUMNS = (
    *("device", "machine", "threads", *SETTING, "arm", "parameters", "gflops", "peak_mib", *TIMES),
    *("images_per_second", "ratio", "low", "high", "verdict", "joules_per_image", *CONDITIONS),
)
TRAINING_COLUMNS = (
    *("device", "machine", "threads", *SETTING[:3], *SETTING[4:7], "arm", "parameters", "peak_mib", *TIMES),
    *("ratio", "low", "high", "memory_ratio", "published_time_ratio", "published_memory_ratio", *CONDITIONS),
)
MIB = 2**20
TRAINING = {"time": "training_time_h", "memory": "training_memory_MiB"}  # published metrics
OLD_LABELS = (  # of records from before they said it
    "squares of equally frequent classes, which give multi-scale contrast 17 to 270 times the similarities of CamVid's"
)

Row = dict[str, Any]
Record = dict[str, Any]


def write_latency_table(results: Path) -> Path:
    """Write latency.csv (every digit) and latency.md into `results`/reports/cost from all records of latency there.

    Returns that folder. Raises UserError if there is no record.
    """
    found = _records(results, "latency")
    rows = list(map(latency_rows, found))
    return _write(results, "latency", LATENCY_COLUMNS, rows, [_claim(found, rows), *map(_latency_table, found, rows)])


def write_training_table(results: Path) -> Path:
    """Write training.csv (every digit) and training.md into `results`/reports/cost from all records of training there.

    Returns that folder. Raises UserError if there is no record.
    """
    found = _records(results, "training")
    rows = list(map(training_rows, found))
    return _write(results, "training", TRAINING_COLUMNS, rows, list(map(_training_table, found, rows)))


def latency_rows(record: Record) -> list[Row]:
    """A row of `LATENCY_COLUMNS` for every arm of a record, the baseline first."""
    batch, rows = record["setting"]["batch"], []
    for arm, known in record["arms"].items():
        row = _common(record, arm, known) | {"gflops": known["gflops"]}
        row["images_per_second"] = 1000 * batch / row["p50_ms"]
        joules = record["energy_joules"]
        rows.append(row | {"joules_per_image": _joules_per_image(record) if joules else None})
    return rows


def training_rows(record: Record) -> list[Row]:
    """A row of `TRAINING_COLUMNS` for every arm of a record, the baseline first."""
    papers = published_overheads()
    base = record["arms"][record["baseline"]]["peak_bytes"]
    rows = []
    for arm, known in record["arms"].items():
        over = {f"published_{name}_ratio": papers.get(arm, {}).get(metric) for name, metric in TRAINING.items()}
        rows.append(_common(record, arm, known) | {"memory_ratio": known["peak_bytes"] / base} | over)
    return rows


def published_overheads() -> dict[str, dict[str, float]]:
    """{method: {metric: training's over the baseline's}}, as published for HRNet-W48 on Cityscapes."""
    over: dict[str, dict[str, float]] = {}
    for row in costs().dropna(subset=["gain"]).itertuples():
        over.setdefault(row.method, {})[row.metric] = row.value / row.value_of_baseline
    return over


def _records(results: Path, kind: str) -> list[Record]:
    if not (found := records.read_all(results, kind)):
        raise UserError(f"there is no record in {Path(results) / 'cost' / kind}: measure first")
    return found


def _write(results: Path, kind: str, columns: Sequence[str], rows: list[list[Row]], tables: list[str]) -> Path:
    folder = Path(results) / "reports" / "cost"
    flat = ([row.get(name) for name in columns] for of_record in rows for row in of_record)
    atomic.write_text(folder / f"{kind}.csv", csv_text(columns, flat))
    atomic.write_text(folder / f"{kind}.md", "\n".join(tables))
    return folder


def _common(record: Record, arm: str, known: Mapping[str, Any]) -> Row:
    """What rows of both kinds hold."""
    samples = known["nanoseconds"]
    milliseconds = samples / 1e6
    p25, p50, p75, p90, p99 = np.quantile(milliseconds, [0.25, 0.5, 0.75, 0.9, 0.99]).tolist()
    is_baseline = arm == record["baseline"]
    beside = Ratio(1, 1, 1) if is_baseline else ratio(samples, record["arms"][record["baseline"]]["nanoseconds"])
    setting = record["setting"]
    return {
        **{name: record[name] for name in ("device", "machine", "drift", "processor_share", "started")},
        **setting,
        "size": size_name(setting["size"]),
        "threads": record["torch"]["threads"],
        "arm": arm,
        "parameters": known["parameters"],
        "peak_mib": known["peak_bytes"] / MIB,
        **{"p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "mean_ms": float(milliseconds.mean())},
        **{"iqr_ms": p75 - p25, "n": milliseconds.size},
        **({} if is_baseline else {"ratio": beside.value, "low": beside.low, "high": beside.high}),
        "verdict": "baseline" if is_baseline else beside.verdict,
        "warnings": "; ".join(record["warnings"]),
        "commit": record["provenance"]["commit"],
    }


def _joules_per_image(record: Record) -> float:
    """Of all arms together: the counters are too slow to tell turns of milliseconds apart."""
    plan, batch = record["plan"], record["setting"]["batch"]
    rounds = len(record["order"])
    turns = rounds * len(record["arms"]) * (plan["settle"] + plan["block"])
    warm = sum(arm["warmup"]["iterations"] for arm in record["arms"].values())
    return float(sum(record["energy_joules"].values()) / (batch * (turns + warm)))


def _claim(found: list[Record], rows: list[list[Row]]) -> str:
    """One row a record: is inference without extra cost?"""
    lines = []
    for record, of_record in zip(found, rows, strict=True):
        arms = {row["arm"]: row for row in of_record}
        base, control = arms.pop(record["baseline"]), arms.pop(record["control"])
        same = sum((row["parameters"], row["gflops"]) == (base["parameters"], base["gflops"]) for row in arms.values())
        decided = [row["verdict"] for row in arms.values() if row["verdict"] != "not shown"]
        shown = sum(verdict.startswith("equivalent") for verdict in decided)
        lines.append(
            [
                *_described(record),
                _interval(control),
                f"{same} of {len(arms)}",
                f"{shown} of {len(arms)}",
                f"{len(decided)} of {len(arms)}",
                "yes" if record["warnings"] else "no",
            ]
        )
    return markdown_table(
        "Does a method cost anything at inference?",
        [
            *("", "setting", "machine", "baseline against itself", "parameters and FLOPs equal to the baseline's"),
            *(f"equivalent within {_percent(MARGIN)}", "decided", "warnings"),
        ],
        lines,
        [
            "Every arm is a network of its own: what inference keeps after one training step with the method. "
            "Parameters and FLOPs (torch's counter, one image) are counted on these very networks.",
            "Timed: normalisation, network, bilinear resize of the logits to the image's size, argmax; in inference "
            "mode, the image already on the device. Arms take turns in random order in every round.",
            f"Ratio: the median over rounds of the arm's time over the baseline's in the same round, and its "
            f"{_percent(LEVEL)} interval by the sign test; pairing cancels what a round had in common. Equivalent: the "
            "whole interval lies in "
            f"{1 - MARGIN:.2f} to {1 + MARGIN:.2f} (two one-sided tests at 5 %). Decided: equivalent, or the whole "
            'interval lies outside on one side; otherwise "not shown", which is no proof of a difference.',
            "Baseline against itself: a second network of the baseline's, timed as an arm; what chance alone makes of "
            "two equal arms on this machine.",
            "graph: one image a batch, the kernels recorded once and replayed (CUDA graph), so that the host's part is "
            "not timed. single stream: one image a batch. offline: the largest batch that fits; on a CPU 8.",
        ],
    )


def _latency_table(record: Record, rows: list[Row]) -> str:
    return markdown_table(
        f"Latency: {', '.join(_described(record))}",
        [
            *("", "parameters, M", "FLOPs, G", "p50, ms", "p90", "p99", "mean", "IQR", "n", "images/s"),
            *("ratio to the baseline", "verdict"),
        ],
        [
            [
                method_name(row["arm"]),
                f"{row['parameters'] / 1e6:.3f}",
                f"{row['gflops']:.2f}",
                *(f"{row[name]:.2f}" for name in TIMES[:-1]),
                str(row["n"]),
                f"{row['images_per_second']:.1f}",
                _interval(row),
                row["verdict"],
            ]
            for row in rows
        ],
        _conditions(record, rows),
    )


def _training_table(record: Record, rows: list[Row]) -> str:
    return markdown_table(
        f"Training: {', '.join(_described(record))}",
        [
            *("", "time of an iteration, ms", "IQR", "n", "over the baseline", "peak memory, MiB", "over the baseline"),
            *("published time", "published memory"),
        ],
        [
            [
                method_name(row["arm"]),
                *(f"{row[name]:.1f}" for name in ("p50_ms", "iqr_ms")),
                str(row["n"]),
                _interval(row, percent=True),
                f"{row['peak_mib']:.0f}",
                "" if row["arm"] == record["baseline"] else _more(row["memory_ratio"]),
                *(_more(row[f"published_{name}_ratio"]) for name in TRAINING),
            ]
            for row in rows
        ],
        [
            "A step is forward, losses, backward and optimiser (SGD with momentum), on the same generated images and "
            f"labels, with full memories. Labels: {record.get('labels', OLD_LABELS)}. The network starts from scratch, "
            "so nearly every pixel is misclassified: the most that methods which sample misclassified pixels can have "
            "to do.",
            "Time: p50; over the baseline's: the median over rounds of the ratio in the same round, with its "
            f"{_percent(LEVEL)} interval by the sign test.",
            "Peak memory: parameters, buffers, optimiser's state and all that torch holds besides at the worst moment "
            "of a step.",
            "Published (arXiv 2608.22679, table XVI): hours and memory of training HRNet-W48 on Cityscapes, 512x1024, "
            f"on GPUs, over cross entropy{_published_overhead(rows)}. Another network and "
            "machine than here unless the title says so.",
            *_conditions(record, rows),
        ],
    )


def _published_overhead(rows: list[Row]) -> str:
    """That of the first arm that has one, in the paper's own units: "; Contextrast's 10:01 h over 8:58 h and ..."."""
    arms = [row["arm"] for row in rows if row["published_time_ratio"] is not None]
    if not arms:
        return ""
    figures = costs()
    of_arm = figures[figures["method"] == arms[0]].set_index("metric")[["value", "value_of_baseline"]]
    times = [f"{int(each)}:{round(60 * (each % 1)):02d} h" for each in of_arm.loc[TRAINING["time"]]]
    memory = [f"{each:,.0f} MiB" for each in of_arm.loc[TRAINING["memory"]]]
    return f"; {method_name(arms[0])}'s {' over '.join(times)} and {' over '.join(memory)}"


def _described(record: Record) -> list[str]:
    """Model, setting, machine."""
    setting, threads = record["setting"], record["torch"]["threads"]
    options = [f"{setting['dataset']} classes", size_name(setting["size"])]
    options += [setting["mode"].replace("_", " ")] if "mode" in setting else []
    options += [f"batch {setting['batch']}", setting["precision"]]
    options += [name.replace("_", " ") for name in ("channels_last", "compiled") if setting.get(name)]
    gpu = record["provenance"]["device"]["type"] == "cuda"
    machine = record["machine"] if gpu else f"{record['machine']}, {threads} thread{'s' * (threads > 1)}"
    return [setting["model"], ", ".join(options), machine]


def _conditions(record: Record, rows: list[Row]) -> list[str]:
    before, after = (record["conditions"][when] for when in ("before", "after"))
    states = []
    for part in after:
        for name, value in after[part].items():
            states.append(f"{part} {name} {before.get(part, {}).get(name, 'unknown')} to {value}")
    share = record["processor_share"]
    notes = [
        f"Drift, last third of the rounds over the first: {record['drift']:.3f}."
        + ("" if share is None else f" Processor share: {_percent(share)}.")
        + f" Before and after: {', '.join(states)}."
    ]
    if (joules := rows[0].get("joules_per_image")) is not None:
        notes.append(f"Energy: {joules:.3g} J an image ({' and '.join(record['energy_joules'])}), all arms together.")
    return notes + [f"Warning: {text}." for text in record["warnings"]]


def _interval(row: Row, percent: bool = False) -> str:
    if "ratio" not in row:
        return ""
    values = [row[name] for name in ("ratio", "low", "high")]
    texts = [_more(value) if percent else f"{value:.3f}" for value in values]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _more(value: float | None) -> str:
    """A ratio as what it is over 1: "+11.7 %"; empty for None."""
    return "" if value is None else f"{100 * (value - 1) + 0.0:+.1f} %"
