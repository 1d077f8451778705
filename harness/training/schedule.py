"""The learning rate as a function of the iteration only."""

from harness.experiment.schema import Schedule


def learning_rate(schedule: Schedule, iteration: int) -> float:
    """The learning rate of 0-based `iteration`.

    poly:   minimum + (base - minimum) * (1 - iteration / iterations) ** power
    linear: the same with power 1.   constant: base.
    The first `warmup` iterations multiply this by a factor that rises linearly from `warmup_ratio` to 1.
    """
    base, minimum = schedule.learning_rate, schedule.minimum_learning_rate
    power = {"poly": schedule.power, "linear": 1.0, "constant": 0.0}[schedule.policy]
    rate = minimum + (base - minimum) * (1 - iteration / schedule.iterations) ** power
    if iteration < schedule.warmup:
        rate *= schedule.warmup_ratio + (1 - schedule.warmup_ratio) * (iteration + 1) / schedule.warmup
    return rate
