"""Where this program is: a checkout or an installed package, the folders it ships, and how to type its commands."""

import shlex
import sys
from pathlib import Path

HARNESS = Path(__file__).parents[1]


def shipped(in_checkout: str, installed: str) -> Path:
    """The folder of a checkout, relative to its top, or where `pip install .` puts its files."""
    inside = HARNESS / installed
    return inside if inside.is_dir() else HARNESS.parent / in_checkout


def program() -> str:
    """How to call this program, for messages that say what to type next: as it was called."""
    if Path(sys.argv[0]).name == "contextrast-bench":
        return "contextrast-bench"
    python = Path(sys.executable)
    return f"{python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python} -m harness"


def run_command(experiment: Path) -> str:
    """What trains and compares an experiment: make in a checkout, the verb run in a project folder."""
    quoted = shlex.quote(str(experiment))
    return f"make run EXPERIMENT={quoted}" if HARNESS.parent == Path.cwd() else f"{program()} run {quoted}"


PUBLISHED = shipped("results/published", "published")  # figures of the papers, CSV
EXPERIMENTS = shipped("config", "config_files")  # the experiments of this project, YAML
