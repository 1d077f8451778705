"""`Augmentation` on a GPU: batches of decoded images there, random draws from the CPU.

It reproduces the integer arithmetic of OpenCV's resize (11-bit weights, resize.cpp) and looks up OpenCV's colour
conversions. Labels equal the CPU's; images differ by a few levels in a few columns, since OpenCV rounds HSV to RGB
differently at the end of a row. Nothing synchronises and no shape depends on data, so CUDA graphs can capture it.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from harness.datasets.augmentation import VALUES, Augmentation, Draws
from harness.datasets.spec import IGNORE_INDEX

# The numbers that are sent for each sample, in addition to its tables.
FIELDS = ("start", "source_height", "source_width", "height", "width", "top", "left", "flipped", "saturated", "turned")
TABLES = ("before", "saturation", "hue", "after")
WEIGHT = 2**11  # total weight of two neighbours in OpenCV's resize


def packed(colors: Tensor, labels: Tensor) -> Tensor:
    """Colours uint8 [3 P] and labels uint8 [P] packed into int32 [P]: bytes R, G, B and label, lowest first."""
    red, green, blue = colors.view(-1, 3).int().unbind(1)
    return red | green << 8 | blue << 16 | labels.int() << 24


def described(draws: Sequence[Draws], starts: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> Tensor:
    """A batch for the device: int64 [B, 10 + 4 * 32], the FIELDS and then the TABLES, eight bytes in each number.

    starts: offsets of the images in the packed pixels. shapes: their heights and widths.
    """
    content = np.empty((len(draws), len(FIELDS) + len(TABLES) * len(VALUES) // 8), np.int64)
    for row, drawn, start, shape in zip(content, draws, starts, shapes, strict=True):
        flags = (drawn.flipped, drawn.saturation is not None, drawn.hue is not None)
        row[: len(FIELDS)] = (start, *shape, *drawn.size, *drawn.corner, *flags)
        tables = (getattr(drawn, name) for name in TABLES)
        row[len(FIELDS) :] = np.concatenate([VALUES if table is None else table for table in tables]).view(np.int64)
    return torch.from_numpy(content)


class DeviceAugmentation:
    """`Augmentation` of packed pixels on a device."""

    def __init__(self, augmentation: Augmentation, device: torch.device) -> None:
        self.crop = augmentation.crop
        self._pad = int(np.array([*augmentation.pad, 0], np.uint8).view("<i4")[0])
        self._conversions: tuple[Tensor, ...] = ()
        if augmentation.distorts:
            self._conversions = tuple(_converted(way).to(device) for way in (cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB))

    def __call__(self, pixels: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Images uint8 [B, 3, h, w] (channels last) and labels uint8 [B, h, w] of a `described` batch.

        pixels: packed, int32 [P]; both arguments are on the device.
        """
        start, source_height, source_width, height, width, top, left, *flags = batch[:, : len(FIELDS)].T.unsqueeze(-1)
        flipped, saturated, turned = (flag.bool() for flag in flags)  # like all the fields, [B, 1]

        y, x = (torch.arange(length, device=batch.device) for length in self.crop)
        rows, columns = (height - top).clamp(max=self.crop[0]), (width - left).clamp(max=self.crop[1])
        inside = (y < rows)[:, :, None] & (x < columns)[:, None]
        x = torch.where(flipped, columns - 1 - x, x).clamp(min=0)  # [B, w], in the crop before it is flipped
        y, x = torch.minimum(top + y, height - 1), torch.minimum(left + x, width - 1)  # in the resized image

        def read(rows: Tensor, columns: Tensor) -> Tensor:
            """The packed pixels [B, h, w] of the images' rows [B, h] and columns [B, w]."""
            return _looked_up(pixels, (start + rows * source_width)[:, :, None] + columns[:, None])

        labels = read(_nearest(y, source_height, height), _nearest(x, source_width, width)) >> 24 & 255
        above, below, down = _linear(y, source_height, height)
        before, after, across = _linear(x, source_width, width)
        corners = [read(row, column) for row in (above, below) for column in (before, after)]
        colors = _joined([_mixed([_byte(c, n) for c in corners], down, across) for n in range(3)])
        if self._conversions:
            tables = batch[:, len(FIELDS) :].contiguous().view(torch.uint8).view(-1, len(TABLES), len(VALUES)).int()
            colors = self._distorted(colors, dict(zip(TABLES, tables.unbind(1), strict=True)), saturated, turned)
        colors = torch.where(inside, colors, self._pad)
        images = colors.view(torch.uint8).view(*colors.shape, 4)[..., :3].contiguous()
        return images.permute(0, 3, 1, 2), torch.where(inside, labels, IGNORE_INDEX).byte()

    def _distorted(self, colors: Tensor, tables: dict[str, Tensor], saturated: Tensor, turned: Tensor) -> Tensor:
        """Packed colours [B, h, w] with the tables applied; images without a change in HSV skip its rounding."""
        colors = _joined([_mapped(tables["before"], _byte(colors, n)) for n in range(3)])
        for name, channel, chosen in (("saturation", 1, saturated), ("hue", 0, turned)):
            hsv = _looked_up(self._conversions[0], colors)
            values = [_byte(hsv, n) for n in range(3)]
            values[channel] = _mapped(tables[name], values[channel])
            colors = torch.where(chosen[..., None], _looked_up(self._conversions[1], _joined(values)), colors)
        return _joined([_mapped(tables["after"], _byte(colors, n)) for n in range(3)])


