"""Figures of environments: the VAE's reconstruction, latent space, and coverage by the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxvae_md.plot.style import (
    BLUE,
    DASHES,
    DISTINCT,
    DOTS,
    ORANGE,
    VERMILION,
    axis_limits,
    colorbar,
    density_bar,
    density_parity,
    finite_values,
    label_styles,
    legend_below,
    marker_size,
    new_figure,
    note_missing,
    short_number,
    style_axes,
)


def reconstruction(
    x: Float[np.ndarray, "m f"],
    by_vae: Float[np.ndarray, "m f"],
    by_pca: Float[np.ndarray, "m f"],
    latent_dim: int,
) -> Figure:
    """Held-out standardised descriptors against their reconstructions by VAE and by PCA.

    Two parity panels (density of values), and the R2 of every component for both.

    ```python
    reconstruction(z_test, decoded, pca_reconstruction(z_train, z_test, 8)[0], latent_dim=8)
    ```
    """
    x, figure = np.asarray(x, float), new_figure(10.0, 8.4)
    panels = figure.subplot_mosaic([["VAE", "PCA"], ["r2", "r2"]], height_ratios=[2, 1])
    limits, bars = axis_limits(x, by_vae, by_pca, tail=5e-4, stretch=0.1), panels["r2"]
    drawn, component, total = [], np.arange(x.shape[1]), np.sum((x - x.mean(axis=0)) ** 2, axis=0)
    r2 = {}
    for name, by, what in (("VAE", by_vae, "latent dimensions"), ("PCA", by_pca, "components")):
        r2[name] = 1 - np.sum((x - by) ** 2, axis=0) / np.where(total > 0, total, 1)
        worst = np.argmin(r2[name])
        title = f"{name}, {latent_dim} {what}: R² mean {np.mean(r2[name]):.3f}\n"
        title += f"worst {r2[name][worst]:.3f} (descriptor component {worst})"
        drawn.append(density_parity(panels[name], x, by, limits))
        style_axes(panels[name], title, "held-out descriptor (standardised)", "reconstruction")
        shift, color = (-0.2, BLUE) if name == "VAE" else (0.2, ORANGE)
        bars.bar(component + shift, r2[name], 0.4, color=color, label=name)
    density_bar(figure, drawn, "values per hexagon")
    lowest = np.min(finite_values(*r2.values()), initial=0.0)
    bars.set(xlim=(-0.7, len(component) - 0.3), ylim=(max(-0.5, lowest), 1))
    ahead = f"the VAE is ahead in {np.sum(r2['VAE'] > r2['PCA'])} of {len(component)}"
    style_axes(bars, f"R² of every descriptor component: {ahead}", "descriptor component", "R²")
    legend_below(figure)
    return figure


def latent_map(
    codes: Float[np.ndarray, "m 2"],
    labels: Sequence[str],
    scores: Float[np.ndarray, " m"],
    threshold: float,
    generated: Float[np.ndarray, "g 2"] | None = None,
    axis_names: tuple[str, str] = ("latent dimension 1", "latent dimension 2"),
    label_order: Sequence[str] | None = None,
) -> Figure:
    """Two latent dimensions of the environments: by label, and by coverage score.

    Rare labels are drawn over abundant ones, uncovered environments (score above the threshold)
    over covered ones, and `generated` environments as stars over all.

    **Arguments:** `label_order` all labels of the data set, so that a label keeps its colour from
    figure to figure (default: the sorted labels that occur).

    ```python
    latent_map(codes, labels, scores, threshold=1.2, generated=codes_of_targets)
    ```
    """
    codes, kinds, figure = np.asarray(codes, float), np.asarray(labels, str), new_figure(10.0, 5.0)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    styles = label_styles(left, kinds, label_order)
    for place, name in enumerate(sorted(styles, key=lambda name: -np.sum(kinds == name))):
        chosen = codes[kinds == name]
        style = {"c": styles[name][0], "marker": styles[name][1], "zorder": 2 + place / 100}
        left.scatter(*chosen.T, s=marker_size(len(chosen)), **style, **DOTS)
    if generated is not None and len(generated):
        star = {"marker": "*", "s": 110, "c": "white", "edgecolor": "black", "zorder": 4}
        left.scatter(*np.transpose(generated), label=f"generated ({len(generated)})", **star)
        right.scatter(*np.transpose(generated), **star)
    note_missing(left, codes)
    style_axes(left, f"By label: {len(codes):,} environments", *axis_names)
    share = _draw_scores(figure, right, codes, scores, threshold)
    style_axes(right, f"By coverage score: {share} outside the data", axis_names[0], "")
    legend_below(figure)
    return figure


def coverage_by_frame(
    scores_by_frame: Sequence[Float[np.ndarray, " n"]],
    threshold: float,
    labels: Sequence[str] | None = None,
    label_order: Sequence[str] | None = None,
) -> Figure:
    """For every frame: the share of atoms outside the data, and the quantiles of their scores.

    **Arguments:** `scores_by_frame` coverage scores of each frame's atoms; `labels` of the
    frames colour the shares, `label_order` as in `latent_map`.

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
    style_axes(upper, f"{title}, at most {worst:.3g} %", "", "atoms outside (%)")
    note_missing(lower, *scores_by_frame)
    style_axes(lower, "Coverage score of each frame's atoms", "frame", "coverage score")
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

    ```python
    coverage_map(codes_train, codes_new, coverage_score, threshold=1.2)
    ```
    """
    figure = new_figure(8.0, 5.4)
    ax, name = figure.subplots(), f"training data ({len(codes_train):,})"
    ax.scatter(*np.transpose(codes_train), s=7, c="0.8", **DOTS)
    share = _draw_scores(figure, ax, codes_new, scores_new, threshold)
    keys = ((name, "0.8", "o"), ("new, covered", BLUE, "o"), ("new, outside", VERMILION, "D"))
    for name, color, marker in keys:
        ax.scatter([], [], s=36, c=color, marker=marker, linewidth=0, label=name)
    title = f"{len(codes_new):,} new environments: {share} outside the training data"
    style_axes(ax, title, *axis_names)
    legend_below(figure)
    return figure


def _draw_scores(figure: Figure, ax: Axes, codes, scores, threshold: float) -> str:
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


def distributions(
    r: Float[np.ndarray, " r"],
    radial: Mapping[str, Float[np.ndarray, " r"]],
    theta: Float[np.ndarray, " t"],
    angular: Mapping[str, Float[np.ndarray, " t"]],
) -> Figure:
    """Distances and angles that descriptors encode, as `descriptors.distributions` gives them.

    The first environment thick and grey, the others over it, such as what a decoder proposed and
    what was realised.

    **Arguments:** `r` in angstrom, `theta` in radian; densities by name, the same names in both.

    ```python
    view = descriptors.distributions(descriptor, x, r, theta)
    distributions(r, {"atom 0": view.radial[0]}, theta, {"atom 0": view.angular[0]})
    ```
    """
    figure = new_figure(9.6, 4.2)
    panels = figure.subplots(1, 2)
    degrees = np.degrees(np.asarray(theta))
    for ax, place, curves in ((panels[0], r, radial), (panels[1], degrees, angular)):
        for number, (name, density) in enumerate(curves.items()):
            # the legend names each once
            label = name if ax is panels[0] else None
            if number == 0:
                ax.plot(place, density, color="0.72", linewidth=6, label=label)
            else:
                color, dash = DISTINCT[(number - 1) % 4], DASHES[(number - 1) % 4]
                ax.plot(place, density, color=color, linestyle=dash, linewidth=1.8, label=label)
        ax.axhline(0, color="0.3", linewidth=0.8)
        every = np.concatenate([[0.0], *map(np.ravel, curves.values())])
        ax.set(xlim=(place[0], place[-1]), ylim=axis_limits(every))
    panels[1].set_xticks(np.arange(0, 181, 30))
    style_axes(panels[0], "Distances, as the descriptor sees them", "r (Å)", "density (1/Å)")
    style_axes(panels[1], "Angles, as the descriptor sees them", "θ (°)", "density (1/radian)")
    legend_below(figure)
    return figure
