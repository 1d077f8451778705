"""The table of `make bench-gpu`: measurements and goals. Never imports torch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.compute import atomic
from harness.errors import UserError
from harness.reporting.markup import markdown_table

FASTER = {"float32": 1.7, "bfloat16": 2.0}  # than mmengine's train_step
SMALL = "lite0_fpn"  # its step is so short that a method's share is larger
# Percent over cross entropy, at most: of Contextrast, of any other method.
OVER = {True: (25, 40), False: (5, 10)}
EVALUATION = {("lite0_fpn", "whole"): 5, ("hrnet_w48", "ms_flip"): 4}  # times as fast as one image at a time
LOOP = 1.1  # times the bare step
AGAIN = 0.002  # how far the baseline's second copy may be from the first
MARGIN = 0.02  # of the claim that a method costs nothing at inference

Row = tuple[str, str, str, str]  # what, measured, reference, goal

NOTES = [
    "All arms of a row took turns in one process: medians, and in brackets the ratios' 90 % interval by the sign test.",
    "step: a whole training step on a batch that is on the device; lite0_fpn 16 crops of 360x480 (11 classes), "
    "hrnet_w48 8 of 512x1024 (19 classes). mmengine: its train_step and optimiser wrapper around the same network in "
    "NCHW, without mmsegmentation's accuracy of every batch.",
    "compiled step: with schedule.compile, compared with the same without.",
    "over cross entropy: labels are Voronoi cells whose classes are as uneven as those of pictures of streets, and "
    "memories are full.",
    "loop: a whole training as the workflow runs it, reading and augmenting included, compared with the bare step.",
    "evaluate: an image of the data set, reading and counting included, compared with one image at a time.",
    "latency: one image of 512x1024. graph: its kernels recorded once and replayed. The baseline's second copy says "
    "what two equal networks differ by here.",
]


def write(results: Path) -> Path:
    """Write `results`/reports/cost/gpu.md from all records in `results`/cost/gpu and return its path."""
    parts = []
    for path in sorted((results / "cost" / "gpu").glob("*.json")):
        try:
            parts.append(table(json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} is damaged: remove it and measure again") from None
    found = results / "reports" / "cost" / "gpu.md"
    atomic.write_text(found, "\n".join(parts) if parts else "Nothing was measured on a GPU yet: `make bench-gpu`.\n")
    return found


def table(record: dict[str, Any]) -> str:
    """The table of one record."""
    pieces: dict[str, Any] = record["pieces"]
    rows = [row for name, found in pieces.items() if "measured" in found for row in rows_of(name, found["measured"])]
    order = ["floors", "step", "compiled", "over", "loop", "evaluate", "latency"]
    rows.sort(key=lambda row: order.index(row[0].split()[0]))
    failed = [f"Failed: {name}, {found['failed']}" for name, found in pieces.items() if "failed" in found]
    commits = sorted({str(found["commit"])[:10] for found in pieces.values() if found.get("commit")})
    days = sorted({str(found["at"])[:10] for found in pieces.values()})
    origin = record["provenance"]
    where = f"Measured on {', '.join(days)} with torch {origin['packages']['torch']}, commit {', '.join(commits)}."
    return markdown_table(
        record["machine"],
        ["", "measured", "compared with", "goal"],
        rows,
        [where, *NOTES, *failed],
    )


def one_line(name: str, found: dict[str, Any]) -> str:
    """A piece's result in one line, for a log."""
    if "failed" in found:
        return f"failed: {found['failed']}"
    return "; ".join(f"{measured}, {reference}" for _, measured, reference, _ in rows_of(name, found["measured"]))


def rows_of(name: str, measured: dict[str, Any]) -> list[Row]:
    """The rows of a piece."""
    kind, _, rest = name.partition("/")
    made: dict[str, Callable[[list[str], dict[str, Any]], list[Row]]] = {
        "floors": _floors,
        "step": _step,
        "compiled": _compiled,
        "method": _method,
        "loop": _loop,
        "evaluate": _evaluate,
        "latency": _latency,
    }
    return made[kind](rest.split("/"), measured)