def _converted(way: int) -> Tensor:
    """OpenCV's conversion of each of the 2^24 packed colours, packed int32 [2^24]; 67 MB."""
    colors = np.arange(2**24, dtype="<i4").view(np.uint8).reshape(4096, 4096, 4)
    converted = np.zeros_like(colors)
    converted[..., :3] = cv2.cvtColor(np.ascontiguousarray(colors[..., :3]), way)
    return torch.from_numpy(converted.view("<i4").ravel())


def _byte(packed: Tensor, number: int) -> Tensor:
    return packed >> 8 * number & 255


def _joined(bytes_: Sequence[Tensor]) -> Tensor:
    first, second, third = bytes_
    return first | second << 8 | third << 16


def _looked_up(table: Tensor, places: Tensor) -> Tensor:
    return table.index_select(0, places.flatten()).view(places.shape)


def _mapped(tables: Tensor, values: Tensor) -> Tensor:
    """Values [B, h, w] mapped by each image's table, [B, 256]."""
    first = torch.arange(len(tables), device=values.device, dtype=torch.int32) * tables.shape[1]
    return _looked_up(tables.flatten(), values + first[:, None, None])


def _nearest(places: Tensor, length: Tensor, size: Tensor) -> Tensor:
    """`augmentation.nearest_source` at `places`, on the device."""
    return torch.minimum((places * (1 / (size.double() / length))).long(), length - 1)


def _linear(places: Tensor, length: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For places in the resized row, the two source pixels around them and the second one's weight: [B, n]."""
    where = ((places + 0.5) * (1 / (size.double() / length)) - 0.5).float()
    first = where.floor()
    weight = ((where - first) * WEIGHT).round().int()
    return first.long().clamp(min=0), torch.minimum(first.long() + 1, length - 1), weight


def _mixed(corners: Sequence[Tensor], down: Tensor, across: Tensor) -> Tensor:
    """Bilinear interpolation of four pixels, with weights [B, h] of the lower and [B, w] of the right ones.

    The shifts, which drop the lowest bits, are OpenCV's (VResizeLinear).
    """
    down, across = down[:, :, None], across[:, None]
    upper, lower = ((left * (WEIGHT - across) + right * across) >> 4 for left, right in (corners[:2], corners[2:]))
    return ((upper * (WEIGHT - down) >> 16) + (lower * down >> 16) + 2) >> 2
