"""Nothing that is read can run code, and nothing that a configuration names is written outside the results folder."""

import ast

import pytest
import yaml

from harness import datasets, models
from harness.config import UniqueKeys
from harness.datasets.spec import read_specs
from harness.errors import UserError
from harness.experiment.schema import Experiment, discovery

SAFE_LOADERS = ("UniqueKeys",)  # what stands for Loader= in our own calls; see the test below
MODULES = ("pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")


def dangers(source: str) -> list[str]:
    """The calls in a Python source that could run what a file holds, as "LINE CALL"."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and any("Unpickler" in ast.unparse(base) for base in node.bases):
            # One that chooses what it knows is safe; test_weights.py shows that ours runs nothing.
            chooses = any(isinstance(each, ast.FunctionDef) and each.name == "find_class" for each in node.body)
            found += [] if chooses else [f"{node.lineno} {node.name}"]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        module, _, function = name.rpartition(".")
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if (
            (name in ("eval", "exec", "compile", "__import__"))
            or (module in MODULES)
            or (name in ("os.system", "os.popen"))
            or (module == "subprocess" and given.get("shell", "False") != "False")
            or (name == "torch.load" and given.get("weights_only") != "True")
            or (name == "torch.jit.load")
            or (module in ("yaml", "ruamel.yaml") and function in ("unsafe_load", "full_load", "unsafe_load_all"))
            or (name in ("yaml.load", "yaml.load_all") and given.get("Loader") not in SAFE_LOADERS)
            or (module in ("np", "numpy") and given.get("allow_pickle", "False") != "False")
            or (function == "read_pickle" or name == "Unpickler")
        ):
            found.append(f"{node.lineno} {ast.unparse(node)}")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.load(text)",
        "yaml.full_load(text)",
        "pickle.loads(data)",
        "Unpickler(file).load()",
        "type(path)\n\nclass Reader(pickle.Unpickler):\n    pass",
        "eval(text)",
        "exec(text)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(command, shell=True)",
        "os.system(command)",
        "pandas.read_pickle(path)",
    ],
)
def test_a_danger_would_be_found(source):
    assert dangers(f"def read(path):\n    return {source}\n")


def test_no_source_loads_what_could_run(repository):
    sources = [path for folder in ("harness", "methods") for path in (repository / folder).rglob("*.py")]
    assert len(sources) > 50
    found = {str(path.relative_to(repository)): dangers(path.read_text(encoding="utf-8")) for path in sources}
    # A method is code of this project, which training imports; its class `Options` alone is executed to read options.
    (call, inner) = found.pop("harness/experiment/discovery.py")
    assert inner.partition(" ")[2] in call and "compile(ast.Module([statement], []), " in call
    assert {path: calls for path, calls in found.items() if calls} == {}


def test_only_the_class_of_options_of_a_methods_file_is_executed(tmp_path, monkeypatch):
    marker = tmp_path / "ran"
    (tmp_path / "mine.py").write_text(
        f"import pathlib\nfrom dataclasses import dataclass\npathlib.Path({str(marker)!r}).touch()\n"
        f"WHEN = pathlib.Path({str(marker)!r}).touch()\n"
        f"class Mine(Method):\n    pathlib.Path({str(marker)!r}).touch()\n"
        "    @dataclass(frozen=True, kw_only=True)\n    class Options(Method.Options):\n        a: int = 1\n"
    )
    monkeypatch.setattr(discovery, "FOLDER", tmp_path)
    assert discovery.options("mine") == {"a": 1}
    assert not marker.exists()


def test_the_loader_of_yaml_is_a_safe_one():
    assert issubclass(UniqueKeys, yaml.constructor.SafeConstructor)


def test_an_experiment_file_that_names_code_is_refused_without_running_it(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "code.yaml"
    path.write_text(f"arms: !!python/object/apply:os.system ['touch {marker}']\n")
    with pytest.raises(UserError, match="not valid YAML"):
        Experiment.load(path)
    assert not marker.exists()


BAD_NAMES = ["..", "../up", "/tmp/up", "a/b", ".hidden", "a\x00b", "a\nb", "", "~", "a\\b", "a*"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_an_arms_name_cannot_leave_the_results_folder(experiment_file, name):
    arms = {"cross_entropy": {}, name: {"method": "contextrast"}}
    with pytest.raises(UserError):
        Experiment.load(experiment_file(arms=arms))


@pytest.mark.parametrize("stem", ["..", ".hidden", "a b"])
def test_an_experiments_name_cannot_leave_the_results_folder(experiment_file, stem):
    with pytest.raises(UserError):
        Experiment.load(experiment_file(stem))


@pytest.mark.parametrize("option", ["--arm", "--experiment", "--model", "--dataset"])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_on_the_command_line_cannot_leave_the_results_folder(tmp_path, monkeypatch, capsys, option, name):
    from harness import cli

    before = sorted(tmp_path.rglob("*"))
    given = {"--dataset": "scenes", "--arm": "ours", "--predictions": tmp_path / "none", "--results": tmp_path / "out"}
    given[option] = name
    arguments = [f"{key}={value}" for key, value in given.items()]
    monkeypatch.setattr("harness.datasets.prepare", lambda dataset: None)
    monkeypatch.setattr("sys.argv", ["harness", "score", *arguments])
    assert cli.main() == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_image_list_cannot_write_predictions_outside_the_runs_folder(tiny_data, tmp_path):
    """An image's id, by which its label map is named, never holds a separator, whatever the list of a split says."""
    from harness import datasets

    (tmp_path / "outside.png").write_bytes((tiny_data / "test" / "test_0.png").read_bytes())
    (tiny_data / "test.txt").write_text("../outside.png testannot/test_0.png\n")
    try:
        samples = datasets.load("tiny", tiny_data).samples("test")
    except UserError:
        return
    assert all("/" not in sample.id and ".." not in sample.id for sample in samples)


def test_starting_over_does_not_empty_a_folder_behind_a_link(tmp_path):
    from harness.runs.external_arms import claim

    outside, folder = tmp_path / "outside", tmp_path / "results" / "seed0"
    outside.mkdir()
    (outside / "keep").touch()
    folder.parent.mkdir()
    folder.symlink_to(outside)
    with pytest.raises(UserError, match="is a link"):
        claim(folder, {}, restart=True)
    assert (outside / "keep").exists()


def test_a_data_set_refuses_a_key_that_appears_twice(tmp_path):
    path = tmp_path / "camvid.yaml"
    path.write_text((datasets.FOLDER / "camvid.yaml").read_text() + "evaluation_split: train\n")
    with pytest.raises(UserError, match=r"camvid\.yaml.*'evaluation_split' appears twice"):
        read_specs(path)


def test_a_model_refuses_a_key_that_appears_twice(tmp_path, monkeypatch):
    text = (models.FOLDER / "hrnet_tiny.yaml").read_text()
    (tmp_path / "hrnet_tiny.yaml").write_text(text + "taps: {channels: [1], strides: [1]}\n")
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=r"hrnet_tiny\.yaml.*'taps' appears twice"):
        models.load_spec("hrnet_tiny")
