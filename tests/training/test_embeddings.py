import numpy as np
import pytest
import torch

from harness import datasets
from harness.compute.machine import Machine
from harness.statistics.separation import silhouette, unit_rows
from harness.training import embeddings, loop
from harness.training.embeddings import CLASSES, COMPONENTS, IMAGES, NAME, PIXELS, note_embeddings
from harness.training.train import train
from harness.training.trainer import Trainer

pytestmark = pytest.mark.slow


def make_trainer(experiment, arm="contextrast", seed=0):
    return Trainer(experiment.settings(experiment.run("tiny", "hrnet_tiny", arm, seed)), 3, torch.device("cpu"))


def read(folder):
    with np.load(folder / NAME, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_what_is_kept_is_what_the_network_and_the_method_make_of_the_sample(experiment, tiny, tmp_path):
    trainer = make_trainer(experiment)
    note_embeddings(tmp_path, "before", trainer, tiny)
    found = read(tmp_path)
    assert (str(found["kind"]), found["images"].tolist()) == ("embeddings", ["test_0", "test_1", "test_2"])
    assert not any(name.startswith("after") for name in found)

    # All pixels of the crops (32x32 in the middle of 32x48), for the maps are small: every class is there in full
    # where it has no more than PIXELS.
    trainer.network.eval()
    trainer.method.eval()
    vectors, labels = [[], [], [], []], [[], [], [], []]
    with torch.no_grad():
        for sample in tiny.samples("test"):
            image, label = tiny.read(sample)
            image, label = image[:, 8:40], label[:, 8:40]
            features = trainer.network.features(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
            for place, z in enumerate(trainer.method.embed(features)):
                stride = 32 // z.shape[2]
                grid = label[::stride, ::stride]
                vectors[place].append(z[0].permute(1, 2, 0).numpy()[grid != 255])
                labels[place].append(grid[grid != 255])
    whole = []
    for place in range(4):
        z, y = np.concatenate(vectors[place]), np.concatenate(labels[place])
        kept = found[f"before/labels{place + 1}"]
        assert [(kept == n).sum() for n in range(3)] == [min(PIXELS, (y == n).sum()) for n in range(3)]
        points = found[f"before/points{place + 1}"].astype(float)
        assert points.shape == (len(kept), min(COMPONENTS, len(kept)))
        if len(kept) == len(y):
            whole.append(place)
            assert found["before/silhouette"][place] == pytest.approx(silhouette(z, y), abs=1e-6, nan_ok=True)
            # The order within a class is the draw's; the spread along the first axis is not changed by it.
            centred = unit_rows(z) - unit_rows(z).mean(0)
            first = np.linalg.svd(centred, compute_uv=False)[0]
            assert np.square(points[:, 0]).sum() == pytest.approx(first**2, rel=5e-3)
    assert whole[-2:] == [2, 3]
    assert found["before/encoder_silhouette"].shape == (4,)


def test_the_sample_is_the_same_for_every_arm_and_seed_and_a_method_without_embeddings_shows_the_encoder(
    experiment, tiny, tmp_path
):
    found = []
    for arm, seed in (("contextrast", 0), ("contextrast", 1), ("cross_entropy", 0)):
        note_embeddings(tmp_path / f"{arm}{seed}", "before", make_trainer(experiment, arm, seed), tiny)
        found.append(read(tmp_path / f"{arm}{seed}"))
    for other in found[1:]:
        for number in range(1, 5):
            np.testing.assert_array_equal(found[0][f"before/labels{number}"], other[f"before/labels{number}"])
    assert str(found[2]["kind"]) == "features"
    np.testing.assert_array_equal(found[2]["before/silhouette"], found[2]["before/encoder_silhouette"])
    # The network of a seed starts alike for every arm, and the sample is the same: so are the encoder's silhouettes.
    np.testing.assert_array_equal(found[0]["before/encoder_silhouette"], found[2]["before/silhouette"])


def test_embeddings_that_are_no_list_of_maps_are_named(experiment, tiny, tmp_path, monkeypatch):
    trainer = make_trainer(experiment)
    monkeypatch.setattr(trainer.method, "embed", lambda features: features[0])
    with pytest.raises(ValueError, match="embed must return a list of maps"):
        note_embeddings(tmp_path, "before", trainer, tiny)


def test_nothing_of_the_training_changes(experiment, tiny, tmp_path):
    trainer = make_trainer(experiment)
    trainer.network.train()
    trainer.method.train()
    frozen = next(module for module in trainer.network.modules() if isinstance(module, torch.nn.BatchNorm2d))
    frozen.eval()
    modes = [module.training for module in (*trainer.network.modules(), *trainer.method.modules())]
    state = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    state |= {f"method.{name}": tensor.clone() for name, tensor in trainer.method.state_dict().items()}
    draws = torch.get_rng_state()
    note_embeddings(tmp_path, "before", trainer, tiny)
    assert [module.training for module in (*trainer.network.modules(), *trainer.method.modules())] == modes
    assert torch.equal(torch.get_rng_state(), draws)
    now = trainer.network.state_dict() | {f"method.{name}": t for name, t in trainer.method.state_dict().items()}
    assert state.keys() == now.keys()
    assert all(torch.equal(state[name], now[name]) for name in state)


def test_a_run_ends_in_the_same_bits_without_it(experiment, tmp_path, monkeypatch):
    run, hashes = experiment.run("tiny", "hrnet_tiny", "contextrast", 0), []
    for name in ("with", "without"):
        if name == "without":
            monkeypatch.setattr(loop, "note_embeddings", lambda *_: None)
        machine = Machine("cpu", threads=1)
        record = train(experiment, run, tmp_path / name, machine, root=datasets.resolve_root("tiny"))
        hashes.append(record.weights_hash)
        assert (run.folder(tmp_path / name) / NAME).exists() == (name == "with")
    assert hashes[0] == hashes[1]
    found = read(run.folder(tmp_path / "with"))
    assert (found["before/points1"] != found["after/points1"]).any()


def test_after_a_damaged_or_missing_file_there_is_no_before(experiment, tiny, tmp_path):
    trainer = make_trainer(experiment)
    for content in (b"", b"PK\x03\x04 and no more", None):
        (tmp_path / NAME).unlink(missing_ok=True)
        if content is not None:
            (tmp_path / NAME).write_bytes(content)
        note_embeddings(tmp_path, "after", trainer, tiny)
        assert {name.partition("/")[0] for name in read(tmp_path)} == {"kind", "images", "after"}


def test_numbers_that_are_not_finite_are_no_end_of_a_run(experiment, tiny, tmp_path):
    trainer = make_trainer(experiment)
    with torch.no_grad():
        for parameter in trainer.network.parameters():
            parameter.fill_(float("nan"))
    note_embeddings(tmp_path, "before", trainer, tiny)
    found = read(tmp_path)
    assert len(found["before/labels1"]) == 0
    assert np.isnan(found["before/silhouette"]).all()


def test_pixels_are_drawn_evenly_without_replacement_and_never_ignored_ones():
    times = np.zeros((3, 20, 20))
    for start in range(300):
        draw = embeddings._Draw()
        for place in range(3):
            label = np.zeros((40, 40), np.uint8)
            label[20:] = 1
            label[:, 30:] = 255
            position = torch.arange(400.0).view(1, 20, 20) + 400 * place
            draw.add(3 * start + place, position, label)
        vectors, labels = draw.drawn()
        assert len(np.unique(vectors)) == len(vectors) == 2 * PIXELS
        assert labels.tolist() == [0] * PIXELS + [1] * PIXELS
        times += np.bincount(vectors[:, 0].astype(int), minlength=1200).reshape(3, 20, 20)
    assert times[:, :, 15:].sum() == 0
    assert times[:, :10].sum() == times[:, 10:].sum() == 300 * PIXELS
    drawn = times[:, :, :15]  # 900 places, 20 times each on average, standard deviation 4.3
    assert drawn.mean() == pytest.approx(20)
    assert 15 < drawn.var() < 23


def test_only_the_commonest_classes_are_taken_where_there_are_many(monkeypatch):
    class Many:
        evaluation_split = "test"

        def samples(self, split):
            from types import SimpleNamespace

            return [SimpleNamespace(id=str(index)) for index in range(100)]

        def read(self, sample):
            label = np.repeat(np.arange(30), np.arange(30) + 1).astype(np.uint8)[None]  # class n has n + 1 pixels
            return np.zeros((*label.shape, 3), np.uint8), label

    crops, ids = embeddings._crops(Many(), (10, 10_000))
    assert ids == [str(index * 100 // IMAGES) for index in range(IMAGES)]
    assert sorted(set(np.unique(crops[0][1])) - {255}) == list(range(30 - CLASSES, 30))