def _floors(_: list[str], measured: dict[str, Any]) -> list[Row]:
    product = ", ".join(f"{measured[name] / 1e12:.3g} {name}" for name in ("bfloat16", "tf32", "float32"))
    return [
        ("floors of the device", f"{measured['copy'] / 1e12:.3g} TB/s copied", f"TFLOP/s of a product: {product}", "")
    ]


def _step(place: list[str], measured: dict[str, Any]) -> list[Row]:
    model, precision = place
    value, low, high = (1 / each for each in measured["ratio"])
    ms = measured["ms"]
    goal = FASTER[precision]
    return [
        (
            f"step {model}, {precision}",
            f"{ms['harness']:.1f} ms",
            f"mmengine {ms['mmengine']:.1f} ms: {value:.2f} times faster ({high:.2f} to {low:.2f})",
            _goal(f"at least {goal}", value >= goal),
        )
    ]


def _compiled(place: list[str], measured: dict[str, Any]) -> list[Row]:
    model, precision = place
    value, low, high = (1 / each for each in measured["ratio"])
    ms = measured["ms"]
    reference = f"not compiled {ms['plain']:.1f} ms: {value:.2f} times faster ({high:.2f} to {low:.2f})"
    return [(f"compiled step {model}, {precision}", f"{ms['compiled']:.1f} ms", reference, "")]


def _method(place: list[str], measured: dict[str, Any]) -> list[Row]:
    model, precision, method = place
    value, low, high = (100 * (each - 1) for each in measured["ratio"])
    most = OVER[model == SMALL][method != "contextrast"]
    ms = measured["ms"]
    return [
        (
            f"over cross entropy: {method}, {model}, {precision}",
            f"{value:+.1f} % ({low:+.1f} to {high:+.1f})",
            f"{ms[method]:.1f} over {ms['cross_entropy']:.1f} ms",
            _goal(f"at most +{most} %", value <= most),
        )
    ]


def _loop(place: list[str], measured: dict[str, Any]) -> list[Row]:
    (model,) = place
    return [
        (
            f"loop {model} on {measured['dataset']}",
            f"{measured['loop_ms']:.1f} ms an iteration",
            f"the bare step {measured['bare_ms']:.1f} ms: {measured['ratio']:.2f} times",
            _goal(f"at most {LOOP}", measured["ratio"] <= LOOP),
        )
    ]


def _evaluate(place: list[str], measured: dict[str, Any]) -> list[Row]:
    model, protocol = place
    goal = EVALUATION.get((model, protocol))
    return [
        (
            f"evaluate {model}, {protocol}, {measured['images']} images of {measured['dataset']}",
            f"{measured['ms']:.2f} ms an image",
            f"one at a time {measured['plain_ms']:.1f} ms: {measured['ratio']:.1f} times faster",
            "" if goal is None else _goal(f"at least {goal}", measured["ratio"] >= goal),
        )
    ]


def _latency(place: list[str], measured: dict[str, Any]) -> list[Row]:
    model, precision = place
    rows = []
    for mode, found in measured.items():
        again = found["again"]
        arms = {name: each for name, each in found.items() if name not in ("ms", "again")}
        claim = "; ".join(f"{name} {_interval(each)}, {_verdict(each)}" for name, each in arms.items())
        goal = max(abs(again[1] - 1), abs(again[2] - 1)) <= AGAIN
        rows.append(
            (
                f"latency {model}, {precision}, {mode.replace('_', ' ')}",
                f"{found['ms']:.2f} ms; baseline again {_interval(again)}",
                claim,
                _goal("0.998 to 1.002, decided", goal and all(_verdict(each) != "open" for each in arms.values()))
                if mode == "graph"
                else "",
            )
        )
    return rows


def _interval(three: list[float]) -> str:
    return f"{three[0]:.4f} ({three[1]:.4f} to {three[2]:.4f})"


def _verdict(three: list[float]) -> str:
    _, low, high = three
    if low >= 1 - MARGIN and high <= 1 + MARGIN:
        return "equal within 2 %"
    return "different" if low > 1 + MARGIN or high < 1 - MARGIN else "open"


def _goal(goal: str, met: bool) -> str:
    return f"{goal}: {'met' if met else 'not met'}"
