# Names and paths that the rules of the Snakefile share.

import shlex
import shutil
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from harness import datasets
from harness.errors import UserError
from harness.evaluation.external import external_records
from harness.experiment import Experiment
from harness.run import fingerprint

EXPERIMENT_FILE = config.get("experiment", f"{workflow.basedir}/config/smoke.yaml")
RESULTS = config.get("results", "results")
# KEY=VALUE as for --set, several separated by spaces: --config set="schedule.iterations=50 seeds=[0,1]"
_SET = shlex.split(str(config.get("set", "")))
# What may change without anything being made again goes to the rules by the environment (where Python is, how the
# experiment file is called); what may not, by their params.
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}:$PATH",
    "PYTHONPATH": workflow.basedir,
    "EXPERIMENT": EXPERIMENT_FILE,
    "OVERRIDES": " ".join(f"--set {item}" for item in _SET),
    "RESULTS": RESULTS,
}
shell.prefix("set -euo pipefail; " + "".join(f'export {name}="{value}"; ' for name, value in ENVIRONMENT.items()))
# A training or an evaluation takes one GPU where there is one; elsewhere the cores are the limit.
GPU = 1 if shutil.which("nvidia-smi") else 0
TRAIN_THREADS = int(config.get("threads", 1))

try:
    EXPERIMENT = Experiment.load(Path(EXPERIMENT_FILE), _SET)
except UserError as error:
    sys.exit(f"error: {error}")

NAME = EXPERIMENT.name
RUNS = f"{RESULTS}/runs/{NAME}"
REPORT = f"{RESULTS}/reports/{NAME}"
RECORDS = [f"{run.folder(RESULTS)}/record.json" for run in EXPERIMENT.runs()]
# Nothing makes the records of external arms; a new one draws the tables and figures again.
RECORDS += map(str, external_records(EXPERIMENT, Path(RESULTS)))
TABLES = [f"{REPORT}/tables/{name}.{suffix}" for name in ("miou", "boundary") for suffix in ("csv", "md", "tex")]
FIGURES = [f"{REPORT}/figures/{name}.{suffix}" for name in ("miou", "training") for suffix in ("png", "pdf")]
EXAMPLES = f"{REPORT}/figures/examples.png"
REPORT_FILES = [*TABLES, *FIGURES, EXAMPLES]
# Editing the experiment file re-runs only what its change touches: each rule has its own part as a param.
REPORT_FINGERPRINT = fingerprint(EXPERIMENT.model_dump(mode="json"))


def run_fingerprint(wildcards):
    """What decides the outcome of a run; a change trains it again."""
    run = EXPERIMENT.run(wildcards.dataset, wildcards.model, wildcards.arm, int(wildcards.seed))
    return fingerprint(EXPERIMENT.settings(run))


def dataset_fingerprint(name):
    """The data set's own file: a change verifies it again."""
    return datasets.description_fingerprint(name)


wildcard_constraints:
    seed=r"\d+",
    dataset="|".join(EXPERIMENT.datasets),
    model="|".join(EXPERIMENT.models),
    arm="|".join(EXPERIMENT.arms),
