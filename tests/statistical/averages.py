"""Averages of long runs, with errors from block averages."""

import numpy as np


def mean_and_error(values, num_blocks: int = 20) -> tuple[float, float]:
    """Mean over the later nine tenths, and its standard error from block averages."""
    values = np.asarray(values)[len(values) // 10 :]
    blocks = [block.mean() for block in np.array_split(values, num_blocks)]
    return float(np.mean(blocks)), float(np.std(blocks, ddof=1) / num_blocks**0.5)


def assert_mean(values, expected: float, largest_error: float) -> None:
    mean, error = mean_and_error(values)
    assert error < largest_error * expected, "too short a run to tell"
    assert abs(mean - expected) < 3 * error, f"{mean:.4g} +- {error:.2g}, not {expected:.4g}"
