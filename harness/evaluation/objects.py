"""The size of the object that each pixel belongs to, for all classes at once.

An object is an 8-connected component of one label. The map is cut into runs (consecutive pixels of a row with the same
label), and touching runs of adjacent rows are joined. A street scene has some ten thousand runs, so the cost does not
grow with the number of classes.
"""

import numpy as np
from numpy.typing import NDArray

# The largest area in pixels of each group; anything larger is "large".
LARGEST = {"tiny": 16**2, "small": 32**2, "medium": 96**2}
SIZES = (*LARGEST, "large")


def runs(*maps: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Cut maps [H, W] into runs: stretches of a row in which every map is constant.

    Returns their ascending start indices in the flattened maps and their lengths in pixels, both intp [runs].
    """
    new = np.zeros(maps[0].shape, bool)
    new[:, :1] = True
    for each in maps:
        new[:, 1:] |= each[:, 1:] != each[:, :-1]
    starts = np.flatnonzero(new)
    return starts, np.diff(starts, append=new.size)


def component_areas(labels: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The area in pixels of the 8-connected component of equal labels around each pixel: [H, W] -> int32 [H, W].

    255 is a label like any other: objects end at ignored pixels.
    """
    from scipy.sparse import coo_array  # not at module level: start-up time
    from scipy.sparse.csgraph import connected_components

    width = labels.shape[1]
    starts, lengths = runs(labels)
    ends = starts + lengths
    # A run touches those runs of the row above that overlap it, widened by one pixel on each side.
    below = np.flatnonzero(starts >= width)
    left = starts[below] - width - (starts[below] % width > 0)
    right = ends[below] - width - (ends[below] % width == 0)
    first, last = (np.searchsorted(starts, column, side="right") - 1 for column in (left, right))
    number = last - first + 1
    run = np.repeat(below, number)
    touched = np.arange(len(run)) + np.repeat(first - (np.cumsum(number) - number), number)
    label = labels.ravel()[starts]
    joined = label[run] == label[touched]
    links = (np.ones(joined.sum(), bool), (run[joined], touched[joined]))
    _, component = connected_components(coo_array(links, shape=(len(starts), len(starts))), directed=False)
    area = np.bincount(component, weights=lengths)[component]
    return np.repeat(area.astype(np.int32), lengths).reshape(labels.shape)


def size_groups(areas: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The place in `SIZES` of each area in pixels, uint8 of the same shape."""
    return np.searchsorted(list(LARGEST.values()), areas, side="left").astype(np.uint8)
