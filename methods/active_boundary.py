"""Active boundary loss: moves the predicted boundaries, pixel by pixel, towards the labels' boundaries.

Wang et al., "Active Boundary Loss for Semantic Segmentation", AAAI 2022.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from methods.label_distance import NO_EDGE, squared_distance_to_other_mark
from methods.logits import at_labels
from methods.lovasz_softmax import lovasz_softmax
from methods.method import Method, full_precision

# Down, up, left, right, then the diagonals, then the pixel itself; the first of several nearest neighbours wins.
ROWS, COLUMNS = (1, -1, 0, 0, -1, 1, -1, 1, 0), (0, 0, -1, 1, 1, 1, -1, -1, 0)
LEAST, GROWTH = (
    1e-5,
    1.2,
)  # the divergence above which a pixel is on a boundary, and its factor while there are too many


class ActiveBoundary(Method):
    """Each pixel on a predicted boundary learns which of its 8 neighbours is nearest to the labels' boundary.

    A pixel is on a predicted boundary if the divergence of its softmax from those of the pixels below and to the right
    exceeds a limit, or if one of its 8 neighbours is such a pixel. The limit is raised until at most `boundary_share`
    of an image's pixels exceed it. Over these pixels i, if a neighbour is nearer to the labels' boundary than i itself,

        L = mean_i min(M_i, max_distance) / max_distance * CE( g_i, softmax_n KL(p_n || p_i) )

    with n the 8 neighbours, p the softmax (a constant for the gradient at n), M_i the distance from i to the labels'
    boundary, and g_i the smoothed one-hot vector of the neighbour with the least M. As in the paper's full loss,
    Lovasz-Softmax and this are added to cross entropy.

    In `variant: paper` distances are Euclidean, smoothing spreads 0.2 over the 7 other neighbours, and a pixel next to
    an ignored one is left out. In "official", as released:
    - one is subtracted from distances, which are then truncated to integers: many directions tie and the first one wins
    - the whole mini-batch shares one image's budget of boundary pixels
    - smoothing gives each other neighbour 0.2 / 8, so the vector sums to 0.975
    - ignored pixels take part and count as boundary
    Not reproduced from the release: its loss is None if no pixel is on a predicted boundary and NaN if none of them has
    a direction (here both give 0), and it uses a distance even if an image has no boundary at all.

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 4.55 GiB.
    """

    title = "Active boundary loss"
    paper = "Active Boundary Loss for Semantic Segmentation"
    venue = "AAAI"
    year = 2022
    url = "https://arxiv.org/abs/2102.02696"
    idea = "Pixels on predicted boundaries learn in which of 8 directions the labels' boundary is; plus Lovasz-Softmax."
    left_open = (
        "The released code cuts distances to whole pixels, and shares one image's boundary budget in a mini-batch."
    )

    @dataclass(frozen=True, kw_only=True)
    class Options(Method.Options):
        """The released constants; that both weights are 1 is a choice made here."""

        variant: Literal["paper", "official"] = "paper"  # "official": as the released code does it
        weight: Annotated[float, Ge(0)] = 1.0  # of the loss
        lovasz_weight: Annotated[float, Ge(0)] = 1.0  # of the additional Lovasz-Softmax loss; 0 leaves it out
        boundary_share: Annotated[float, Interval(gt=0, le=1)] = 0.01  # share of boundary pixels, before dilation
        max_distance: Annotated[float, Gt(0)] = 20.0  # in label pixels; from this distance on the weight is 1
        smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.2  # label smoothing of the direction's one-hot vector

    options: Options
    steps: Tensor  # [2, 9], to the neighbours' rows and columns

    def __init__(self, channels: Sequence[int], num_classes: int, ignore_index: int = 255, **options: Any) -> None:
        super().__init__(channels, num_classes, ignore_index, **options)
        self.official = self.options.variant == "official"
        self.register_buffer("steps", torch.tensor([ROWS, COLUMNS]), persistent=False)

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"active_boundary": weight * L, "lovasz_softmax": lovasz_weight * its loss}. Arguments as in Method.loss."""
        log_p = at_labels(logits, labels, self.align_corners).log_softmax(1)
        terms = {"active_boundary": self.options.weight * self.active_boundary(log_p, labels)}
        if self.options.lovasz_weight:
            loss, _ = lovasz_softmax(log_p.exp(), labels, self.ignore_index)
            terms["lovasz_softmax"] = self.options.lovasz_weight * loss
        return terms

    def active_boundary(self, log_p: Tensor, labels: Tensor) -> Tensor:
        """L, of the logarithm of the softmax [B, K, H, W] and the labels int64 [B, H, W]."""
        images, height, width = labels.shape
        pixels, found = self.predicted_boundary(log_p.detach(), labels)
        image, place = pixels // (height * width), pixels % (height * width)
        rows, columns = place[:, None] // width + self.steps[0], place[:, None] % width + self.steps[1]
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        near = (image[:, None] * height + rows.clamp(0, height - 1)) * width + columns.clamp(0, width - 1)  # [N, 9]

        distance = self.distance_to_boundary(labels).flatten()[near]
        # Adding the direction's index breaks ties: the first of several nearest neighbours wins, the pixel comes last.
        direction = (distance * 16 + torch.arange(9, device=labels.device)).where(inside, torch.iinfo(torch.int64).max)
        direction = direction.argmin(1)
        own = distance[:, 8]
        used = found & (direction != 8) & (own < NO_EDGE)
        if not self.official:
            used = used & ~((labels.flatten()[near] == self.ignore_index) & inside).any(1)

        by_pixel = log_p.movedim(1, -1).flatten(0, 2)  # [B H W, K]
        around, here = by_pixel.detach()[near[:, :8]], by_pixel.index_select(0, pixels)[:, None]
        divergence = (around.exp() * (around - here)).sum(2)  # [N, 8]
        given_away = self.options.smoothing / (8 if self.official else 7)
        chosen = torch.arange(8, device=labels.device) == direction[:, None]
        target = given_away + (1 - self.options.smoothing - given_away) * chosen.to(log_p.dtype)
        entropy = -(target * divergence.log_softmax(1)).sum(1)
        away = own.to(log_p.dtype) - 1 if self.official else own.to(log_p.dtype).sqrt()
        weight = away.clamp(max=self.options.max_distance) / self.options.max_distance
        number = used.sum()
        self.diagnostics = {}
        if self.observing:
            right = (divergence.argmax(1) == direction) & used
            self.diagnostics = {
                "boundary_pixels": number / images,
                "direction_accuracy": right.sum() / number.clamp(min=1),
                "boundary_distance": (away * used).sum() / number.clamp(min=1),
            }
        return (entropy * weight).where(used, 0).sum() / number.clamp(min=1)

    def predicted_boundary(self, log_p: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Indices int64 [N] (of all B H W) of pixels on predicted boundaries, and bool [N], false for padding.

        N is fixed: the largest possible number.
        """
        images, height, width = labels.shape
        p, size = log_p.exp(), height * width
        below = (p[:, :, :-1] * (log_p[:, :, :-1] - log_p[:, :, 1:])).sum(1)
        right = (p[..., :-1] * (log_p[..., :-1] - log_p[..., 1:])).sum(1)
        if not self.official:
            valid = labels != self.ignore_index
            below = below.where(valid[:, :-1] & valid[:, 1:], 0)
            right = right.where(valid[..., :-1] & valid[..., 1:], 0)
        change = F.pad(below, (0, 0, 0, 1)) + F.pad(right, (0, 1))  # [B, H, W]
        groups = change.view(1 if self.official else images, -1)
        most = int(self.options.boundary_share * size)
        limit = torch.full_like(groups[:, :1], LEAST)
        if most < groups.shape[1]:
            next_one = groups.topk(most + 1).values[:, -1:]
            steps = (next_one.clamp(min=LEAST) / LEAST).log() / math.log(GROWTH)
            limit = LEAST * GROWTH ** steps.ceil()
        edge = (groups > limit).view_as(change)
        dilated = F.max_pool2d(edge.to(log_p.dtype)[:, None], 3, stride=1, padding=1).view_as(groups)
        there, index = dilated.topk(min(9 * most, dilated.shape[1]))
        offset = torch.arange(len(groups), device=labels.device)[:, None] * dilated.shape[1]
        return (index + offset).flatten(), there.flatten() > 0

    @torch.no_grad()
    def distance_to_boundary(self, labels: Tensor) -> Tensor:
        """The squared distance from every pixel to the labels' boundary, int64 [B, H, W], 0 at the boundary.

        NO_EDGE or more in an image without a boundary. "official": the distance in whole pixels, 1 at the boundary.
        """
        edge = labels == self.ignore_index
        edge[:, :-1] |= labels[:, 1:] != labels[:, :-1]
        edge[..., :-1] |= labels[..., 1:] != labels[..., :-1]
        squared = squared_distance_to_other_mark(edge.int()).long()
        if self.official:
            whole = squared.clamp(max=NO_EDGE).double().sqrt().long().where(~edge, 1)
            return torch.where(squared < NO_EDGE, whole, NO_EDGE)
        return squared.where(~edge, 0)
