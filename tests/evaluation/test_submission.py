import re

import cv2
import numpy as np
import pytest

from harness import datasets
from harness.compute.machine import Machine
from harness.datasets.images import read_label
from harness.errors import UserError
from harness.experiment.run import Run
from harness.runs.record import Record

CITYSCAPES_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]  # of labels.py
SIZE = (32, 48)
CPU = Machine("cpu")


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8))


def label(path, values, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).choice(np.array(values, np.uint8), SIZE))


@pytest.fixture
def cityscapes_root(tmp_path):
    root = tmp_path / "cityscapes"
    for number in range(2):
        name = f"val/frankfurt/frankfurt_000000_00000{number}"
        picture(root / "leftImg8bit" / f"{name}_leftImg8bit.png", number)
        label(root / "gtFine" / f"{name}_gtFine_labelIds.png", [0, *CITYSCAPES_IDS], number)
        picture(root / f"leftImg8bit/test/berlin/berlin_000000_00000{number}_leftImg8bit.png", 7 + number)
    return root


@pytest.fixture
def ade20k_root(tmp_path):
    root = tmp_path / "ADEChallengeData2016"
    for number in (1, 2):
        picture(root / f"images/validation/ADE_val_0000000{number}.jpg", number)
        label(root / f"annotations/validation/ADE_val_0000000{number}.png", range(151), number)
    return tmp_path


@pytest.fixture
def make_run(tmp_path):
    """A run's folder as training leaves it, with a network whose random weights see many classes."""

    def make(dataset, root, status="done", weights=True, **schedule):
        folder = tmp_path / "run"
        settings = {"schedule": {"iterations": 1, "batch": 1, "crop": [24, 36], "learning_rate": 0.1} | schedule}
        known = {"key": Run("e", dataset, "hrnet_tiny", "a", 0), "method": "cross_entropy", "settings": settings}
        training = Record(**known, status=status, root=str(root), protocols=["whole"])
        if weights:
            import torch
            from safetensors.torch import save_file

            from harness import models
            from harness.models.segmenter import state_hash
            from harness.runs.record import inference_weights

            torch.manual_seed(0)
            network = models.build("hrnet_tiny", datasets.load(dataset).num_classes, weights="none")
            torch.nn.init.normal_(network.decode_head.conv_seg.weight)
            inference_weights(folder).parent.mkdir(parents=True)
            state = {name: each.contiguous() for name, each in network.inference_state().items()}
            save_file(state, inference_weights(folder))
            training = training.but(weights_hash=state_hash(state))
        training.save(folder / "training.json")
        return folder

    return make


def write_predictions(*arguments, **options):
    from harness.evaluation.submission import write_predictions as write

    return write(*arguments, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "form", "protocol", "encoding", "pattern", "values"),
    [
        ("tiny", "train_ids", "whole", "train_ids", r"test_\d\.png", range(3)),
        # What the server's script looks for.
        ("cityscapes", "cityscapes", "whole", "raw_ids", r"frankfurt_\d{6}_\d{6}.*\.png", CITYSCAPES_IDS),
        ("cityscapes", "train_ids", "ms_flip", "train_ids", r"frankfurt_\d{6}_\d{6}.*\.png", range(19)),
        ("ade20k", "ade20k", "whole", "raw_ids", r"ADE_val_\d{8}\.png", range(1, 151)),
    ],
)
def test_what_is_written_is_read_back_with_the_scores_of_the_record(
    request, make_run, tmp_path, name, form, protocol, encoding, pattern, values
):
    from harness.evaluation.evaluate import evaluate
    from harness.evaluation.external_predictions import score_predictions

    root = request.getfixturevalue("tiny_data" if name == "tiny" else f"{name}_root")
    folder, dataset = make_run(name, root), datasets.load(name, root)
    record = evaluate(folder, CPU, protocols=[protocol])
    split = dataset.evaluation_split
    out = write_predictions(folder, CPU, split=split, form=form, protocol=protocol)
    assert out == folder / "submissions" / f"{split}-{form}-{protocol}"
    written = {path.name: read_label(path) for path in out.iterdir()}
    assert all(re.fullmatch(pattern, each) for each in written)
    assert all(labels.shape == SIZE for labels in written.values())
    found = np.unique(np.stack(list(written.values())))
    assert len(found) > 1
    assert set(found) <= set(values)
    again = score_predictions(out, dataset, encoding=encoding)
    assert again["scores"] == record.scores[protocol]
    assert again["per_class"] == record.per_class[protocol]


