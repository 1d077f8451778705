"""docs/other-frameworks.md: its detectron2 commands are followed as far as this environment allows."""

import ast
import re
import shlex

import pytest
import yaml

from harness import datasets, models


@pytest.fixture
def page(repository):
    return (repository / "docs" / "other-frameworks.md").read_text(encoding="utf-8")


@pytest.fixture
def options(page):
    """{key: value} of the page's DeepLab command."""
    (command,) = re.findall(r"python deeplab_bench\.py .*?(?=\npython)", page, re.DOTALL)
    words = shlex.split(command.replace("\\\n", " "))
    keys = [place for place, word in enumerate(words) if re.fullmatch(r"[A-Z_.]+", word)]
    return {words[place]: words[place + 1] for place in keys}


def configured(repository, options):
    """detectron2's configuration after the page's command, its file read from the installed package's projects."""
    try:
        import detectron2.projects.deeplab as deeplab
        from detectron2.config import get_cfg
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"detectron2 does not import here: {error}")
    config = get_cfg()
    deeplab.add_deeplab_config(config)
    example = repository / "harness" / "interop" / "models" / "detectron2_deeplab_v3_plus_r103.yaml"
    from detectron2.config import CfgNode

    config.merge_from_other_cfg(CfgNode(yaml.safe_load(example.read_text())["overrides"]))
    config.merge_from_list([part for pair in options.items() for part in pair])
    return config


def test_the_code_is_python_and_names_what_is_here(page, repository):
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness."):
                path = repository / f"{node.module.replace('.', '/')}.py"
                defined = {each.name for each in ast.parse(path.read_text()).body if hasattr(each, "name")}
                assert {alias.name for alias in node.names} <= defined


def test_the_crop_fits_the_heads_stride_and_the_test_images(options):
    height, width = ast.literal_eval(options["INPUT.CROP.SIZE"])
    assert (height % 16, width % 16) == (0, 0)
    assert (-(-int(options["INPUT.MIN_SIZE_TEST"]) // 16), -(-int(options["INPUT.MAX_SIZE_TEST"]) // 16)) == (
        height // 16,
        width // 16,
    )


def test_the_data_sets_of_the_command_are_registered_under_these_names(options):
    for key, split in (("DATASETS.TRAIN", "train"), ("DATASETS.TEST", "test")):
        assert ast.literal_eval(options[key]) == (f"contextrast_bench_camvid_{split}",)
    assert int(options["MODEL.SEM_SEG_HEAD.NUM_CLASSES"]) == len(datasets.load("camvid").classes)


@pytest.mark.slow
def test_the_command_builds_a_network_that_takes_the_crop_and_the_test_image(options, repository):
    config = configured(repository, options)
    import torch
    from detectron2.modeling import build_model

    config.MODEL.DEVICE = "cpu"
    for part in (config.MODEL.RESNETS, config.MODEL.SEM_SEG_HEAD):
        part.NORM = "BN"
    config.INPUT.CROP.ENABLED, config.INPUT.CROP.TYPE = True, "absolute"
    config.MODEL.RESNETS.RES5_DILATION = 2
    network = build_model(config).eval()
    for size in (ast.literal_eval(options["INPUT.CROP.SIZE"]), (360, 480)):
        with torch.no_grad():
            (found,) = network([{"image": torch.zeros(3, *size)}])
        assert found["sem_seg"].shape == (11, *size)


def test_the_examples_are_models_of_the_folder_that_the_page_names(page, repository, monkeypatch):
    folder = re.search(r"export CONTEXTRAST_BENCH_MODELS=(\S+)", page)
    monkeypatch.setenv("CONTEXTRAST_BENCH_MODELS", str(repository / folder[1]))
    named = re.search(r"--model (detectron2_\w+)", page)[1]
    assert models.load_spec(named).source == "detectron2"


def test_the_conda_environment_has_what_the_page_says(repository):
    environment = yaml.safe_load((repository / "environment-detectron2.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    assert environment["name"] != yaml.safe_load((repository / "environment.yml").read_text())["name"]
    names = {re.split(r"[=<>]", each)[0] for each in environment["dependencies"]}
    assert {"detectron2", "pytorch", "numpy", "scipy", "py-opencv", "pillow", "pydantic", "pyyaml", "rich"} <= names
