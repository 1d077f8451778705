"""The usual mistakes with labels, told from the values that label files hold and from the pixels that classes have.

Each function returns what the evidence fits, or nothing: what cannot be told from the data at hand is not guessed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np

WIDESPREAD = 0.5  # share of the label files
ENOUGH = 20  # label files
FAR, NEAR = 0.3, 0.1  # distances of shares
VOID_NAMES = frozenset({"void", "unlabeled", "unlabelled", "ignore", "ignored"})
SCARCEST = 0.01  # share of the pixels that sky, trees and buildings each have at least, in any mix of outdoor pictures
CLEARLY = 3.0  # times
COCO_STUFF_NAMES = {"10k": re.compile(r"COCO_train2014_\d{12}"), "164k": re.compile(r"\d{12}")}


def explain_values(
    files: Sequence[AbstractSet[int]],
    classes: AbstractSet[int],
    ignored: AbstractSet[int],
    others: Mapping[str, AbstractSet[int]],
) -> str:
    """Why label files hold values that they may not: a clause that says what to do, or "" if nothing fits.

    files: the values, 0..255, of each label file; the more of a split, the surer.
    classes, ignored: the values that stand for classes and for ignored pixels.
    others: the values that the data set's labels hold in other layouts, by what these values are.

    Labels hold other values, such as raw ids, if all fit these and at least two do not fit here. They are shifted by
    one if all are allowed after adding or subtracting 1 modulo 256 (255 is the neighbour of 0, as in mmsegmentation's
    reduce_zero_label), and hold void as a class if the only wrong value is one past the last class. A few files that
    were damaged or added say nothing about the others: wrong values must be in half of the files, or else a rare last
    class is what stands out, and the lowest value, or all ignored ones in twenty files or more, must be missing.
    """
    allowed = classes | ignored
    found = frozenset[int]().union(*files)
    wrong = found - allowed
    if not wrong:
        return ""
    widespread = sum(bool(values - allowed) for values in files) >= WIDESPREAD * len(files)
    none_ignored = bool(ignored) and not found & ignored and len(files) >= ENOUGH
    fits: list[str] = []
    if widespread and len(wrong) > 1:
        fits += [f"the labels hold {name}" for name, values in others.items() if found <= values]
    if not fits:
        if (widespread or none_ignored or min(allowed) not in found) and {
            (value - 1) % 256 for value in found
        } <= allowed:
            fits.append("all labels fit when 1 is subtracted, so they are shifted by one")
        if widespread and {(value + 1) % 256 for value in found} <= allowed:
            fits.append("all labels fit when 1 is added, so they are shifted by one (as reduce_zero_label does)")
        if (widespread or none_ignored) and wrong == {max(classes) + 1}:
            fits.append("it is one past the last class, so void was stored as a class of its own")
    return f"{', or '.join(fits)}: use the labels as the data set distributes them" if fits else ""


def explain_pixels(found: Sequence[int], known: Sequence[int], classes: Sequence[str]) -> str:
    """Why the class pixels of a complete split differ from the known ones: a sentence, or "" if nothing fits.

    found, known: pixels of each class and, last, ignored ones.

    Labels are shifted by one if the distance of the classes' shares (`share_distance`) is over 0.3 as they are, and
    under 0.1 when each class is compared with its neighbour; void is a class if no pixel is ignored where 0.1 % or more
    should be.
    """
    *shares, ignored = found
    *expected, void = known
    if share_distance(shares, expected) > FAR:
        neighbours = {"before": (shares[1:], expected[:-1]), "after": (shares[:-1], expected[1:])}
        for where, (own, neighbour) in neighbours.items():
            if share_distance(own, neighbour) < NEAR:
                return (
                    f"each class has the pixels that are known of the class {where} it, so the labels are shifted by "
                    "one: use the labels as the data set distributes them"
                )
    if ignored == 0 and void >= 0.001 * sum(known):
        gained = classes[int((np.asarray(shares) - np.asarray(expected)).argmax())]
        return (
            f"no pixel is ignored, but {100 * void / sum(known):.1f} % of the known ones are void, and {gained} has "
            "gained most, so void is trained as a class: use the labels as the data set distributes them"
        )
    return ""


def share_distance(found: Sequence[float], known: Sequence[float]) -> float:
    """Half the sum of the differences of shares: 0 for the same shares, 1 if they have no class in common or none."""
    a, b = np.asarray(found, float), np.asarray(known, float)
    return float(np.abs(a / a.sum() - b / b.sum()).sum() / 2) if a.any() and b.any() else 1.0


def void_classes(classes: Sequence[str]) -> list[str]:
    """The classes whose name says that their pixels should be ignored."""
    return [name for name in classes if name.lower() in VOID_NAMES]


def id_order(pixels: Mapping[int, int], orders: Mapping[str, Mapping[int, str]]) -> str | None:
    """In which of several id orders of PASCAL-Context labels are, or None if that cannot be told.

    pixels: the number of pixels of each stored value; orders: for each order, the class of each stored value.

    The rule: sky, tree and building are among the commonest classes and come together in outdoor pictures. What has
    their ids in the wrong one of the two orders does not: table, truck and fence (alphabetical labels read as
    VOC-first), or rock, track and table. So the scarcest of the three is looked at: in the right order it has 1 % of
    the pixels or more, and at least three times what it has in any other order. Other common classes would not do:
    wall and water have the same ids in both orders, and person that of ground.
    """
    total = sum(pixels.values())
    if not total:
        return None

    def scarcest(order: Mapping[int, str]) -> float:
        share = {name: pixels.get(value, 0) / total for value, name in order.items()}
        return min(share.get(name, 0.0) for name in ("sky", "tree", "building"))

    (best, most), *others = sorted(((name, scarcest(orders[name])) for name in orders), key=lambda pair: -pair[1])
    return best if most >= SCARCEST and all(most >= CLEARLY * share for _, share in others) else None


def coco_stuff_kind(names: Iterable[str]) -> str | None:
    """Whether images with these names (without suffix) are COCO-Stuff's "10k" or "164k"; None if they are neither."""
    names = list(names)
    for kind, pattern in COCO_STUFF_NAMES.items():
        if names and all(pattern.fullmatch(name) for name in names):
            return kind
    return None
