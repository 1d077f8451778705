"""Starts a new method: a copy of methods/template.py under its name, and an experiment that compares it."""

import keyword
import re
from pathlib import Path

import yaml

from harness.compute import atomic
from harness.compute.shipped import run_command
from harness.errors import UserError
from harness.experiment import discovery

EXPERIMENT = """# {name} compared with cross entropy and Contextrast, in the setting of config/quick.yaml.
#   {command}
"""


def write_new_method(name: str, config_folder: Path, settings_of: Path) -> tuple[Path, Path]:
    """The paths of the new methods/NAME.py and config_folder/try_NAME.yaml, with the settings of `settings_of`.

    Raises UserError for a name that is taken or not a lower-case identifier.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(f"{name!r} cannot name a method: use lower-case letters, digits and '_', a letter first")
    method, experiment = discovery.folders()[-1] / f"{name}.py", config_folder / f"try_{name}.yaml"
    for path in (method, experiment):
        if path.exists():
            raise UserError(f"{path} exists: choose another name or remove it")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    settings = yaml.safe_load(settings_of.read_text(encoding="utf-8"))
    settings["arms"] = {"cross_entropy": {}, "contextrast": {}, name: {}}
    text = (discovery.FOLDER / f"{discovery.TEMPLATE}.py").read_text(encoding="utf-8")
    words = name.replace("_", " ").capitalize()
    text = text.replace("Template:", f"{words}:").replace('"Template"', f'"{words}"').replace("Template", class_name)
    atomic.write_text(method, text.replace(discovery.TEMPLATE, name))
    atomic.write_text(
        experiment,
        EXPERIMENT.format(name=name, command=run_command(experiment)) + yaml.safe_dump(settings, sort_keys=False),
    )
    return method, experiment
