import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("MPLBACKEND", "Agg")

# Of tests on drawn examples: few at every call, other ones each time, and many in `make test-all`.
settings.register_profile(
    "project",
    max_examples=200 if "ALL_EXAMPLES" in os.environ else 25,
    deadline=None,  # of a busy machine
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("project")


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """`once(name, make)` returns a folder that `make(folder)` has filled, once for all workers of the session."""
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(f"{folder}.lock"):
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def scenes_root(once) -> Path:
    """The rendered data set `scenes`, to be read only."""
    from harness import datasets

    return once("scenes", lambda folder: datasets.prepare(datasets.load("scenes", folder / "root"))) / "root"


@pytest.fixture
def experiment_file(tmp_path):
    """Writes an experiment file from keys, on top of a small valid one."""
    import yaml

    def write(stem="tiny", **keys) -> Path:
        content = {
            "arms": {"cross_entropy": {}, "contextrast": {}},
            "baseline": "cross_entropy",
            "datasets": ["scenes"],
            "models": ["hrnet_tiny"],
            "schedule": {"iterations": 10, "batch": 2, "crop": [32, 32], "learning_rate": 0.1}
            | {"log_every": 2, "checkpoint_every": 4},
        } | keys
        path = tmp_path / f"{stem}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write


@pytest.fixture
def tiny_data(tmp_path, monkeypatch):
    """The root of the data set `tiny` (`write_tiny`), which the harness knows for the length of the test."""
    from tiny_data_set import write_tiny

    from harness import datasets

    root, described = write_tiny(tmp_path)
    monkeypatch.setattr(datasets, "FOLDER", described)
    monkeypatch.setenv("TINY_ROOT", str(root))
    return root


@pytest.fixture
def tiny(tiny_data):
    """The data set `tiny`."""
    from harness import datasets

    return datasets.load("tiny", tiny_data)


@pytest.fixture
def experiment(experiment_file, tiny_data):
    """The experiment of `experiment_file` on the data set `tiny`."""
    from harness.experiment.schema import Experiment

    return Experiment.load(experiment_file(datasets=["tiny"]))


@pytest.fixture
def interrupted(monkeypatch):
    """In `with interrupted(at):` a training stops before iteration `at`, as by Ctrl-C."""
    from harness.training.trainer import Trainer

    step = Trainer.step

    @contextmanager
    def stopping(at: int):
        def until(self, images, labels, iteration, rate):
            if iteration == at:
                raise KeyboardInterrupt
            return step(self, images, labels, iteration, rate)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Trainer, "step", until)
            yield

    return stopping
