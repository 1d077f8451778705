import torch
import torch.nn.functional as F

from methods.heads import norm_relu_head, relu_norm_head
from methods.pixel_contrast import PixelContrast


def batch_norm(x):
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def test_heads_are_pixel_wise_and_norm_and_relu_come_in_the_order_of_their_names():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5)
    for head in (relu_norm_head, norm_relu_head):
        layers = head(3, 7)
        first, *_, last = layers
        inner = torch.einsum("oc,bchw->bohw", first.weight[:, :, 0, 0], x)
        inner = batch_norm(inner.relu()) if head is relu_norm_head else batch_norm(inner).relu()
        expected = torch.einsum("oc,bchw->bohw", last.weight[:, :, 0, 0], inner) + last.bias[:, None, None]
        torch.testing.assert_close(layers(x), expected, rtol=1e-4, atol=1e-5)


def test_heads_do_not_normalise_their_output():
    torch.manual_seed(0)
    lengths = relu_norm_head(3, 7)(torch.randn(2, 3, 4, 5)).norm(dim=1)
    assert lengths.std() > 0.01


def test_a_projection_takes_the_maps_upsampled_to_the_finest_and_concatenated():
    torch.manual_seed(0)
    features = [torch.randn(2, 3, 8, 12), torch.randn(2, 5, 4, 6), torch.randn(2, 2, 2, 3)]
    for layers, size in ((None, (8, 12)), ([1, -1], (4, 6)), ([2], (2, 3))):
        method = PixelContrast([3, 5, 2], 4, dim=7, layers=layers)
        used = features if layers is None else [features[i] for i in layers]
        fused = torch.cat([F.interpolate(f, size, mode="bilinear", align_corners=True) for f in used], 1)
        torch.testing.assert_close(method.embed(features), [method.head(fused)])
