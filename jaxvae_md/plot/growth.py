"""Figures and movies of a growing film."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from jaxvae_md.plot.style import legend_below, new_figure, style_axes

_SHOWN = 0.98
"""share of the atoms that a picture reaches up to"""


class Snapshot(NamedTuple):
    """Atoms at one moment, each of a kind that has a colour."""

    position: Float[np.ndarray, "n 3"]
    """angstrom"""
    cell: Float[np.ndarray, "3 3"]
    symbols: Sequence[str]
    kinds: Sequence[str]
    title: str


def film(
    snapshots: Sequence[Snapshot],
    colors: Mapping[str, str],
    curves: Mapping[str, tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]] | None = None,
    axes_labels: tuple[str, str] = ("time (ps)", "thickness (angstrom)"),
) -> Figure:
    """A few moments seen from the side, coloured by kind, and curves beside them.

    **Arguments:** `colors` by kind; `curves` of x and y by name.

    ```python
    film(snapshots, {"bcc": plot.BLUE, "other": plot.ORANGE}).savefig("film.png")
    ```
    """
    num = len(snapshots) + bool(curves)
    figure = new_figure(2.6 * num + 1.0 * bool(curves), 4.6)
    widths = [1.0] * len(snapshots) + [1.6] * bool(curves)
    axes = figure.subplots(1, num, width_ratios=widths, squeeze=False)[0]
    limits = _limits(snapshots)
    for ax, snapshot in zip(axes, snapshots, strict=False):
        _draw(ax, snapshot, colors, limits)
    for name, color in colors.items():
        axes[0].scatter([], [], s=40, color=color, label=name)
    if curves:
        style_axes(axes[-1], "", *axes_labels)
        for name, (x, y) in curves.items():
            axes[-1].plot(x, y, label=name)
    legend_below(figure)
    return figure


def film_movie(
    path: str | Path,
    snapshots: Sequence[Snapshot],
    colors: Mapping[str, str],
    frames_per_second: int = 8,
) -> None:
    """Writes the moments as a GIF, seen from the side and coloured by kind.

    ```python
    film_movie("film.gif", snapshots, {"bcc": plot.BLUE, "other": plot.ORANGE})
    ```
    """
    from matplotlib.animation import PillowWriter

    figure = Figure(figsize=(3.4, 4.6), dpi=100, layout="constrained", facecolor="white")
    ax = figure.subplots()
    for name, color in colors.items():
        ax.scatter([], [], s=30, color=color, label=name)
    legend_below(figure)
    limits = _limits(snapshots)
    writer = PillowWriter(fps=frames_per_second)
    with writer.saving(figure, str(path), dpi=100):
        for snapshot in snapshots:
            ax.clear()
            _draw(ax, snapshot, colors, limits)
            writer.grab_frame()


def _limits(snapshots: Sequence[Snapshot]) -> tuple[float, float, float, float]:
    """What all moments take up: the cell's width, and the heights without what flies above."""
    width = max(float(snapshot.cell[0, 0]) for snapshot in snapshots)
    heights = [np.asarray(snapshot.position)[:, 2] for snapshot in snapshots]
    top = max(float(np.quantile(height, _SHOWN)) for height in heights)
    return -1.0, width + 1.0, min(float(height.min()) for height in heights) - 2.0, top + 4.0


def _draw(ax: Axes, snapshot: Snapshot, colors: Mapping[str, str], limits) -> None:
    """Seen along y: what is nearer is darker and drawn later."""
    position, cell = np.asarray(snapshot.position), np.asarray(snapshot.cell)
    lateral = position[:, :2] @ np.linalg.inv(cell[:2, :2])
    x, y = ((lateral - np.floor(lateral)) @ cell[:2, :2]).T
    order = np.argsort(-y)
    near = (1 - y[order] / max(y.max(), 1e-9))[:, None]
    kinds, symbols = (np.asarray(of)[order].tolist() for of in (snapshot.kinds, snapshot.symbols))
    face = np.array([to_rgb(colors[kind]) for kind in kinds])
    face = (0.35 + 0.65 * near) * face + 0.65 * (1 - near)
    size = np.array([1.5 * covalent_radii[atomic_numbers[symbol]] for symbol in symbols])
    style = {"facecolors": face, "edgecolors": 0.5 * face, "linewidths": 0.4, "units": "xy"}
    offsets = np.column_stack([x[order], position[order, 2]])
    place = {"offsets": offsets, "offset_transform": ax.transData}
    ax.add_collection(EllipseCollection(size, size, 0 * size, **place, **style))
    ax.set(xlim=limits[:2], ylim=limits[2:], xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)
    ax.set_title(snapshot.title, fontsize=9)
