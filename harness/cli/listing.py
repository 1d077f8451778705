"""The output of `list`: facts as plain JSON and as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli.tables import print_table
from harness.compute.shipped import program
from harness.experiment import discovery
from harness.experiment.option_docs import documented


@dataclass
class Listing:
    """A table, its facts, and the lines before and after it."""

    facts: dict[str, Any]
    headings: Sequence[str]
    rows: Sequence[Sequence[object]]
    before: str = ""
    after: str = ""

    def show(self) -> None:
        """Print the table with the lines around it."""
        if self.before:
            print(self.before + "\n")
        print_table(self.headings, self.rows, right=("year", "classes", "maps"))
        if self.after:
            print("\n" + self.after)


def methods() -> Listing:
    """Every method with its title, venue, year and idea."""
    about = {name: discovery.about(name) for name in discovery.names()}
    facts = {name: {**each._asdict(), "options": discovery.options(name)} for name, each in about.items()}
    rows = [(name, each.title, each.venue, each.year or "", each.idea) for name, each in about.items()]
    after = f"Options, paper and link of one: {program()} list methods contextrast"
    return Listing(facts, ("name", "method", "venue", "year", "idea"), rows, after=after)


def method(name: str) -> Listing:
    """One method with its paper and options. Raises UserError for an unknown name."""
    about, options = discovery.about(name), documented(name)
    facts = {**about._asdict(), "options": {option: doc._asdict() for option, doc in options.items()}}
    lines = [about.title, f"{about.paper}, {about.published}" if about.paper else "", about.url, about.idea]
    lines += [f"Open in the paper or different in its code: {about.left_open}" if about.left_open else ""]
    rows = [(option, _value(doc.default), doc.allowed, doc.meaning) for option, doc in options.items()]
    after = f"Set them in an experiment: `arms: {{my_arm: {{method: {name}, OPTION: VALUE}}}}`"
    before = "\n".join(line for line in lines if line)
    return Listing(facts, ("option", "default", "allowed", "meaning"), rows, before, after if rows else "No options.")


def models() -> Listing:
    """Every network with its source, the number of tapped maps, and its initial weights."""
    from harness import models as found

    specs = {name: found.load_spec(name) for name in found.names()}
    rows = [
        (name, spec.source, len(spec.taps.channels), "pretrained" if spec.weights.given else "random", spec.config)
        for name, spec in specs.items()
    ]
    facts = {name: {"source": spec.source, "channels": list(spec.taps.channels)} for name, spec in specs.items()}
    return Listing(facts, ("name", "source", "maps", "start", "configuration"), rows)


def datasets(results: Path) -> Listing:
    """Every data set with its classes and splits, and where it was found."""
    from harness.datasets.overview import overview, whereabouts

    facts = overview(results)
    rows = [
        (name, each["title"], each["classes"] or "", _splits(each["splits"]), whereabouts(each))
        for name, each in facts.items()
    ]
    return Listing(facts, ("name", "data set", "classes", "images", "found"), rows)


def arms(config: Path, overrides: list[str]) -> Listing:
    """The arms of an experiment with their settings."""
    from harness.experiment.schema import Experiment

    facts = {
        name: {**arm.model_dump(exclude={"options"}, exclude_defaults=True), **arm.options}
        for name, arm in Experiment.load(config, overrides).arms.items()
    }
    rows = [
        (name, each["method"], ", ".join(f"{key}={_value(value)}" for key, value in each.items() if key != "method"))
        for name, each in facts.items()
    ]
    return Listing(facts, ("arm", "method", "settings"), rows)


def _value(value: Any) -> str:
    """A value in YAML's notation."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{', '.join(_value(each) for each in value)}]" if isinstance(value, tuple | list) else str(value)


def _splits(splits: dict[str, int]) -> str:
    return ", ".join(f"{split} {count:,}" for split, count in splits.items())
