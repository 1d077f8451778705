"""What the operations of a block of code do."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Observer(TorchDispatchMode):
    """Counts the tensor operations that run, and notes the elements of the largest tensor that they return."""

    def __init__(self):
        super().__init__()
        self.operations = self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.operations += 1
        found = result if isinstance(result, tuple | list) else [result]
        self.elements = max([self.elements, *(each.numel() for each in found if isinstance(each, torch.Tensor))])
        return result
