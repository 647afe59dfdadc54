"""Colours, sizes and marks that all figures share, and the parts that several of them draw.

Private to `jaxvae_md.plot`, except for the colours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK, YELLOW = "#CC79A7", "#56B4E9", "#000000", "#F0E442"
COLORS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, YELLOW)
"""Okabe and Ito's colours, which readers with any colour vision tell apart."""
DISTINCT = (VERMILION, BLUE, GREEN, PURPLE)
"""over a grey reference"""
DASHES = ("-", (0, (5, 2)), (0, (5, 1.5, 1, 1.5)), (0, (1.5, 1.2)))
DOTS = {"linewidth": 0, "alpha": 0.85, "rasterized": True}
LEGEND = {"fontsize": 9, "framealpha": 0.9, "edgecolor": "0.8"}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def style_axes(ax: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """The same sizes, grid and spines everywhere."""
    ax.set_title(title, fontsize=11, loc="left")
    ax.set_xlabel(xlabel, fontsize=10)
    ax.set_ylabel(ylabel, fontsize=10)
    ax.tick_params(labelsize=9, color="0.6")
    ax.grid(True, color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("0.6")


def legend_below(figure) -> None:
    """One legend of everything that has a label, as wide as the figure allows."""
    found = [ax.get_legend_handles_labels() for ax in figure.axes]
    handles, texts = [h for hs, _ in found for h in hs], [t for _, ts in found for t in ts]
    room = figure.bbox.width / 150 * 14 / (max(map(len, texts), default=0) + 7)
    rows = -(-len(texts) // max(1, int(room))) or 1
    style = {"loc": "outside lower center", "fontsize": 9, "frameon": False}
    figure.legend(handles, texts, ncols=-(-len(texts) // rows) or 1, **style)


def label_styles(ax: Axes, labels, order: Sequence[str] | None) -> dict[str, tuple[str, str]]:
    """Colour and marker (56 pairs) of every label that occurs, entered into the legend."""
    order = [] if order is None else [str(name) for name in order]
    names = [*order, *sorted(set(labels.tolist()) - set(order))]
    pairs = {name: (COLORS[i % 8], "os^DvPX"[i % 7]) for i, name in enumerate(names)}
    for name in (present := [name for name in names if name in labels]):
        color, marker = pairs[name]
        ax.scatter([], [], s=36, c=color, marker=marker, linewidth=0, label=name)
    return {name: pairs[name] for name in present}


def marker_size(num: int) -> float:
    """Marker area that keeps many points apart and few visible."""
    return float(np.clip(120 / max(num, 1) ** 0.4, 4.5, 22))


def short_number(value) -> str:
    """Three digits, or thousands in full, with a real minus sign."""
    text = f"{value:.3g}" if not 1000 <= abs(value) < 1e6 else f"{value:,.0f}"
    return text.replace("-", "\N{MINUS SIGN}")


def finite_values(*values) -> np.ndarray:
    """All that is finite in the arrays, in one flat array."""
    flat = np.concatenate([np.ravel(np.asarray(v, float)) for v in values] or [np.zeros(0)])
    return flat[np.isfinite(flat)]


def note_missing(ax: Axes, *values) -> None:
    """Count what is not finite, and so not drawn, in the corner."""
    missing = sum(np.size(v) for v in values) - finite_values(*values).size
    note(ax, f"{missing:,} values are not finite" if missing else "")


def note(ax: Axes, text: str) -> None:
    """A remark in the lower right corner, over the data."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.92 if text else 0, "pad": 2}
    style = {"ha": "right", "va": "bottom", "style": "italic", "color": "0.3", "zorder": 6}
    ax.text(0.985, 0.02, text, transform=ax.transAxes, fontsize=8, bbox=box, **style)


def axis_limits(main, *others, tail: float = 0.0, stretch: float = 0.0) -> tuple[float, float]:
    """Range of `main` (without `tail` of it), stretched towards the others by so many spans."""
    main, every = finite_values(main), finite_values(main, *others)
    main = main if main.size else every if every.size else np.array([0.0, 1.0])
    (low, high), ends = (np.quantile(v, [tail, 1 - tail]) for v in (main, [*every, *main]))
    span = max(high - low, 1e-3 * max(abs(low), abs(high)), 1e-9)
    low = max(min(low, ends[0]), low - stretch * span)
    high = min(max(high, ends[1]), high + stretch * span)
    margin = 0.05 * max(high - low, span)
    return float(low - margin), float(high + margin)


def square_axes(ax: Axes, limits: tuple[float, float], x: np.ndarray, y: np.ndarray) -> None:
    """Equal axes, the diagonal, and a note on the points that they leave out."""
    ax.axline((limits[0], limits[0]), slope=1, color="0.25", linewidth=1.0, linestyle="--")
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    inside = (np.minimum(x, y) >= limits[0]) & (np.maximum(x, y) <= limits[1])
    what = "outside the axes" if np.isfinite(x + y).all() else "outside the axes or not finite"
    note(ax, "" if inside.all() else f"{short_number(100 * np.mean(~inside))} % {what}")


def density_parity(ax: Axes, x, y, limits: tuple[float, float]):
    """Hexagons coloured by the number of points; `density_bar` sets their norm."""
    x, y = np.ravel(np.asarray(x, float)), np.ravel(np.asarray(y, float))
    style = {"gridsize": 72, "mincnt": 1, "linewidths": 0.1, "rasterized": True}
    good = np.isfinite(x) & np.isfinite(y)
    drawn = ax.hexbin(x[good], y[good], extent=(*limits, *limits), cmap="viridis", **style)
    square_axes(ax, limits, x, y)
    return drawn


def density_bar(figure: Figure, drawn: Sequence, label: str) -> None:
    """One logarithmic colour scale for several densities, beside the last."""
    norm = LogNorm(1, max(np.max(np.asarray(d.get_array()), initial=2) for d in drawn))
    for density in drawn:
        density.set_norm(norm)
    colorbar(figure, drawn[-1], label)


def colorbar(figure: Figure, drawn, label: str, **style):
    """A colour bar as high as the axes of what was drawn, to their right."""
    bar = figure.colorbar(drawn, cax=drawn.axes.inset_axes((1.03, 0, 0.04, 1)), **style)
    bar.set_label(label, fontsize=10)
    bar.ax.tick_params(labelsize=9)
    return bar
