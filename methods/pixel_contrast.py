"""Pixel contrast: supervised InfoNCE between sampled pixels and those of the mini-batch or of a memory.

Wang et al., "Exploring Cross-Image Pixel Contrast for Semantic Segmentation", ICCV 2021.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from methods.class_means import image_class_means, one_hot
from methods.class_queues import MAX_SCORES, Queues
from methods.contrast_diagnostics import drawn_chance, drawn_diagnostics, label_chance, label_diagnostics
from methods.heads import ProjectingMethod
from methods.info_nce import Contrast, masked_info_nce, supervised_info_nce
from methods.labels import nearest
from methods.method import full_precision
from methods.options import LayerOptions
from methods.pair_sampling import gather_pixels, sample_pairs
from methods.unit_vectors import unit

OFFICIAL_PIXELS_PER_BATCH = 1024
OFFICIAL_BASE_TEMPERATURE = 0.07


class PixelContrast(ProjectingMethod):
    """Pixels sampled per (image, class) pair are anchors, positives and negatives of each other over the mini-batch.

    With a memory, the positives and negatives are drawn from it instead: two queues per class, of region vectors (the
    mean of a class in an image) and of pixels. A mini-batch is stored after its own loss is computed, from the first
    iteration on. As in the paper, keys are drawn from the hardest tenth (`semi_hard`). In short trainings on CamVid
    from scratch all six such runs collapsed, three of them with the warm-up of the released training (the loss counts
    after 5,000 of 40,000 iterations, `starts_at: 0.125`); the three that draw from all keys (`semi_hard: 1.0`) did not.
    The default remains the paper's, and tables mark collapsed runs. config/diagnosis-cpu.yaml has the three as arms.

    The released code, and `variant: official`, differ from the paper:
    - the loss is multiplied by temperature / 0.07;
    - a class is sampled in an image only if it has more than 100 pixels there, so small objects never are;
    - the budget is 1024 pixels per mini-batch of a process, 1024 // T for each of its T (image, class) pairs.
    Not reproduced from the release: it crashes if no class is sampled and if T is above 1024 (here the loss is 0), is
    NaN if anchors have no positives (here they are left out), and trains plain cross entropy on a single process. Its
    memory has no variant here: it draws nothing, stores most pixels under a wrong class, uses zero vectors for class 0,
    which it never stores, and loses nine of ten pixels since its pointer moves by one.

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 3.77 GiB; with memory 3.77 GiB.
    """

    title = "Pixel contrast"
    paper = "Exploring Cross-Image Pixel Contrast for Semantic Segmentation"
    venue = "ICCV"
    year = 2021
    url = "https://arxiv.org/abs/2101.11939"
    idea = (
        "Pixels sampled by class are pulled to pixels of their class and pushed from the others, in the mini-batch or "
        "in a memory."
    )
    left_open = (
        "The released memory stores most pixels under a wrong class, and the paper's semi-hard draws were never "
        "released."
    )

    @dataclass(frozen=True, kw_only=True)
    class Options(LayerOptions):
        """The paper's constants, except for the memory sizes, since a method does not know the number of images.

        With HRNet the paper uses all four layers, with DeepLabV3 the last.
        """

        former_names: ClassVar[Mapping[str, str]] = {
            "region_queue": "region_memory_size",
            "pixel_queue": "pixel_memory_size",
            "gather_queues": "gather_memory",
        }

        dim: Annotated[int, Ge(1)] = 256  # channels of the embeddings
        temperature: Annotated[float, Gt(0)] = 0.1  # tau
        weight: Annotated[float, Ge(0)] = 0.1  # of the loss
        variant: Literal["paper", "official"] = "paper"  # "official": as released, with the differences listed above
        # budget of sampled pixels per image, shared by its classes; independent of the number of processes
        anchors_per_image: Annotated[int, Ge(1)] = 512
        # sampled pixels per (image, class), at most; None: 100, or 7 with memory, which gives about the paper's 50
        # anchors per class in a mini-batch of eight images
        max_views: Annotated[int, Ge(1)] | None = None
        # a class is sampled only with more pixels than this in an image, on the embeddings' grid; None: 0, official 100
        min_pixels: Annotated[int, Ge(0)] | None = None
        memory: bool = False  # contrast with the memory instead of the mini-batch, as in the released code
        region_memory_size: Annotated[int, Ge(1)] = 2000  # region vectors per class; the paper: one per training image
        pixel_memory_size: Annotated[int, Ge(1)] = 2000  # pixels per class; the paper: ten per training image
        pixels_enqueued: Annotated[int, Ge(1)] = 10  # random pixels stored per (image, class)
        gather_memory: bool = True  # the memory holds the vectors of all processes
        drawn_positives: Annotated[int, Ge(1)] = 1024  # positives drawn at random per anchor, at most
        drawn_negatives: Annotated[int, Ge(1)] = 2048  # negatives drawn at random per anchor, at most
        # the share to draw from: the positives least and the negatives most similar to the anchor. With the memory
        # sizes above it has 400 positives, fewer than 1024, so all of them are used.
        semi_hard: Annotated[float, Interval(gt=0, le=1)] = 0.1

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.variant == "official" and self.memory:
                raise ValueError(
                    "variant is 'official', but must be 'paper' with memory: the released memory is defective"
                )

    options: Options

    def __init__(self, channels: Sequence[int], num_classes: int, ignore_index: int = 255, **options: Any) -> None:
        super().__init__(channels, num_classes, ignore_index, **options)
        given, official = self.options, self.options.variant == "official"
        self.max_views = (7 if given.memory else 100) if given.max_views is None else given.max_views
        self.min_pixels = (100 if official else 0) if given.min_pixels is None else given.min_pixels
        self.weight = given.weight * given.temperature / OFFICIAL_BASE_TEMPERATURE if official else given.weight
        self.anchors_per_batch = OFFICIAL_PIXELS_PER_BATCH if official else None
        self.drawn: list[tuple[Tensor, Tensor]] = []  # while observing: drawn keys [A, n], and which are valid
        self.regions = Queues(num_classes, given.region_memory_size if given.memory else 0, given.dim)
        self.pixels = Queues(num_classes, given.pixel_memory_size if given.memory else 0, given.dim)

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"pixel_contrast": weight * L}. Arguments as in Method.loss."""
        (embedding,) = embeddings
        size = (embedding.shape[2], embedding.shape[3])
        labels, prediction = nearest(labels, size), nearest(logits.argmax(1), size)
        sampled = self.sample(labels, prediction)
        most = self.most_anchors(len(labels), size)
        anchors, classes = gather_pixels(embedding, labels, sampled, most, self.num_classes)
        anchors = unit(anchors)
        self.diagnostics = {}
        loss = self.memory_loss(anchors, classes) if self.options.memory else self.batch_loss(anchors, classes)
        if self.observing:
            hard = (prediction != labels) & sampled
            self.diagnostics["hard_share"] = hard.sum() / sampled.sum().clamp(min=1)
        if self.options.memory:
            self.remember(embedding.detach(), labels, prediction == labels)
        return {"pixel_contrast": self.weight * loss}

    def most_anchors(self, images: int, size: tuple[int, int]) -> int:
        """The largest number of anchors that `sample` can return."""
        pixels = size[0] * size[1]
        if self.anchors_per_batch is not None:
            return min(self.anchors_per_batch, images * pixels)
        return images * min(self.options.anchors_per_image, self.num_classes * self.max_views, pixels)

    def sample(self, labels: Tensor, prediction: Tensor) -> Tensor:
        """The anchors: bool [B, h, w]."""
        return sample_pairs(
            labels,
            prediction,
            self.num_classes,
            self.ignore_index,
            pixels_per_image=self.options.anchors_per_image,
            max_views=self.max_views,
            min_pixels=self.min_pixels,
            pixels_per_batch=self.anchors_per_batch,
        )

    def batch_loss(self, anchors: Tensor, classes: Tensor) -> Tensor:
        """The loss among the unit anchors [A, d] of classes [A]; class K is padding."""
        contrasted = (anchors, classes, anchors, classes, self.num_classes)
        if self.observing:
            self.diagnostics = label_diagnostics(*contrasted, exclude_self=True)
            chance = label_chance(classes, classes, self.num_classes, exclude_self=True)
            self.diagnostics["chance/pixel_contrast"] = self.weight * chance
        return supervised_info_nce(*contrasted, self.options.temperature, exclude_self=True)

    def memory_loss(self, anchors: Tensor, classes: Tensor) -> Tensor:
        """The same loss against keys drawn from the memory."""
        # torch.cat copies, since the memory changes before the backward pass. It joins the slots of each class.
        slots = zip(self.regions.slots(), self.pixels.slots(), strict=True)
        keys, stored = (torch.cat(parts, dim=1) for parts in slots)
        keys = keys.to(anchors.dtype)
        self.drawn = []
        size = max(1, MAX_SCORES // self.elements_per_anchor(stored.numel()))
        blocks = [
            self.draw(block, own, keys, stored)
            for block, own in zip(anchors.split(size), classes.split(size), strict=True)
        ]
        contrast = Contrast(*(torch.cat(parts) for parts in zip(*blocks, strict=True)))
        if self.observing:
            number = (classes < self.num_classes).sum()
            self.diagnostics = drawn_diagnostics(contrast, self.options.temperature, number)
            self.diagnostics["chance/pixel_contrast"] = self.weight * drawn_chance(contrast)
            self.diagnostics |= self.drawn_keys()
        return masked_info_nce(contrast)

    def elements_per_anchor(self, number: int) -> int:
        """The largest number of elements per anchor of any tensor in `draw`, with `number` keys."""
        return number

    def draw(self, anchors: Tensor, classes: Tensor, keys: Tensor, stored: Tensor) -> Contrast:
        """Semi-hard positives and negatives of anchors [A, d] of classes [A], from the memory.

        keys [K, L, d]; stored bool [K, L], false for an empty slot. An anchor of class K gets none.
        """
        inside, own = (classes < self.num_classes)[:, None], classes.clamp(max=self.num_classes - 1)
        scores = (anchors @ keys.flatten(0, 1).T / self.options.temperature).unflatten(1, stored.shape)
        of_own_class = scores.gather(1, own[:, None, None].expand(-1, 1, stored.shape[1])).squeeze(1)
        far, number = hardest(-of_own_class, stored[own] & inside, self.options.semi_hard)
        far, is_positive = draw_some(far, number, self.options.drawn_positives)
        if self.observing:
            self.drawn.append((own[:, None] * stored.shape[1] + far, is_positive))
        other = stored & (one_hot(own, self.num_classes, torch.bool).logical_not() & inside)[:, :, None]
        near, number = hardest(scores.flatten(1), other.flatten(1), self.options.semi_hard)
        negatives, is_negative = self.negatives(anchors, keys.flatten(0, 1), scores.flatten(1), near, number)
        return Contrast(of_own_class.gather(1, far), is_positive, negatives, is_negative)

    def negatives(
        self, anchors: Tensor, keys: Tensor, scores: Tensor, near: Tensor, number: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores [A, n] of drawn negatives, and bool [A, n], false for padding.

        anchors [A, d], keys [M, d], scores [A, M]; near and number as from `hardest`.
        """
        near, is_near = draw_some(near, number, self.options.drawn_negatives)
        if self.observing:
            self.drawn.append((near, is_near))
        return scores.gather(1, near), is_near

    def drawn_keys(self) -> dict[str, Tensor]:
        """Mean age in mini-batches and mean purity of the drawn keys, without mixtures; 0 if there are none."""
        queues = [(each, each.slots()[0].shape[1]) for each in (self.regions, self.pixels)]
        ages = torch.cat([each.ages()[:, :number] for each, number in queues], dim=1).flatten().float()
        purity = torch.cat([each.purity[:, :number] for each, number in queues], dim=1).flatten()
        number = torch.stack([exists.sum() for _, exists in self.drawn]).sum().clamp(min=1)

        def mean(values: Tensor) -> Tensor:
            return torch.stack([(values[keys] * exists).sum() for keys, exists in self.drawn]).sum() / number

        found = {"memory_age": mean(ages), "memory_purity": mean(purity)}
        self.drawn = []
        return found

    @torch.no_grad()
    def remember(self, embedding: Tensor, labels: Tensor, right: Tensor) -> None:
        """Store the region vector and random pixels of each (image, class) in the memory.

        right: bool [B, H, W], whether a pixel was classified correctly; the share in a region is its purity.
        """
        vectors, pure = unit(embedding), right[:, None].to(embedding.dtype)
        means, classes = image_class_means(vectors, labels, self.num_classes, self.ignore_index)
        shares, _ = image_class_means(pure, labels, self.num_classes, self.ignore_index)
        self.regions.push(unit(means), classes, self.options.gather_memory, shares[:, 0])
        # With the labels as prediction there are no hard pixels, so each pair draws from all of its pixels.
        number = self.options.pixels_enqueued
        budget = number * self.num_classes
        kept = sample_pairs(
            labels, labels, self.num_classes, self.ignore_index, pixels_per_image=budget, max_views=number
        )
        most = len(labels) * min(budget, labels[0].numel())
        drawn = gather_pixels(vectors, labels, kept, most, self.num_classes)
        shares, _ = gather_pixels(pure, labels, kept, most, self.num_classes)
        self.pixels.push(*drawn, self.options.gather_memory, shares[:, 0])
        if self.observing:
            self.diagnostics |= {"region_queue_fill": self.regions.fill(), "pixel_queue_fill": self.pixels.fill()}


@torch.no_grad()
def hardest(hardness: Tensor, candidates: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The hardest `share` of each row's candidates: columns int64 [A, n], the hardest first, and their number [A, 1].

    hardness [A, M]; candidates bool [A, M]. The share is rounded up; columns from their number on are meaningless.
    """
    # The slack absorbs rounding: 0.07 * 100 is above 7.
    number = (share * candidates.sum(1, keepdim=True).double() - 1e-9).ceil().long()
    width = math.ceil(share * hardness.shape[1])
    return hardness.masked_fill(~candidates, -torch.inf).topk(width, dim=1).indices, number


@torch.no_grad()
def draw_some(columns: Tensor, number: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Up to `most` random columns int64 [A, m] out of the first `number` [A, 1] of each row's columns [A, n].

    Also bool [A, m], false for padding.
    """
    inside = torch.arange(columns.shape[1], device=columns.device) < number
    order = torch.rand(inside.shape, device=inside.device).masked_fill(~inside, -1)
    drawn = order.topk(min(most, columns.shape[1]), dim=1).indices
    return columns.gather(1, drawn), inside.gather(1, drawn)
