"""Sparsity levels over time, in plain Python."""


def cubic(initial, target, epoch, start, frequency, updates, initially_zero=False):
    """Level of the gradual schedule of Zhu and Gupta, "To prune, or not to prune" (arXiv 1710.01878), equation 1.

    The level is updated at the epochs ``start + i * frequency`` for ``i`` up to ``updates`` and held in between and after.

    Args:
        initial: level s_0 at ``start``.
        target: level s_f from ``start + updates * frequency`` on.
        epoch: time t, in epochs, any integer.
        start: time t_0 of the first update, in epochs.
        frequency: epochs between two updates, at least 1.
        updates: number n of updates, at least 1.
        initially_zero: before ``start`` the level is 0 instead of ``initial``.

    Returns:
        float: the level at ``epoch``.
    """
    if epoch < start:
        return 0.0 if initially_zero else initial
    done = min((epoch - start) // frequency, updates)
    return target + (initial - target) * (1 - done / updates) ** 3


def scaled(base, factor, epochs):
    """Levels ``base * factor(epoch)`` for the epochs 0 to ``epochs - 1``; the schedule of LambdaSL.

    Args:
        base: final level of the group.
        factor: function of an integer epoch.
        epochs: length of the run.

    Returns:
        list[float]: one level an epoch.
    """
    return [base * factor(epoch) for epoch in range(epochs)]
