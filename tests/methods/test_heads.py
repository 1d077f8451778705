import torch

from methods.heads import norm_relu_head, relu_norm_head


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
