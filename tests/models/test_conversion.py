"""Checkpoints under other programs' names: the network gives the features that their own arithmetic gives.

`swin` and `mit` are the papers' networks written down as functions of the authors' state dicts.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from harness.models import load_spec
from harness.models.building import from_spec

WINDOW, DEPTHS, HEADS = 4, (2, 2, 2, 2), (1, 2, 2, 2)


def changed(name, **overrides):
    return load_spec(name).model_copy(update={"overrides": overrides})


def normed(x, state=None, name="", eps=1e-5):
    affine = (state[f"{name}.weight"], state[f"{name}.bias"]) if state else (None, None)
    return F.layer_norm(x, x.shape[-1:], *affine, eps=eps)


def linear(x, state, name):
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


# --- Swin (Liu et al., ICCV 2021)


def swin_shapes(width):
    shapes = {"patch_embed.proj": (width, 3, 4, 4), "patch_embed.norm": (width,), "norm": (8 * width,)}
    shapes["head"] = (10, 8 * width)
    for i, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        c = width * 2**i
        for j in range(depth):
            block = f"layers.{i}.blocks.{j}"
            shapes |= {f"{block}.norm1": (c,), f"{block}.attn.qkv": (3 * c, c), f"{block}.attn.proj": (c, c)}
            shapes |= {f"{block}.norm2": (c,), f"{block}.mlp.fc1": (4 * c, c), f"{block}.mlp.fc2": (c, 4 * c)}
            shapes[f"{block}.attn.relative_position_bias_table!"] = ((2 * WINDOW - 1) ** 2, heads)
        if i < 3:
            shapes |= {
                f"layers.{i}.downsample.norm": (4 * c,),
                f"layers.{i}.downsample.reduction!.weight": (2 * c, 4 * c),
            }
    return shapes


def drawn(shapes):
    """Random tensors: a weight and a bias of every entry, one tensor alone where its name has a "!"."""
    state = {}
    for name, shape in shapes.items():
        if "!" in name:
            state[name.replace("!", "")] = torch.randn(shape) * 0.3
        else:
            state[f"{name}.weight"] = torch.randn(shape) * 0.3
            state[f"{name}.bias"] = torch.randn(shape[0]) * 0.3
    return state


def relative_position_index():
    place = torch.stack(torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij")).flatten(1)
    apart = place[:, :, None] - place[:, None, :] + WINDOW - 1
    return apart[0] * (2 * WINDOW - 1) + apart[1]


def windows(x):
    b, h, w, c = x.shape
    return x.view(b, h // WINDOW, WINDOW, w // WINDOW, WINDOW, c).transpose(2, 3).reshape(-1, WINDOW**2, c)


def swin(state, images, depths=DEPTHS, heads_of=HEADS):
    x = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=4)
    x = normed(x.permute(0, 2, 3, 1), state, "patch_embed.norm")
    outputs = []
    for i, (depth, heads) in enumerate(zip(depths, heads_of, strict=True)):
        for j in range(depth):
            x = swin_block(x, state, f"layers.{i}.blocks.{j}", heads, WINDOW // 2 if j % 2 else 0)
        outputs.append(normed(x).permute(0, 3, 1, 2))
        if i < 3:
            corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
            merged = normed(torch.cat(corners, -1), state, f"layers.{i}.downsample.norm")
            x = linear(merged, state, f"layers.{i}.downsample.reduction")
    return outputs


def swin_block(x, state, name, heads, shift):
    b, h, w, c = x.shape
    inside = normed(x, state, f"{name}.norm1").roll((-shift, -shift), (1, 2))
    q, k, v = linear(windows(inside), state, f"{name}.attn.qkv").unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    table = state[f"{name}.attn.relative_position_bias_table"]
    scores = q @ k.transpose(-1, -2) / math.sqrt(c // heads) + table[relative_position_index()].permute(2, 0, 1)
    if shift:  # pixels that were rolled around do not see the others
        band = torch.zeros(h)
        band[-WINDOW:], band[-shift:] = 1, 2
        region = windows((band[:, None] * 3 + band[:w])[None, :, :, None].expand(b, -1, -1, 1))
        scores = scores - 100.0 * (region != region.transpose(1, 2))[:, None]
    out = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    out = linear(out, state, f"{name}.attn.proj").view(b, h // WINDOW, w // WINDOW, WINDOW, WINDOW, c)
    x = x + out.transpose(2, 3).reshape(b, h, w, c).roll((shift, shift), (1, 2))
    hidden = F.gelu(linear(normed(x, state, f"{name}.norm2"), state, f"{name}.mlp.fc1"))
    return x + linear(hidden, state, f"{name}.mlp.fc2")


@pytest.fixture
def swin_spec():
    backbone = {"embed_dims": 8, "depths": DEPTHS, "num_heads": HEADS, "window_size": WINDOW}
    head = {"in_channels": [8, 16, 32, 64], "channels": 8}
    auxiliary = {"in_channels": 32, "channels": 8}
    spec = changed("upernet_swin_t_stages", backbone=backbone, decode_head=head, auxiliary_head=auxiliary)
    return spec.model_copy(update={"taps": spec.taps.model_copy(update={"channels": (8, 16, 32, 64)})})


def test_swins_own_file_gives_swins_own_features(swin_spec, tmp_path, caplog):
    torch.manual_seed(0)
    state = drawn(swin_shapes(8))
    state["layers.0.blocks.0.attn.relative_position_index"] = relative_position_index()
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(4, WINDOW**2, WINDOW**2)
    torch.save({"model": state}, tmp_path / "swin.pth")
    network = from_spec(swin_spec, 5, tmp_path / "swin.pth").eval()
    assert network.initial_weights.unused == ()
    assert network.initial_weights.unfilled == tuple(
        f"backbone.norm{i}.{part}" for i in range(4) for part in ("weight", "bias")
    )
    images = torch.randint(0, 256, (1, 3, 128, 128))
    with torch.no_grad():
        found = network.features(images)
        expected = swin(state, network.normalized(images))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


# --- SegFormer's encoder (Xie et al., NeurIPS 2021)

WIDTHS, MIT_HEADS, RATIOS = (8, 8, 16, 16), (1, 1, 2, 2), (8, 4, 2, 1)


def mit_shapes():
    shapes, before = {"head": (10, WIDTHS[-1])}, 3
    for i, (c, ratio) in enumerate(zip(WIDTHS, RATIOS, strict=True), 1):
        size = 7 if i == 1 else 3
        shapes |= {f"patch_embed{i}.proj": (c, before, size, size), f"patch_embed{i}.norm": (c,), f"norm{i}": (c,)}
        block = f"block{i}.0"
        shapes |= {f"{block}.norm1": (c,), f"{block}.attn.q": (c, c), f"{block}.attn.kv": (2 * c, c)}
        shapes |= {f"{block}.attn.proj": (c, c), f"{block}.norm2": (c,), f"{block}.mlp.fc1": (4 * c, c)}
        shapes |= {f"{block}.mlp.dwconv.dwconv": (4 * c, 1, 3, 3), f"{block}.mlp.fc2": (c, 4 * c)}
        if ratio > 1:
            shapes |= {f"{block}.attn.sr": (c, c, ratio, ratio), f"{block}.attn.norm": (c,)}
        before = c
    return shapes


def normed_mit(x, state, name):
    return normed(x, state, name, eps=1e-6)  # mmsegmentation's


def mit(state, x):
    outputs = []
    for i, (heads, ratio) in enumerate(zip(MIT_HEADS, RATIOS, strict=True), 1):
        stride, padding = (4, 3) if i == 1 else (2, 1)
        embed = f"patch_embed{i}.proj"
        x = F.conv2d(x, state[f"{embed}.weight"], state[f"{embed}.bias"], stride=stride, padding=padding)
        h, w = x.shape[-2:]
        x = normed_mit(x.flatten(2).transpose(1, 2), state, f"patch_embed{i}.norm")
        x = mit_block(x, state, f"block{i}.0", heads, ratio, (h, w))
        x = normed_mit(x, state, f"norm{i}").transpose(1, 2).unflatten(2, (h, w))
        outputs.append(x)
    return outputs


def mit_block(x, state, name, heads, ratio, size):
    inside = normed_mit(x, state, f"{name}.norm1")
    q = linear(inside, state, f"{name}.attn.q").unflatten(-1, (heads, -1)).transpose(1, 2)
    if ratio > 1:
        image = inside.transpose(1, 2).unflatten(2, size)
        image = F.conv2d(image, state[f"{name}.attn.sr.weight"], state[f"{name}.attn.sr.bias"], stride=ratio)
        inside = normed_mit(image.flatten(2).transpose(1, 2), state, f"{name}.attn.norm")
    k, v = linear(inside, state, f"{name}.attn.kv").unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    out = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v
    x = x + linear(out.transpose(1, 2).flatten(2), state, f"{name}.attn.proj")
    hidden = linear(normed_mit(x, state, f"{name}.norm2"), state, f"{name}.mlp.fc1")
    conv = f"{name}.mlp.dwconv.dwconv"
    image = hidden.transpose(1, 2).unflatten(2, size)
    image = F.conv2d(image, state[f"{conv}.weight"], state[f"{conv}.bias"], padding=1, groups=image.shape[1])
    return x + linear(F.gelu(image.flatten(2).transpose(1, 2)), state, f"{name}.mlp.fc2")


def test_segformers_own_file_gives_its_own_features(tmp_path):
    backbone = {"embed_dims": 8, "num_heads": MIT_HEADS, "num_layers": [1, 1, 1, 1]}
    spec = changed("segformer_b0", backbone=backbone, decode_head={"in_channels": list(WIDTHS), "channels": 8})
    torch.manual_seed(0)
    state = drawn(mit_shapes())
    torch.save(state, tmp_path / "mit_b0.pth")
    network = from_spec(spec, 5, tmp_path / "mit_b0.pth").eval()
    assert (network.initial_weights.unused, network.initial_weights.unfilled) == ((), ())
    images = torch.randint(0, 256, (1, 3, 64, 96))
    with torch.no_grad():
        found, expected = network.features(images), mit(state, network.normalized(images))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
