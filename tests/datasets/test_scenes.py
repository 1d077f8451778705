from collections import Counter

import cv2
import numpy as np
import pytest

from harness.datasets.scenes import files, render, weather, weather_of, write
from harness.datasets.scenes.canvas import Camera, Canvas
from harness.errors import UserError

# Share of CamVid's labelled training pixels in per cent, ids 0..10: data set card of the SegNet release, 367 pictures.
CAMVID = (17.5, 24.2, 1.02, 33.0, 4.67, 10.1, 1.22, 1.17, 6.11, 0.67, 0.30)
FACTOR = 1.6
SKY, BUILDING, ROAD, CAR, VOID = 0, 1, 3, 8, 11

Scenes = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def train():
    return [render(0, "train", index) for index in range(60)]


@pytest.fixture(scope="module")
def test():
    return [render(0, "test", index) for index in range(60)]


@pytest.fixture
def camera():
    return Camera(height=120, width=160, focal=150.0, horizon=55.0, x=-1.7, y=1.4, yaw=0.08)


def test_a_scene_is_the_same_every_time_whatever_was_drawn_before():
    first = render(3, "train", 7)
    np.random.seed(1)  # noqa: NPY002 - the global generator must not matter
    render(4, "test", 2)
    cv2.setRNGSeed(5)
    second = render(3, "train", 7)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("other", [(4, "train", 7), (3, "val", 7), (3, "test", 7), (3, "train", 8)])
def test_seed_split_and_index_each_give_another_scene(other):
    image, label = render(3, "train", 7, 48, 64)
    other_image, other_label = render(*other, 48, 64)
    assert (image != other_image).mean() > 0.5
    assert (label != other_label).mean() > 0.05


@pytest.mark.slow
def test_images_and_labels_have_the_promised_type_and_ids(train, test):
    for image, label in train + test:
        assert image.shape == (144, 192, 3) and image.dtype == np.uint8
        assert label.shape == (144, 192) and label.dtype == np.uint8
        assert label.max() <= VOID


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_class_shares_are_near_camvids(split, request):
    pixels = np.bincount(np.concatenate([label.ravel() for _, label in request.getfixturevalue(split)]), minlength=12)
    shares = 100 * pixels[:VOID] / pixels[:VOID].sum()
    ratios = shares / CAMVID
    assert ratios.min() > 1 / FACTOR and ratios.max() < FACTOR, ratios.round(2)
    assert 2.0 < 100 * pixels[VOID] / pixels.sum() < 6.0


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_class_is_in_many_pictures(split, request):
    present = np.array([np.bincount(label.ravel(), minlength=12) > 0 for _, label in request.getfixturevalue(split)])
    assert present.mean(axis=0).min() > 0.2


@pytest.mark.slow
def test_labels_fit_the_image_better_than_when_they_are_moved(train):
    # Where sky meets building the image has an edge; three pixels aside it has none.
    def contrast_at_borders(shift):
        steps = []
        for image, label in train:
            grey = image.astype(float).mean(axis=2)
            step = np.abs(grey[1:] - grey[:-1])
            border = (label[:-1] == SKY) & (label[1:] == BUILDING)
            steps.append(step[np.roll(border, shift, axis=0)])
        return float(np.concatenate(steps).mean())

    on, above, below = contrast_at_borders(0), contrast_at_borders(-4), contrast_at_borders(4)
    assert on > 2.5 * max(above, below), (above, on, below)


def test_training_never_shows_the_held_out_weather():
    for split in ("train", "val"):
        seen = {weather_of(0, split, index) for index in range(300)}
        assert seen == set(weather.TRAIN_WEATHER)


def test_the_test_split_shows_all_weather_and_the_promised_share_of_the_held_out():
    seen = Counter(weather_of(0, "test", index) for index in range(400))
    assert set(seen) == set(weather.TRAIN_WEATHER) | set(weather.HELD_OUT_WEATHER)
    held_out = sum(seen[name] for name in weather.HELD_OUT_WEATHER) / 400
    deviation = np.sqrt(weather.HELD_OUT_SHARE * (1 - weather.HELD_OUT_SHARE) / 400)
    assert abs(held_out - weather.HELD_OUT_SHARE) < 4 * deviation


@pytest.mark.slow
def test_held_out_weather_looks_unlike_training(train, test):
    by_name = {}
    for index, (image, _) in enumerate(test):
        by_name.setdefault(weather_of(0, "test", index), []).append(image.astype(float))
    seen = [image.astype(float) for image, _ in train]

    def brightness(images):
        return float(np.mean(images))

    def contrast(images):
        return float(np.mean([image[40:100].mean(axis=2).std() for image in images]))

    def warmth(images):
        return float(np.mean([(image[..., 0] - image[..., 2]).mean() for image in images]))

    assert brightness(by_name["dusk"]) < 0.6 * brightness(seen)
    assert contrast(by_name["fog"]) < 0.8 * contrast(seen)
    assert brightness(by_name["rain"]) < 0.85 * brightness(seen)
    assert warmth(by_name["glare"]) > warmth(seen) + 10
    assert 0.75 < brightness(by_name["sunny"] + by_name["overcast"] + by_name["hazy"]) / brightness(seen) < 1.25


