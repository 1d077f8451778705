"""Conditional boundary loss: every boundary pixel has its own target, computed from its neighbours.

Wu et al., "Conditional Boundary Loss for Semantic Segmentation", IEEE Transactions on Image Processing, 2023. The
paper's text was not available: the terms follow its abstract and the released code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from methods.class_means import class_means
from methods.heads import ProjectingMethod
from methods.labels import nearest
from methods.method import full_precision
from methods.options import LayerOptions
from methods.unit_vectors import unit


class Neighborhoods(NamedTuple):
    """N sampled pixels, each with the n neighbours in its window; label K (the number of classes) marks padding."""

    own: Tensor  # [N, d], features of the pixels
    near: Tensor  # [N, n, d], of their neighbours
    labels: Tensor  # [N], K for a pixel that is on no boundary
    near_labels: Tensor  # [N, n], K outside the map and for ignored pixels
    right: Tensor  # bool [N], whether the prediction is correct
    near_right: Tensor  # bool [N, n]
    whole: Tensor  # bool [N], whether the whole window is inside the map


class ConditionalBoundary(ProjectingMethod):
    """Boundary pixels move to the mean of their neighbours of the same class, and away from those of other classes.

    For pixels i with another class in their window, their neighbours n, features x, and a linear classifier W, b:

        pairs    mean over i and n of (cos(x_i, x_n) - [y_i = y_n])^2
        centers  mean over the classes of the mean over their i of |x_i - sg(m_i)|^2 / dim
        classes  mean over the classes of the means over their i of
                 -log softmax(W m'_i + b)[y_i]  and of  -log softmax(W m_i + b)[y_i], added

    with m_i the mean of the correctly predicted neighbours of i's class, m'_i that of all of them, and sg(.), W and b
    constants for the gradient. The terms with m_i are over correctly predicted i. A class without any i for m or m' is
    left out of the mean over classes.

    The paper uses the features in front of the decode head's classifier, and that classifier. Here, for all models, x
    is a convolution, batch norm and ReLU (used in training only) of the encoder maps, upsampled to the finest of them
    and concatenated. W and b are trained by cross entropy on these features, which get no gradient from it. At most
    `pixels_per_image` random boundary pixels of an image are used; the release uses all.

    In `variant: paper` only correctly predicted neighbours form pairs, as the abstract says. In "official", as
    released:
    - all neighbours form pairs; ignored ones count as another class
    - pixels of class 0, and those whose window leaves the map, have no pairs
    - the pairs' mean is taken over each image, and then over the images with any
    Not reproduced from the release: its boundary pixels are those within half a percent of the image's diagonal of a
    boundary, computed before cropping.

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 2.17 GiB.
    """

    title = "Conditional boundary loss"
    paper = "Conditional Boundary Loss for Semantic Segmentation"
    venue = "TIP"
    year = 2023
    url = "https://github.com/dywu98/CBL-Conditional-Boundary-Loss"
    idea = (
        "Boundary pixels move to the mean of their neighbours of the same class, away from neighbours of other classes."
    )
    left_open = (
        "The paper was not available; the released code also uses wrongly predicted neighbours, and drops class 0."
    )

    @dataclass(frozen=True, kw_only=True)
    class Options(LayerOptions):
        """Window and weights are the released code's."""

        variant: Literal["paper", "official"] = "paper"  # "official": as the released code does it
        dim: Annotated[int, Ge(1)] = 256  # channels of x; the released code: 512
        reach: Annotated[int, Ge(1)] = 2  # half-width of the window, in pixels of x
        pixels_per_image: Annotated[int, Ge(1)] = 1024  # boundary pixels that are used, at most
        pair_weight: Annotated[float, Ge(0)] = 1.0  # of the term pairs
        center_weight: Annotated[float, Ge(0)] = 2.0  # of the term centers
        class_weight: Annotated[float, Ge(0)] = 0.2  # of the term classes

    options: Options
    steps: Tensor  # [2, n], offsets to the neighbours' rows and columns

    def __init__(self, channels: Sequence[int], num_classes: int, ignore_index: int = 255, **options: Any) -> None:
        super().__init__(channels, num_classes, ignore_index, **options)
        self.official = self.options.variant == "official"
        self.classifier = nn.Linear(self.options.dim, num_classes)
        reach = range(-self.options.reach, self.options.reach + 1)
        steps = [(row, column) for row in reach for column in reach if (row, column) != (0, 0)]
        self.register_buffer("steps", torch.tensor(steps).T, persistent=False)

    def make_head(self, channels: int, dim: int) -> nn.Module:
        """A 1x1 convolution, batch norm and ReLU."""
        return nn.Sequential(nn.Conv2d(channels, dim, 1, bias=False), nn.BatchNorm2d(dim), nn.ReLU())

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"boundary_pairs", "boundary_centers", "boundary_classes": the weighted terms, "classifier": W's own}."""
        (x,) = embeddings
        size = (x.shape[2], x.shape[3])
        y, prediction = nearest(labels, size), nearest(logits.argmax(1), size)
        y = torch.where(y == self.ignore_index, self.num_classes, y)
        drawn = self.draw(x, y, prediction)
        pairs, chance = self.pairs(drawn, len(x))
        centers, classes = self.local_centers(drawn)
        scores = self.classifier(x.detach().movedim(1, -1).flatten(0, 2))
        terms = F.cross_entropy(scores, y.flatten(), ignore_index=self.num_classes, reduction="none")
        given = self.options
        self.diagnostics = {}
        if self.observing:
            used = drawn.labels < self.num_classes
            self.diagnostics = {
                "boundary_pixels": used.sum() / len(x),
                "right_share": (drawn.right & used).sum() / used.sum().clamp(min=1),
                "chance/boundary_pairs": given.pair_weight * chance,
            }
        return {
            "boundary_pairs": given.pair_weight * pairs,
            "boundary_centers": given.center_weight * centers,
            "boundary_classes": given.class_weight * classes,
            "classifier": terms.sum() / (y < self.num_classes).sum().clamp(min=1),
        }

    def draw(self, x: Tensor, y: Tensor, prediction: Tensor) -> Neighborhoods:
        """Random boundary pixels of x [B, d, H, W]; labels y (K for ignored pixels) and prediction are [B, H, W]."""
        images, height, width = y.shape
        number = min(self.options.pixels_per_image, height * width)
        reach = self.options.reach
        # A window contains another class if its largest or smallest label is not the pixel's own.
        known = y < self.num_classes
        largest = F.max_pool2d(torch.where(known, y, -1).to(x.dtype), 2 * reach + 1, 1, reach)
        smallest = -F.max_pool2d(-y.to(x.dtype), 2 * reach + 1, 1, reach)
        boundary = known & ((largest != y) | (smallest != y))
        order = torch.rand(images, height * width, device=x.device) + boundary.flatten(1)
        place = order.topk(number).indices.flatten()
        image = torch.arange(images, device=x.device).repeat_interleave(number, output_size=images * number)
        rows = place[:, None] // width + self.steps[0]
        columns = place[:, None] % width + self.steps[1]
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        own = image * height * width + place
        near = (image[:, None] * height + rows.clamp(0, height - 1)) * width + columns.clamp(0, width - 1)
        by_pixel, y, right = x.movedim(1, -1).flatten(0, 2), y.flatten(), (prediction == y).flatten()
        labels = torch.where(boundary.flatten()[own], y[own], self.num_classes)
        near_labels = torch.where(inside, y[near], self.num_classes)
        vectors = by_pixel.index_select(0, own), by_pixel.index_select(0, near.flatten()).view(*near.shape, -1)
        return Neighborhoods(*vectors, labels, near_labels, right[own], right[near] & inside, inside.all(1))

    def pairs(self, drawn: Neighborhoods, images: int) -> tuple[Tensor, Tensor]:
        """The mean over the pairs, and its chance level: the least value if all pairs have the same similarity."""
        used = (drawn.labels < self.num_classes)[:, None]
        if self.official:
            counted = (used & (drawn.labels != 0)[:, None] & drawn.whole[:, None]).expand_as(drawn.near_labels)
        else:
            counted = used & (drawn.near_labels < self.num_classes) & drawn.near_right
        same = (drawn.labels[:, None] == drawn.near_labels).to(drawn.own.dtype)
        near = unit(drawn.near.flatten(0, 1)).view_as(drawn.near)
        similarity = (near @ unit(drawn.own)[:, :, None]).squeeze(2)
        terms = (similarity - same).square().where(counted, 0)
        number = counted.sum()
        share = (same * counted).sum() / number.clamp(min=1)
        if not self.official:
            return terms.sum() / number.clamp(min=1), share * (1 - share)
        by_image = counted.reshape(images, -1).sum(1)
        means = terms.view(images, -1).sum(1) / by_image.clamp(min=1)
        return means.sum() / (by_image > 0).sum().clamp(min=1), share * (1 - share)

    def local_centers(self, drawn: Neighborhoods) -> tuple[Tensor, Tensor]:
        """The terms "centers" and "classes"."""
        used = drawn.labels < self.num_classes
        alike = used[:, None] & (drawn.labels[:, None] == drawn.near_labels)
        kept = [alike, alike & drawn.near_right]
        means = [(each[:, None].to(drawn.near.dtype) @ drawn.near).squeeze(1) for each in kept]
        numbers = [each.sum(1) for each in kept]
        means = [mean / number.clamp(min=1)[:, None] for mean, number in zip(means, numbers, strict=True)]
        those = [numbers[0] > 0, (numbers[1] > 0) & drawn.right & used]
        weight, bias = self.classifier.weight.detach(), self.classifier.bias.detach()
        target = drawn.labels.clamp(max=self.num_classes - 1)
        entropies = [F.cross_entropy(F.linear(mean, weight, bias), target, reduction="none") for mean in means]
        apart = (drawn.own - means[1].detach()).square().mean(1)
        by_class = []
        for value, which in ((entropies[0], those[0]), (entropies[1], those[1]), (apart, those[1])):
            found, number = class_means(
                value[:, None], torch.where(which, drawn.labels, self.num_classes), self.num_classes
            )
            by_class.append((found[:, 0], number > 0))
        there = by_class[0][1] & by_class[1][1]
        count = there.sum().clamp(min=1)
        every, correct, close = (found.where(there, 0).sum() / count for found, _ in by_class)
        return close, every + correct
