"""The key of a run, and the folder that it names."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """The key of a run. `folder` holds all its files."""

    experiment: str
    dataset: str
    model: str
    arm: str
    seed: int

    def folder(self, results: Path) -> Path:
        """`results/runs/<experiment>/<dataset>/<model>/<arm>/seed<k>`."""
        return Path(results) / "runs" / self.experiment / self.dataset / self.model / self.arm / f"seed{self.seed}"

    def key(self) -> dict[str, Any]:
        """The `key` of record.json."""
        return asdict(self)

    @property
    def full_name(self) -> str:
        """The run with its experiment."""
        return f"{self.experiment}/{self}"

    def __str__(self) -> str:
        return f"{self.dataset}/{self.model}/{self.arm}/seed{self.seed}"
