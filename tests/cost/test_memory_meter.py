import pytest
import torch

from harness.cost.memory import held_bytes, peak_bytes

CPU, MEBIBYTE = torch.device("cpu"), 2**20


def test_the_meter_counts_what_is_held_at_a_time():
    def step():
        for _ in range(3):
            a = torch.zeros(MEBIBYTE)  # 4 MiB
            b = torch.zeros(MEBIBYTE)
            del a, b

    assert peak_bytes(step, CPU) == pytest.approx(8 * MEBIBYTE, rel=0.01)


def test_the_meter_counts_what_backward_needs():
    x = torch.zeros(MEBIBYTE, requires_grad=True)

    def step():
        x.exp().exp().sum().backward()

    # Both results are kept for the backward pass, which makes a gradient of the second (times its result: one more).
    assert 4 * 3 * MEBIBYTE <= peak_bytes(step, CPU) <= 4 * 4.1 * MEBIBYTE


def test_held_bytes_count_a_shared_storage_once():
    whole = torch.zeros(1000, dtype=torch.float64)
    assert held_bytes([whole, whole[:10], whole.view(10, 100), torch.zeros(3, dtype=torch.uint8)]) == 8003
    assert held_bytes([]) == 0
