"""The page's examples: for every chosen image what one arm predicts, and where it is wrong, at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.datasets.pictures import Pixels, errors, framed, painted, png
from harness.evaluation.groups import display_name
from harness.reporting.examples.choice import Example, Examples
from harness.reporting.page.content import data_uri

WIDEST = 640  # pixels of a picture


@dataclass(frozen=True)
class Picture:
    """A picture with its caption; `arm` is the key of the arm it belongs to, if any; `hidden`: not shown at first."""

    source: str
    caption: str
    arm: str = ""
    hidden: bool = False


@dataclass(frozen=True)
class GalleryRow:
    """One image and its pictures."""

    title: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Gallery:
    """The examples of a data set and a model; `arms` are (key, name), the first one shown at first."""

    key: str
    title: str
    note: str
    arms: list[tuple[str, str]]
    rows: list[GalleryRow]


def gallery(examples: Examples, key: str) -> Gallery:
    """The pictures of `examples`, as data URIs; `key` is the gallery's id in the document."""
    arms = [(f"arm-{number}", arm.arm) for number, arm in enumerate(examples.arms)]
    names = [(f"arm-{number}", f"{display_name(arm.arm)}, seed {arm.seed}") for number, arm in enumerate(examples.arms)]
    note = (
        f"{examples.rule} The frame is the window of a quarter of height and width where the arms compared differ most "
        "in what they get right; it is shown larger beside each picture. Grey stripes: ignored pixels."
        + (f" Not shown: {'; '.join(examples.absent)}." if examples.absent else "")
    )
    rows = [GalleryRow(f"{each.id} ({each.why})", _pictures(examples, each, arms)) for each in examples.chosen]
    return Gallery(key, f"{examples.dataset.name}, {examples.model}", note, names, rows)


def _pictures(examples: Examples, each: Example, arms: Sequence[tuple[str, str]]) -> list[Picture]:
    truth = painted(each.label, examples.dataset)
    found = [
        Picture(_whole(each.image, each), "Image"),
        Picture(_part(each.image, each), "Image, window"),
        Picture(_whole(truth, each), "Ground truth"),
        Picture(_part(truth, each), "Ground truth, window"),
    ]
    for number, (key, arm) in enumerate(arms):
        prediction = each.predictions[arm]
        colored, wrong = painted(prediction, examples.dataset), errors(each.image, prediction, each.label)
        name, score = display_name(arm), f"mIoU {each.scores[arm]:.1f}"
        for source, caption in (
            (_whole(colored, each), f"{name}: prediction, {score}"),
            (_part(colored, each), f"{name}: prediction, window"),
            (_whole(wrong, each), f"{name}: errors"),
            (_part(wrong, each), f"{name}: errors, window"),
        ):
            found.append(Picture(source, caption, key, number > 0))
    return found


def _whole(picture: Pixels, each: Example) -> str:
    return data_uri(png(framed(picture, each.window), WIDEST))


def _part(picture: Pixels, each: Example) -> str:
    return data_uri(png(picture[each.window], WIDEST))
