"""Starts a folder of the user's own: an experiment to run, and places for methods and results."""

from pathlib import Path

from harness.compute import atomic
from harness.compute.shipped import EXPERIMENTS
from harness.errors import UserError

GITIGNORE = "# Label maps and checkpoints are large and can be made again.\nresults/\n"


def write_project(folder: Path) -> list[Path]:
    """Write config/ with this project's experiments, and an empty methods/; returns the files written.

    Raises UserError if one of the files exists: nothing is written then.
    """
    experiments = {folder / "config" / path.name: path for path in sorted(EXPERIMENTS.glob("*.yaml"))}
    ignored = folder / ".gitignore"
    if taken := [path for path in (*experiments, ignored) if path.exists()]:
        raise UserError(f"{taken[0]} exists: choose an empty folder")
    (folder / "methods").mkdir(parents=True, exist_ok=True)
    for path, source in experiments.items():
        atomic.copy(source, path)
    atomic.write_text(ignored, GITIGNORE)
    return [*experiments, ignored]
