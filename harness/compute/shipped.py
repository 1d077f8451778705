"""Locations of shipped folders in a checkout or an installed package, and the commands to show to the user."""

import shlex
import sys
from pathlib import Path

HARNESS = Path(__file__).parents[1]


def shipped(in_checkout: str, installed: str) -> Path:
    """A shipped folder: `in_checkout`, relative to the repository, or where `pip install .` puts it."""
    inside = HARNESS / installed
    return inside if inside.is_dir() else HARNESS.parent / in_checkout


def program() -> str:
    """The command of this program as the user typed it, for messages that say what to type next."""
    if Path(sys.argv[0]).name == "contextrast-bench":
        return "contextrast-bench"
    python = Path(sys.executable)
    return f"{python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python} -m harness"


def run_command(experiment: Path) -> str:
    """The command that runs an experiment: `make run` in a checkout, the verb `run` elsewhere."""
    quoted = shlex.quote(str(experiment))
    return f"make run EXPERIMENT={quoted}" if HARNESS.parent == Path.cwd() else f"{program()} run {quoted}"


PUBLISHED = shipped("results/published", "published")  # figures of the papers, CSV
EXPERIMENTS = shipped("config", "config_files")  # the experiments of this project, YAML