@pytest.mark.slow
def test_images_are_tested_in_the_box_that_they_were_trained_in(tiny_data, make_run):
    from harness.evaluation.evaluate import evaluate, load_network
    from harness.evaluation.record import map_path
    from harness.models.inference import predict

    folder = make_run("tiny", tiny_data, fit=[24, 20])
    evaluate(folder, CPU, protocols=["whole"])
    written = write_predictions(folder, CPU, split="test", form="train_ids", protocol="whole", root=tiny_data)
    dataset = datasets.load("tiny", tiny_data)
    network = load_network(folder, "hrnet_tiny", 3, CPU.use())
    for sample in dataset.samples("test"):
        image, _ = dataset.read(sample)
        boxed, whole = (predict(network, image, "whole", fit=box) for box in ((24, 20), None))
        assert (boxed != whole).any()
        np.testing.assert_array_equal(read_label(map_path(folder, "whole", sample.id)), boxed)
        np.testing.assert_array_equal(read_label(written / f"{sample.id.split('/')[-1]}.png"), boxed)


def test_a_split_without_labels_is_predicted_by_its_images(cityscapes_root, make_run, tmp_path):
    from harness.datasets.images import read_image
    from harness.evaluation.evaluate import load_network
    from harness.models.inference import predict

    folder = make_run("cityscapes", cityscapes_root)
    out = write_predictions(folder, CPU, split="test", form="cityscapes")
    network = load_network(folder, "hrnet_tiny", 19, CPU.use())
    images = sorted((cityscapes_root / "leftImg8bit/test/berlin").iterdir())
    assert sorted(path.name for path in out.iterdir()) == [path.name for path in images]
    for path in images:
        expected = np.array(CITYSCAPES_IDS)[predict(network, read_image(path), "whole")]
        assert (read_label(out / path.name) == expected).all()
    elsewhere = write_predictions(
        folder,
        CPU,
        split="test",
        form="cityscapes",
        out=tmp_path / "elsewhere",
        images=cityscapes_root / "leftImg8bit/test",
    )
    for path in out.iterdir():
        assert (elsewhere / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_an_interrupted_call_leaves_nothing(tiny_data, make_run, monkeypatch):
    from harness.evaluation import submission

    folder, predicted = make_run("tiny", tiny_data), submission.predicted

    def stopping(*arguments):
        yield next(predicted(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(submission, "predicted", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_predictions(folder, CPU, split="test", form="train_ids")
    assert list((folder / "submissions").iterdir()) == []
    monkeypatch.setattr(submission, "predicted", predicted)
    assert len(list(write_predictions(folder, CPU, split="test", form="train_ids").iterdir())) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"form": "cityscape"}, "did you mean cityscapes"),
        ({"form": "cityscapes"}, "the server of cityscapes, but this run is of tiny"),
        ({"form": "ade20k"}, "the server of ade20k, but this run is of tiny"),
        ({"protocol": "hole"}, "did you mean whole"),
        ({"split": "tset"}, "did you mean test"),
        ({"split": "../.."}, "names a folder"),
        ({"images": "nowhere"}, r"nowhere holds no image .*--images"),
        ({"out": "full"}, r"full exists already.*--out"),
        ({"status": "diverged"}, "ended as diverged"),
        ({}, r"inference\.safetensors is missing"),
    ],
)
def test_what_cannot_be_predicted_is_said_in_one_sentence(tiny_data, make_run, tmp_path, options, words):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.png").write_text("kept")
    asked = {"split": "test", "form": "train_ids"} | options
    folder = make_run("tiny", tiny_data, asked.pop("status", "done"), weights=False)
    asked |= {key: tmp_path / asked[key] for key in ("images", "out") if key in asked}
    with pytest.raises(UserError, match=words):
        write_predictions(folder, CPU, **asked)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["a.png"]
    assert sorted(path.name for path in folder.iterdir()) == ["training.json"]


def test_a_split_without_labels_whose_images_are_missing_is_named(cityscapes_root, make_run):
    folder = make_run("cityscapes", cityscapes_root, weights=False)
    with pytest.raises(UserError, match=r"no image of the split tset.*--images DIR"):
        write_predictions(folder, CPU, split="tset", form="cityscapes")


def test_two_images_of_one_name_are_refused(tiny_data, make_run, tmp_path):
    for folder in ("one", "two"):
        picture(tmp_path / "images" / folder / "a.png", 0)
    with pytest.raises(UserError, match=r"one/a\.png and .*two/a\.png would be written to one file"):
        write_predictions(
            make_run("tiny", tiny_data, weights=False), CPU, split="x", form="train_ids", images=tmp_path / "images"
        )


def test_a_damaged_image_is_not_predicted(tiny_data, make_run, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    content = bytearray(cv2.imencode(".jpg", noise)[1].tobytes())
    content[len(content) // 2 : len(content) // 2 + 500] = bytes(500)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.jpg is damaged"):
        write_predictions(
            make_run("tiny", tiny_data),
            CPU,
            split="x",
            form="train_ids",
            images=tmp_path / "images",
            out=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()
