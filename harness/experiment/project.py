"""The user's folder: its experiments by name, and how such a folder is started."""

from pathlib import Path

from harness.compute import atomic
from harness.compute.shipped import EXPERIMENTS
from harness.errors import UserError

GITIGNORE = "# Label maps and checkpoints are large and can be made again.\nresults/\n"


def experiment_path(given: str | Path) -> Path:
    """The file of an experiment: a path unchanged, or the name of one in config/."""
    given = str(given)  # the default is a path
    named = Path("config") / f"{given}.yaml"
    return named if "/" not in given and not Path(given).exists() and named.exists() else Path(given)


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
