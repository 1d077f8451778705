"""Converts the authors' checkpoints of Swin and SegFormer to mmsegmentation's names.

The converted network gives the same features as the authors' code (tests/models/test_conversion.py).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Rule = tuple[str, str | Callable[[re.Match[str]], str]]


@dataclass(frozen=True)
class Dialect:
    """A program's naming scheme for a backbone.

    mark: a name that identifies its files; target: a name that identifies networks that can take them; rules: regular
    expressions from the file's names to the network's; dropped: names in the file that the network does not need.
    """

    mark: str
    target: str
    rules: tuple[Rule, ...]
    dropped: str


def _before(match: re.Match[str], part: str) -> str:
    """The name in the network; the file counts stages from 1, the network layers from 0."""
    return f"layers.{int(match[1]) - 1}.{part}"


SWIN = Dialect(  # Liu et al., ICCV 2021, the authors' files
    mark="layers.0.blocks.0.attn.qkv.weight",
    target="stages.0.blocks.0.attn.w_msa.qkv.weight",
    rules=(
        (r"^patch_embed\.proj\.", "patch_embed.projection."),
        (r"^layers\.(\d+)\.", r"stages.\1."),
        (r"\.attn\.", ".attn.w_msa."),
        (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
        (r"\.mlp\.fc2\.", ".ffn.layers.1."),
    ),
    dropped=r".*\.attn_mask|norm\..*|head\..*",
)
MIT = Dialect(  # SegFormer's encoder (Xie et al., NeurIPS 2021), the authors' files
    mark="patch_embed1.proj.weight",
    target="layers.0.1.0.attn.attn.in_proj_weight",
    rules=(
        (r"^patch_embed(\d)\.proj\.", lambda match: _before(match, "0.projection.")),
        (r"^patch_embed(\d)\.norm\.", lambda match: _before(match, "0.norm.")),
        (r"^block(\d)\.", lambda match: _before(match, "1.")),
        (r"^norm(\d)\.", lambda match: _before(match, "2.")),
        (r"\.attn\.(?:q|kv)\.", ".attn.attn.in_proj_"),
        (r"\.attn\.proj\.", ".attn.attn.out_proj."),
        (r"\.mlp\.fc1\.", ".ffn.layers.0."),
        (r"\.mlp\.dwconv\.dwconv\.", ".ffn.layers.1."),
        (r"\.mlp\.fc2\.", ".ffn.layers.4."),
    ),
    dropped=r"head\..*",
)
DIALECTS = (SWIN, MIT)


def dialect_of(names: Mapping[str, object], target: Mapping[str, object]) -> Dialect | None:
    """The dialect of the file's `names` if a backbone with the names `target` can take it, or None."""
    return next((each for each in DIALECTS if each.mark in names and each.target in target), None)


def convert(dialect: Dialect, state: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, tuple[str, ...]]]:
    """{name in the backbone: (tensor, the names in the file that it was made from)}."""
    sources: dict[str, list[str]] = {}
    for name in state:
        ours = name
        for pattern, replacement in dialect.rules:
            ours = re.sub(pattern, replacement, ours)
        sources.setdefault(ours, []).append(name)
    found = {}
    for ours, names in sources.items():
        names.sort(key=lambda name: ".kv." in name)  # torch's attention stacks query, key and value
        tensor = torch.cat([state[name] for name in names]) if len(names) > 1 else state[names[0]]
        if dialect is MIT and re.search(r"\.ffn\.layers\.[04]\.weight$", ours):
            tensor = tensor[..., None, None]  # linear layers are 1x1 convolutions here
        if dialect is SWIN and ".downsample." in ours:
            tensor = _unfold_order(tensor)
        found[ours] = tensor, tuple(names)
    return found


def _unfold_order(tensor: Tensor) -> Tensor:
    """The last axis of Swin's patch merging, [..., 4 C], reordered as `torch.nn.Unfold` orders it.

    Swin concatenates the pixels (0, 0), (1, 0), (0, 1), (1, 1) of each 2x2 block, C channels at a time; unfolding
    takes one channel at a time and its pixels in reading order.
    """
    blocks = tensor.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :]
    return blocks.transpose(-1, -2).flatten(-2)
