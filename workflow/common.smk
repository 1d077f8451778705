# Names and paths that the rules of the Snakefile share.

import shlex
import sys
from functools import cache
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from harness import datasets, devices, planning
from harness.errors import UserError
from harness.evaluation.external_arms import external_records
from harness.experiment import Experiment
from harness.reporting.figures import figure_names
from harness.run import fingerprint
from harness.status import status_rows

EXPERIMENT_FILE = config.get("experiment", f"{workflow.basedir}/config/smoke.yaml")
RESULTS = config.get("results", "results")
# KEY=VALUE as for --set, several separated by spaces: --config set="schedule.iterations=50 seeds=[0,1]"
_SET = shlex.split(str(config.get("set", "")))
# What may change without anything being made again goes to the rules by the environment (where Python is, how the
# experiment file is called); what may not, by their params.
ENVIRONMENT = {
    "PYTHONPATH": workflow.basedir,
    "RESULTS": RESULTS,
}
# A scheduler that takes a job away sends SIGTERM to all of its processes. The one that trains writes a checkpoint then;
# the shell and its log must outlive it, or its end is taken for the job's and it is killed at its work.
SURVIVE = """trap : TERM; log() {{ trap '' TERM; exec tee "$1"; }}; """
EXPORTS = f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"; '
EXPORTS += "".join(f"export {name}={shlex.quote(str(value))}; " for name, value in ENVIRONMENT.items())
# `harness VERB ...` in a rule knows the experiment and what is set over it.
_TOLD = shlex.join(["--config", str(EXPERIMENT_FILE), *(word for item in _SET for word in ("--set", item))])
_FUNCTIONS = f'harness() {{ verb=$1; shift; python -m harness "$verb" {_TOLD} "$@"; }}; '
_SPOKEN = (EXPORTS + _FUNCTIONS).replace("{", "{{").replace("}", "}}")  # the prefix is a format string
shell.prefix(f"set -euo pipefail; {SURVIVE}{_SPOKEN}")
# A training or an evaluation takes one GPU where there is one and leases it (harness/devices.py); as many run at a time
# as there are here, or that may share them. Elsewhere the cores are the limit, and on a cluster its scheduler.
TRAIN_THREADS = int(config.get("threads", 1))

try:
    PLACES = len(devices.visible()) * devices.share()
    EXPERIMENT = Experiment.load(Path(EXPERIMENT_FILE), _SET)
except UserError as error:
    sys.exit(f"error: {error}")
GPU = min(PLACES, 1)
if PLACES:
    workflow.global_resources.setdefault("gpu", PLACES)  # --resources gpu=N goes before it

NAME = EXPERIMENT.name
RUNS = f"{RESULTS}/runs/{NAME}"
REPORT = f"{RESULTS}/reports/{NAME}"
RECORDS = [f"{run.folder(RESULTS)}/record.json" for run in EXPERIMENT.runs()]
# Nothing makes the records of external arms; a new one draws the tables and figures again.
RECORDS += map(str, external_records(EXPERIMENT, Path(RESULTS)))
FORMATS = ("csv", "html", "md", "tex")
TABLES = [f"{REPORT}/tables/{name}.{suffix}" for name in ("miou", "per_class", "boundary") for suffix in FORMATS]
CAPTIONS = figure_names(EXPERIMENT)
FIGURES = [f"{REPORT}/figures/{name}.{suffix}" for name in CAPTIONS for suffix in ("png", "pdf")]
EXAMPLES = f"{REPORT}/figures/examples.png"
PAGE = f"{REPORT}/report.html"
REPORT_FILES = [*TABLES, *FIGURES, EXAMPLES, PAGE]
# What `snakemake --report` shows of each file name; of its formats those that a browser shows.
SHOWN = (".html", ".png")
ABOUT = CAPTIONS | {
    "per_class": "IoU of every class.",
    "boundary": "Boundary mIoU and trimap mIoU by the width of the band.",
    "examples": "Test images and what each arm gets wrong.",
    "report": "Tables, figures, examples and runs.",
}
# Editing the experiment file re-runs only what its change touches: each rule has its own part as a param.
REPORT_FINGERPRINT = fingerprint(EXPERIMENT.model_dump(mode="json"))


def in_report(category, paths):
    """Mark `paths` for the report of snakemake: where they stand, their caption, and what each shows."""
    caption = f"{workflow.basedir}/workflow/report/{category.lower()}.rst"
    found = []
    for path in map(Path, paths):
        labels = {"name": path.stem.replace("_", " "), "shows": ABOUT[path.stem]}
        shown = path.suffix in SHOWN
        found.append(report(str(path), caption=caption, category=category, labels=labels) if shown else str(path))
    return found


def run_fingerprint(wildcards):
    """What decides the outcome of a run; a change trains it again."""
    run = EXPERIMENT.run(wildcards.dataset, wildcards.model, wildcards.arm, int(wildcards.seed))
    return fingerprint(EXPERIMENT.settings(run))


@cache
def planned():
    """{key of a run: its plan}."""
    rows = planning.plan(EXPERIMENT, Path(RESULTS))
    return {(row.dataset, row.model, row.arm, row.seed): row for row in rows}


def training_minutes(wildcards):
    """What a cluster's scheduler grants a training."""
    key = (wildcards.dataset, wildcards.model, wildcards.arm, int(wildcards.seed))
    return planning.time_limit(planned()[key]) if key in planned() else planning.UNKNOWN_MINUTES


def dataset_fingerprint(name):
    """The data set's own file: a change verifies it again."""
    return datasets.description_fingerprint(name)


@cache
def missing(name):
    """Why a data set is not there: when it arrives, it is verified and its runs are made. Once it was, they stay."""
    if datasets.is_verified(name, Path(RESULTS)):
        return ""
    return datasets.missing(name, EXPERIMENT.roots.get(name), Path(RESULTS))


def say_what_was_skipped():
    """Print why runs were skipped, each reason once; ends with status 1 if no run was made at all."""
    rows = status_rows(Path(RESULTS), [EXPERIMENT])
    skipped = [row for row in rows if row.status == "skipped"]
    for reason in dict.fromkeys(row.reason for row in skipped):
        number = sum(row.reason == reason for row in skipped)
        print(f"skipped, {number} of {len(rows)} runs: {reason}", file=sys.stderr)
    if rows and len(skipped) == len(rows):
        sys.exit("error: every run was skipped, so the report holds no result")


wildcard_constraints:
    seed=r"\d+",
    dataset="|".join(EXPERIMENT.datasets),
    model="|".join(EXPERIMENT.models),
    arm="|".join(EXPERIMENT.arms),