def test_a_scene_does_not_depend_on_its_size():
    agreement = []
    for index in range(4):
        small, large = render(0, "train", index, 96, 128)[1], render(0, "train", index, 192, 256)[1]
        agreement.append((small == large[::2, ::2]).mean())
    assert min(agreement) > 0.85 and np.mean(agreement) > 0.92, agreement


@pytest.mark.parametrize("size", [(16, 16), (45, 61), (60, 240), (240, 60)])
def test_any_size_works_in_any_weather(size):
    names = set()
    for index in range(60):
        if weather_of(1, "test", index) in names:
            continue
        names.add(weather_of(1, "test", index))
        image, label = render(1, "test", index, *size)
        assert image.shape == (*size, 3) and label.shape == size
        assert {ROAD, SKY} & set(np.unique(label))
    assert len(names) == 7


def test_ground_and_projection_are_inverse(camera):
    first, x, z, nearness = camera.ground()
    for row, column in ((0, 3), (20, 150), (63, 80)):
        point = np.array([[x[row, column], 0.0, z[row, column]]])
        across, down, depth = camera.homogeneous(point)[0]
        assert across / depth == pytest.approx(column + 0.5, abs=1e-3)
        assert down / depth == pytest.approx(first + row + 0.5, abs=1e-3)
        assert nearness[row, column] == pytest.approx(1 / depth, rel=1e-4)


def test_a_panel_covers_its_polygon_with_the_depth_of_its_plane(camera):
    canvas = Canvas(camera)
    texture = np.full((4, 6, 3), 90, np.uint8)
    # The plane x = 2 to the right of the camera, from z = 5 to 25, 3 m high.
    canvas.panel(texture, np.array([2.0, 0.0, 5.0]), np.array([0.0, 0.0, 20.0]), np.array([0.0, 3.0, 0.0]), BUILDING)
    rows, columns = np.nonzero(canvas.label == BUILDING)
    assert len(rows) > 500
    assert (canvas.image[rows, columns] == 90).all()
    sin, cos = np.sin(0.08), np.cos(0.08)
    for row, column in list(zip(rows, columns, strict=True))[::97]:
        # The ray through the pixel's corner, in the camera's frame (aside, 1), turned by the yaw, meets x = 2.
        aside = (column - 80) / 150
        depth = (2.0 + 1.7) / (cos * aside + sin)
        assert canvas.nearness[row, column] == pytest.approx(1 / depth, rel=1e-3)


def test_written_folder_has_camvids_layout_and_the_rendered_pixels(tmp_path):
    root = tmp_path / "deep" / "scenes"
    write(root, 5, {"train": 2, "val": 1, "test": 1}, 24, 32)
    assert sorted(path.name for path in root.iterdir()) == sorted(
        ["train", "trainannot", "train.txt", "val", "valannot", "val.txt", "test", "testannot", "test.txt"]
    )
    assert (root / "train.txt").read_text() == (
        "train/train_00000.png trainannot/train_00000.png\ntrain/train_00001.png trainannot/train_00001.png\n"
    )
    image, label = render(5, "train", 1, 24, 32)
    read = cv2.imread(str(root / "train" / "train_00001.png"), cv2.IMREAD_COLOR)
    assert read is not None
    np.testing.assert_array_equal(read[..., ::-1], image)
    read_label = cv2.imread(str(root / "trainannot" / "train_00001.png"), cv2.IMREAD_UNCHANGED)
    assert read_label is not None and read_label.ndim == 2
    np.testing.assert_array_equal(read_label, label)
    assert [path.name for path in root.parent.iterdir()] == ["scenes"]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail_at_the_second(seed, split, index, height, width):
        if index == 1:
            raise RuntimeError("disk on fire")
        return render(seed, split, index, height, width)

    monkeypatch.setattr(files, "render", fail_at_the_second)
    with pytest.raises(RuntimeError, match="disk on fire"):
        write(tmp_path / "scenes", 0, {"train": 3}, 24, 32)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_process_finished_meanwhile_is_kept(tmp_path, monkeypatch):
    root = tmp_path / "scenes"

    def while_another_finishes(*scene):
        root.mkdir()
        (root / "theirs").touch()
        return render(0, "train", 0, 24, 32)

    monkeypatch.setattr(files, "render", while_another_finishes)
    write(root, 0, {"train": 1}, 24, 32)
    assert [path.name for path in root.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [root]


def test_a_file_in_the_way_and_an_unknown_split_are_users_mistakes(tmp_path):
    (tmp_path / "scenes").touch()
    with pytest.raises(UserError, match="scenes is a file"):
        write(tmp_path / "scenes", 0, {"train": 1}, 24, 32)
    with pytest.raises(UserError, match="holdout"):
        write(tmp_path / "other", 0, {"holdout": 1}, 24, 32)
    assert not (tmp_path / "other").exists()
