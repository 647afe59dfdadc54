"""Figures of what the data cover: maps with gaps, scores along a trajectory, calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy.spatial import KDTree

from jaxvae_md.plot.style import (
    BLUE,
    DOTS,
    VERMILION,
    axis_limits,
    colorbar,
    finite_values,
    label_styles,
    legend_below,
    marker_size,
    new_figure,
    note_missing,
    short_number,
    style_axes,
)

_GRID = 160
"""points along each side of a map"""


def coverage_by_frame(
    scores_by_frame: Sequence[Float[np.ndarray, " n"]],
    threshold: float,
    labels: Sequence[str] | None = None,
    label_order: Sequence[str] | None = None,
    step: Sequence[int] | Int[np.ndarray, " k"] | None = None,
    left_at: int | None = None,
) -> Figure:
    """For every frame: the share of atoms outside the data, and the quantiles of their scores.

    **Arguments:** `scores_by_frame` coverage scores of each frame's atoms; `labels` of the
    frames colour the shares, `label_order` as in `latent_map`; `step` of the simulation at each
    frame; `left_at` the frame at which it left the data.

    ```python
    coverage_by_frame([score(atoms) for atoms in frames], threshold=1.2, labels=labels)
    ```
    """
    scores, frame = [finite_values(s) for s in scores_by_frame], np.arange(len(scores_by_frame))
    edges, levels = np.arange(len(scores) + 1) - 0.5, (0.05, 0.25, 0.5, 0.75, 0.95, 1)
    share = np.array([100 * np.mean(s > threshold) if len(s) else np.nan for s in scores])
    bands = np.array([np.quantile(s, levels) if len(s) else [np.nan] * 6 for s in scores]).T
    figure = new_figure(10.0, 6.2)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for low, high, color, text in ((0, 4, "#c6dbec", "5 to 95 %"), (1, 3, "#7fb2d6", "25 to 75 %")):
        band = {"baseline": bands[low], "fill": True, "color": color, "label": text}
        lower.stairs(bands[high], edges, **band)
    lower.stairs(bands[2], edges, baseline=None, color=BLUE, linewidth=1.5, label="median")
    lower.stairs(bands[5], edges, baseline=None, color="0.45", linewidth=0.9, label="highest")
    line = {"linestyle": "--", "linewidth": 1.5, "label": f"threshold {threshold:.3g}"}
    lower.axhline(threshold, color=VERMILION, **line)
    names = np.array([""] * len(scores) if labels is None else labels, str)
    styles = {"": (BLUE, "o")} if labels is None else label_styles(lower, names, label_order)
    for name, (color, marker) in styles.items():
        chosen = (names == name) & np.isfinite(share)
        upper.stairs(np.where(chosen, share, 0), edges, fill=True, color=color, alpha=0.35)
        style = {
            "s": 4 * marker_size(20 * len(scores)),
            "c": color,
            "marker": marker,
            "linewidth": 0,
        }
        upper.scatter(frame[chosen], share[chosen], clip_on=False, **style)
    worst = np.max(finite_values(share), initial=0.0)
    upper.set(xlim=(edges[0], edges[-1]), ylim=(0, np.clip(1.15 * worst, 5, 105)))
    upper.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    lower.set(ylim=axis_limits(np.append(bands[[0, 4]], threshold), bands[5], stretch=0.5))
    title = f"{np.sum(share > 0)} of {len(scores)} frames have atoms outside the data"
    if left_at is not None:
        for ax in (upper, lower):
            ax.axvline(left_at - 0.5, color="black", linewidth=1.2, linestyle=":")
        where = f"frame {left_at}" if step is None else f"step {step[left_at]}"
        title = f"Leaves the data at {where}: {title[0].lower()}{title[1:]}"
    if step is not None:
        shown = lambda at, _: str(step[int(at)]) if 0 <= at < len(step) and at == int(at) else ""
        lower.xaxis.set_major_formatter(FuncFormatter(shown))
    style_axes(upper, f"{title}, at most {worst:.3g} %", "", "atoms outside (%)")
    note_missing(lower, *scores_by_frame)
    style_axes(
        lower,
        "Coverage score of each frame's atoms",
        "frame" if step is None else "step",
        "coverage score",
    )
    legend_below(figure)
    return figure


def coverage_map(
    codes_train: Float[np.ndarray, "m 2"],
    codes_new: Float[np.ndarray, "k 2"],
    scores_new: Float[np.ndarray, " k"],
    threshold: float,
    axis_names: tuple[str, str] = ("latent dimension 1", "latent dimension 2"),
) -> Figure:
    """New environments, coloured by coverage score, over the training data in grey.

    Hatched: gaps, the places between the training data that are further from them than 99 % of
    them are from each other.

    ```python
    coverage_map(codes_train, codes_new, coverage_score, threshold=1.2)
    ```
    """
    figure = new_figure(8.0, 5.4)
    ax, name = figure.subplots(), f"training data ({len(codes_train):,})"
    ax.scatter(*np.transpose(codes_train), s=7, c="0.8", **DOTS)
    _draw_gaps(ax, np.asarray(codes_train, float))
    share = draw_scores(figure, ax, codes_new, scores_new, threshold)
    keys = ((name, "0.8", "o"), ("new, covered", BLUE, "o"), ("new, outside", VERMILION, "D"))
    for name, color, marker in keys:
        ax.scatter([], [], s=36, c=color, marker=marker, linewidth=0, label=name)
    ax.fill_between([], [], hatch="///", facecolor="none", edgecolor="0.75", label="gap")
    title = f"{len(codes_new):,} new environments: {share} outside the training data"
    style_axes(ax, title, *axis_names)
    legend_below(figure)
    return figure


def calibration(
    confidence: Float[np.ndarray, " m"], right: Bool[np.ndarray, " m"], num_bins: int = 10
) -> Figure:
    """How often the likeliest kind is right, against the probability that was stated for it.

    ```python
    calibration(np.asarray(found.probability).max(axis=1), np.asarray(found.kind) == truth)
    ```
    """
    confidence, right = np.asarray(confidence, float), np.asarray(right, bool)
    place = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    bins = [place == number for number in range(num_bins) if np.any(place == number)]
    stated, found = (
        np.array([values[part].mean() for part in bins]) for values in (confidence, right)
    )
    share = np.array([part.mean() for part in bins])
    figure = new_figure(6.4, 5.2)
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1.2, label="calibrated")
    ax.plot(stated, found, color=BLUE, linewidth=1.2, label="training data, own structure left out")
    ax.scatter(stated, found, s=30 + 400 * share, c=BLUE, linewidth=0, alpha=0.8, zorder=3)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02))
    error = float(np.sum(share * np.abs(stated - found)))
    title = f"Kinds: {right.mean():.1%} right; calibration error {error:.3f}"
    style_axes(ax, title, "stated probability (area: share of atoms)", "share that is right")
    legend_below(figure)
    return figure


def _draw_gaps(ax: Axes, codes: Float[np.ndarray, "m 2"]) -> None:
    if len(codes) < 3:
        return
    low, high = codes.min(axis=0), codes.max(axis=0)
    scale = np.where(high > low, high - low, 1)
    tree = KDTree((codes - low) / scale)
    usual = np.quantile(tree.query(tree.data, k=2)[0][:, 1], 0.99)
    axis = np.linspace(0, 1, _GRID)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    apart = tree.query(grid)[0]
    # what has training data on all sides, not all that is far away
    inside = np.ones(apart.shape, bool)
    for side in (0, 1):
        seen = np.cumsum(apart < usual, axis=side) > 0
        back = np.flip(np.cumsum(np.flip(apart < usual, side), axis=side), side) > 0
        inside &= seen & back
    gap = np.where(inside, apart, 0)
    if np.any(gap > usual):
        place = low + grid * scale
        style = {"levels": [usual, np.inf], "colors": "none", "hatches": ["///"]}
        drawn = ax.contourf(place[..., 0], place[..., 1], gap, zorder=0, **style)
        drawn.set_edgecolor("0.75")
        drawn.set_linewidth(0)


def draw_scores(figure: Figure, ax: Axes, codes, scores, threshold: float) -> str:
    """Environments coloured by coverage score, uncovered ones larger and on top; their share.

    Blue below the threshold and orange above, darker the further away.
    """
    codes, scores = np.reshape(np.asarray(codes, float), (-1, 2)), np.asarray(scores, float)
    outside, covered = np.flatnonzero(scores > threshold), np.flatnonzero(scores <= threshold)
    np.random.default_rng(0).shuffle(covered)
    outside = outside[np.argsort(scores[outside])]
    low = np.quantile([threshold, *finite_values(scores[covered])], 0.005)
    high = np.quantile([threshold, *finite_values(scores[outside])], 0.98)
    least = 0.02 * (high - low) or 1e-6
    low, high = min(low, threshold - least), max(high, threshold + least)
    at = (threshold - low) / (high - low)
    stops = [(0, "#08306b"), (at / 2, BLUE), (at, "#a6cbe3")]
    stops += [(at, "#f6b26b"), ((1 + at) / 2, VERMILION), (1, "#6b1f00")]
    colors = LinearSegmentedColormap.from_list("coverage", stops, 1024)
    style = {"cmap": colors, "norm": Normalize(low, high), "edgecolor": "white", **DOTS}
    for part, marker, scale, edge in ((covered, "o", 1, 0), (outside, "D", 2.5, 0.25)):
        style |= {"s": scale * marker_size(len(scores)), "linewidth": edge, "zorder": 2 + edge}
        drawn = ax.scatter(*codes[part].T, c=scores[part], marker=marker, **style)
    beyond = (np.min(scores, initial=low) < low, np.max(scores, initial=high) > high)
    extend = {(1, 1): "both", (1, 0): "min", (0, 1): "max"}.get(beyond, "neither")
    label = f"coverage score (line: threshold {threshold:.3g})"
    bar = colorbar(figure, drawn, label, extend=extend)
    bar.ax.axhline(threshold, color="black", linewidth=2)
    note_missing(ax, scores, codes)
    return f"{short_number(100 * len(outside) / max(len(scores), 1))} %"
