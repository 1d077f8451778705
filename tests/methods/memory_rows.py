"""What a memory holds."""


def rows(queues):
    """All stored vectors and their classes."""
    slots, stored = queues.slots()
    return slots[stored], stored.nonzero()[:, 0]
