"""Figure of a potential that learns: its errors against the labels that were spent."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from jaxvae_md.plot.style import COLORS, DASHES, legend_below, new_figure, style_axes


def learning_curves(
    errors: Mapping[str, Mapping[str, Float[np.ndarray, "seeds points"]]],
    num_labels: Mapping[str, Float[np.ndarray, " points"]],
    ylabel: str = "force MAE (meV/Å)",
) -> Figure:
    """Errors against labels, a panel for each kind and a line for each way to choose.

    Lines are geometric means over seeds, bands the range of the seeds.

    **Arguments:** `errors[kind][way]`, positive, of each seed after each round; `num_labels[way]`
    that had been spent then.

    ```python
    learning_curves({"melt": {"random": errors}}, {"random": np.array([0, 10, 20])})
    ```
    """
    columns = min(4, len(errors))
    rows = -(-len(errors) // columns)
    figure = new_figure(3.2 * columns + 0.6, 0.5 + 3.1 * rows)
    for place, (kind, by_way) in enumerate(errors.items()):
        ax = figure.add_subplot(rows, columns, place + 1)
        for number, (way, values) in enumerate(by_way.items()):
            color, x = COLORS[number % 7], num_labels[way]
            style = {
                "color": color,
                "linestyle": DASHES[number // 4 % 4],
                "label": way if place == 0 else None,
            }
            mean = np.exp(np.mean(np.log(values), axis=0))
            width = 2.4 if number == 0 else 1.4
            ax.plot(x, mean, marker="o", markersize=4, linewidth=width, zorder=4 - number, **style)
            ax.fill_between(x, *_range(values), color=color, alpha=0.12, linewidth=0)
        ax.set_yscale("log")
        ax.yaxis.set_minor_formatter("{x:.0f}")
        ax.yaxis.set_major_formatter("{x:.0f}")
        ax.tick_params(axis="y", which="minor", labelsize=7)
        style_axes(ax, kind, "labels", "" if place % columns else ylabel)
    legend_below(figure)
    return figure


def _range(values: Float[np.ndarray, "seeds points"]) -> tuple[np.ndarray, np.ndarray]:
    return np.min(values, axis=0), np.max(values, axis=0)
