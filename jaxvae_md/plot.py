"""Figures of the data, the VAE, the potential and the dynamics.

Every function takes plain numpy arrays and returns a `matplotlib.figure.Figure`; nothing is shown
and pyplot is never touched, so a figure is written with `figure.savefig` or `report.save_figure`.
Labels wear the Okabe-Ito colours and a marker of their own, densities wear viridis. What is not
finite, or lies outside the axes of a parity plot, is not dropped silently: a note counts it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NotRequired, TypedDict

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK, YELLOW = "#CC79A7", "#56B4E9", "#000000", "#F0E442"
COLORS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, YELLOW)
"""Okabe and Ito's colours, which readers with any colour vision tell apart."""
_DASHES = ("-", (0, (5, 2)), (0, (5, 1.5, 1, 1.5)), (0, (1.5, 1.2)))
_DOTS = {"linewidth": 0, "alpha": 0.85, "rasterized": True}
_LEGEND = {"fontsize": 9, "framealpha": 0.9, "edgecolor": "0.8"}


class Run(TypedDict):
    """One molecular dynamics run as `side_by_side` draws it; a plain dict."""

    time_fs: Float[np.ndarray, " t"]
    temperature: Float[np.ndarray, " t"]  # K
    energy_per_atom: Float[np.ndarray, " t"]  # eV
    positions: Float[np.ndarray, "s n 3"]  # snapshots in order of time, angstrom
    cell: Float[np.ndarray, "3 3"]  # rows are lattice vectors, angstrom
    symbols: Sequence[str]
    finished: bool
    snapshot_fs: NotRequired[Float[np.ndarray, " s"]]  # times of the snapshots


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
    x, figure = np.asarray(x, float), _figure(10.0, 8.4)
    panels = figure.subplot_mosaic([["VAE", "PCA"], ["r2", "r2"]], height_ratios=[2, 1])
    limits, bars = _limits(x, by_vae, by_pca, tail=5e-4, stretch=0.1), panels["r2"]
    drawn, component, total = [], np.arange(x.shape[1]), np.sum((x - x.mean(axis=0)) ** 2, axis=0)
    r2 = {}
    for name, by, what in (("VAE", by_vae, "latent dimensions"), ("PCA", by_pca, "components")):
        r2[name] = 1 - np.sum((x - by) ** 2, axis=0) / np.where(total > 0, total, 1)
        worst = np.argmin(r2[name])
        title = f"{name}, {latent_dim} {what}: R² mean {np.mean(r2[name]):.3f}\n"
        title += f"worst {r2[name][worst]:.3f} (descriptor component {worst})"
        drawn.append(_density_parity(panels[name], x, by, limits))
        _style(panels[name], title, "held-out descriptor (standardised)", "reconstruction")
        shift, color = (-0.2, BLUE) if name == "VAE" else (0.2, ORANGE)
        bars.bar(component + shift, r2[name], 0.4, color=color, label=name)
    _density_bar(figure, drawn, "values per hexagon")
    lowest = np.min(_finite(*r2.values()), initial=0.0)
    bars.set(xlim=(-0.7, len(component) - 0.3), ylim=(max(-0.5, lowest), 1))
    ahead = f"the VAE is ahead in {np.sum(r2['VAE'] > r2['PCA'])} of {len(component)}"
    _style(bars, f"R² of every descriptor component: {ahead}", "descriptor component", "R²")
    _legend_below(figure)
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
    codes, kinds, figure = np.asarray(codes, float), np.asarray(labels, str), _figure(10.0, 5.0)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    styles = _label_styles(left, kinds, label_order)
    for place, name in enumerate(sorted(styles, key=lambda name: -np.sum(kinds == name))):
        chosen = codes[kinds == name]
        style = {"c": styles[name][0], "marker": styles[name][1], "zorder": 2 + place / 100}
        left.scatter(*chosen.T, s=_size(len(chosen)), **style, **_DOTS)
    if generated is not None and len(generated):
        star = {"marker": "*", "s": 110, "c": "white", "edgecolor": "black", "zorder": 4}
        left.scatter(*np.transpose(generated), label=f"generated ({len(generated)})", **star)
        right.scatter(*np.transpose(generated), **star)
    _note_missing(left, codes)
    _style(left, f"By label: {len(codes):,} environments", *axis_names)
    share = _draw_scores(figure, right, codes, scores, threshold)
    _style(right, f"By coverage score: {share} outside the data", axis_names[0], "")
    _legend_below(figure)
    return figure


def parity(
    reference_energy: Float[np.ndarray, " frames"],
    energies: Mapping[str, Float[np.ndarray, " frames"]],
    reference_forces: Float[np.ndarray, "n 3"],
    forces: Mapping[str, Float[np.ndarray, "n 3"]],
    labels: Sequence[str],
    label_order: Sequence[str] | None = None,
) -> Figure:
    """Energies (eV per atom) and force components (eV / angstrom) against the reference.

    A column for every model, all on the same axes: energies by label above, the density of force
    components below, the mean absolute error in each title. `label_order` as in `latent_map`.

    ```python
    parity(e_ref, {"before": e_0, "after": e_1}, f_ref, {"before": f_0, "after": f_1}, labels)
    ```
    """
    kinds, figure = np.asarray(labels, str), _figure(min(12.0, 4.6 * len(energies) + 1.0), 8.6)
    axes, drawn = figure.subplots(2, len(energies), squeeze=False), []
    styles = _label_styles(axes[0, 0], kinds, label_order)
    x, x_force = np.asarray(reference_energy, float), np.ravel(reference_forces)
    limits = _limits(x, *energies.values(), stretch=0.5)
    force_limits = _limits(x_force, *forces.values(), tail=1e-4, stretch=0.25)
    for column, (top, bottom, name) in enumerate(zip(*axes, energies, strict=True)):
        y, y_force = np.asarray(energies[name], float), np.ravel(forces[name])
        for label, (color, marker) in styles.items():
            chosen = kinds == label
            edge = {"edgecolor": "white", "linewidth": 0.3}
            top.scatter(x[chosen], y[chosen], s=24, c=color, marker=marker, zorder=3, **edge)
        _square(top, limits, x, y)
        drawn.append(_density_parity(bottom, x_force, y_force, force_limits))
        mae, mae_force = (1e3 * np.mean(np.abs(a - b)) for a, b in ((x, y), (x_force, y_force)))
        name = textwrap.fill(name, 28)
        title, ylabel = f"{name}\nenergy MAE {_short(mae)} meV/atom", "predicted energy (eV/atom)"
        _style(top, title, "reference energy (eV/atom)", "" if column else ylabel)
        title, ylabel = f"{name}\nforce MAE {_short(mae_force)} meV/Å", "predicted (eV/Å)"
        _style(bottom, title, "reference force component (eV/Å)", "" if column else ylabel)
    _density_bar(figure, drawn, "components per hexagon")
    _legend_below(figure)
    return figure


def pair_potential(
    r: Float[np.ndarray, " k"],
    before: Float[np.ndarray, "p k"],
    after: Float[np.ndarray, "p k"],
    names: Sequence[str],
) -> Figure:
    """Pair potentials phi(r) in eV before and after learning, a panel for every pair of species.

    The wall is cut off at about the well's depth; the minimum is marked. `r` in angstrom; one row
    of `before` and `after` for each of `names` ("Si-Si").

    ```python
    pair_potential(r, phi_before[None], phi_after[None], ["Si-Si"])
    ```
    """
    columns = {1: 1, 2: 2, 4: 2}.get(len(names), 3)
    rows = -(-len(names) // columns)
    figure = _figure(7.0 if columns == 1 else 10.0, 0.4 + 4.0 * rows)
    pairs = zip(names, np.atleast_2d(before), np.atleast_2d(after), strict=True)
    for place, (name, *phis) in enumerate(pairs):
        ax, wells = figure.add_subplot(rows, columns, place + 1), []
        looks = (("before", "0.45", "--", "s"), ("after", BLUE, "-", "o"))
        for phi, (when, color, dash, marker) in zip(phis, looks, strict=True):
            lowest, text = np.argmin(np.where(np.isfinite(phi), phi, np.inf)), "no well"
            if 0 < lowest < len(r) - 1 and phi[lowest] < 0:
                text = f"{_short(phi[lowest])} eV at {r[lowest]:.2f} Å"
                style = {"markersize": 8, "markeredgecolor": "white", "zorder": 4}
                ax.plot(r[lowest], phi[lowest], marker, color=color, **style)
                wells.append(-phi[lowest])
            ax.plot(r, phi, color=color, linestyle=dash, linewidth=2, label=f"{when}: {text}")
        depth = max(wells, default=0) or np.median(np.abs(_finite(*phis, [0.0, 1.0])))
        ax.axhline(0, color="0.3", linewidth=0.8)
        ax.set(xlim=(r[0], r[-1]), ylim=(-1.2 * depth, 1.4 * depth))
        _note_missing(ax, *phis)
        _style(ax, f"{name} pair potential", "distance r (Å)", "φ(r) (eV)")
        ax.legend(**_LEGEND, loc="upper right")
    return figure


def side_by_side(runs: Mapping[str, Run], target_temperature: float) -> Figure:
    """The same molecular dynamics with different parameters, side by side.

    A row of snapshots for every run (start, middle, end; wrapped into the cell and seen along z,
    nearer atoms darker), and temperature and energy of all runs against time. A run that stopped,
    or whose numbers are not finite, is shown as such and leaves the axes to the others.

    **Arguments:** `runs` by name, see `Run`; `target_temperature` of the thermostat in K.

    ```python
    side_by_side({"reference": run_reference, "learned": run_learned}, target_temperature=300.0)
    ```
    """
    figure = _figure(12.0, max(4.0, 2.35 * len(runs) + 0.5))
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1.25, 1])[0]
    shots, (hot, cold) = left.subplots(len(runs), 3, squeeze=False), right.subplots(2, sharex=True)
    species = sorted({symbol for run in runs.values() for symbol in run["symbols"]})
    palette = (SKY, ORANGE, GREEN, PURPLE, YELLOW, VERMILION)
    colors = {symbol: palette[i % 6] for i, symbol in enumerate(species)}
    series, stopped, hottest = {}, {}, {}
    for name, run in runs.items():
        keys = ("time_fs", "temperature", "energy_per_atom")
        columns = np.array([np.ravel(np.asarray(run[key], float)) for key in keys])
        good = np.isfinite(columns).all(axis=0)
        series[name], stopped[name] = columns[:, good], not (run["finished"] and good.all())
        hottest[name] = np.max(series[name][1], initial=0.0)
    scale = target_temperature or max(hottest.values()) or 1.0
    top = 1.08 * np.clip(max(hottest.values()), 1.5 * scale, 4 * scale)
    calm = [name for name in runs if not stopped[name] and hottest[name] <= top]
    main = np.concatenate([series[name][2] for name in calm or runs])
    bottom = _limits(main, *(s[2] for s in series.values()), tail=0.0 if calm else 0.1, stretch=1.0)

    for place, (name, (time, temperature, energy)) in enumerate(series.items()):
        end = f"after {time[-1]:,.4g} fs" if len(time) else "nothing recorded"
        label = f"{name}: stopped, not finite, {end}" if stopped[name] else name
        label += f" (up to {hottest[name]:,.0f} K)" if hottest[name] > top else ""
        color, dash = COLORS[place % 7], _DASHES[place % 4]
        for ax, y, (low, high) in ((hot, temperature, (0, top)), (cold, energy, bottom)):
            ax.plot(time, y, color=color, linestyle=dash, linewidth=1.4)
            if stopped[name] and len(time):
                style = {"markersize": 9, "markeredgecolor": "white", "zorder": 5}
                y_end = np.clip(y[-1], low, high - 0.03 * (high - low))  # off the title
                ax.plot(time[-1], y_end, "X", color=color, **style)
        hot.plot([], color=color, linestyle=dash, label=label)
        _snapshot_row(shots[place], runs[name], stopped[name], end, colors)
        text = {"fontsize": 10, "fontweight": "bold", "color": color}
        shots[place, 0].set_ylabel(textwrap.fill(name, 20), **text)
    target = {"linestyle": ":", "label": f"target {target_temperature:g} K"}
    hot.axhline(target_temperature, color="0.3", linewidth=1, **target)
    hot.set(ylim=(0, top), xlim=_limits(*(s[0] for s in series.values()), stretch=np.inf))
    cold.set(ylim=bottom)
    _style(hot, "Temperature", "", "temperature (K)")
    _style(cold, "Energy", "time (fs)", "energy (eV/atom)")
    left.suptitle("Snapshots along z, nearer atoms darker, cell outlined", fontsize=11)
    for symbol, color in colors.items():
        shots[-1, 0].scatter([], [], s=60, c=color, edgecolor="0.2", label=symbol)
    _legend_below(left)
    _legend_below(right)
    return figure


def radial_distribution(
    r: Float[np.ndarray, " bins"],
    curves: Mapping[str, Float[np.ndarray, " bins"]],
    reference: str | None = None,
) -> Figure:
    """Radial distribution functions g(r): the reference thick and grey, the others over it.

    **Arguments:** `r` in angstrom; `reference` names the curve to compare with (default: the
    first). The legend gives every other curve's mean absolute difference from it.

    ```python
    radial_distribution(r, {"reference": g_ref, "before": g_0, "after": g_1})
    ```
    """
    reference = next(iter(curves)) if reference is None else reference
    truth, figure = np.asarray(curves[reference], float), _figure(8.0, 4.6)
    ax = figure.subplots()
    ax.axhline(1, color="0.3", linewidth=0.8, linestyle=":")
    ax.plot(r, truth, color="0.72", linewidth=6, label=reference, solid_capstyle="round")
    for place, name in enumerate(name for name in curves if name != reference):
        gap = np.mean(np.abs(np.asarray(curves[name], float) - truth))
        text = f"{name} (mean |Δg| {gap:.3g})" if np.isfinite(gap) else f"{name}: not finite"
        color, dash = (VERMILION, BLUE, GREEN, PURPLE)[place % 4], _DASHES[(1, 0, 2, 3)[place % 4]]
        ax.plot(r, curves[name], color=color, label=text, linewidth=1.8, linestyle=dash)
    ax.set(xlim=(r[0], r[-1]), ylim=(0, _limits(truth, *curves.values(), stretch=0.6)[1]))
    _style(ax, f"Radial distribution functions against {reference}", "distance r (Å)", "g(r)")
    ax.legend(**_LEGEND)
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
    scores, frame = [_finite(s) for s in scores_by_frame], np.arange(len(scores_by_frame))
    edges, levels = np.arange(len(scores) + 1) - 0.5, (0.05, 0.25, 0.5, 0.75, 0.95, 1)
    share = np.array([100 * np.mean(s > threshold) if len(s) else np.nan for s in scores])
    bands = np.array([np.quantile(s, levels) if len(s) else [np.nan] * 6 for s in scores]).T
    figure = _figure(10.0, 6.2)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for low, high, color, text in ((0, 4, "#c6dbec", "5 to 95 %"), (1, 3, "#7fb2d6", "25 to 75 %")):
        band = {"baseline": bands[low], "fill": True, "color": color, "label": text}
        lower.stairs(bands[high], edges, **band)
    lower.stairs(bands[2], edges, baseline=None, color=BLUE, linewidth=1.5, label="median")
    lower.stairs(bands[5], edges, baseline=None, color="0.45", linewidth=0.9, label="highest")
    line = {"linestyle": "--", "linewidth": 1.5, "label": f"threshold {threshold:.3g}"}
    lower.axhline(threshold, color=VERMILION, **line)
    names = np.array([""] * len(scores) if labels is None else labels, str)
    styles = {"": (BLUE, "o")} if labels is None else _label_styles(lower, names, label_order)
    for name, (color, marker) in styles.items():
        chosen = (names == name) & np.isfinite(share)
        upper.stairs(np.where(chosen, share, 0), edges, fill=True, color=color, alpha=0.35)
        style = {"s": 4 * _size(20 * len(scores)), "c": color, "marker": marker, "linewidth": 0}
        upper.scatter(frame[chosen], share[chosen], clip_on=False, **style)
    worst = np.max(_finite(share), initial=0.0)
    upper.set(xlim=(edges[0], edges[-1]), ylim=(0, np.clip(1.15 * worst, 5, 105)))
    upper.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    lower.set(ylim=_limits(np.append(bands[[0, 4]], threshold), bands[5], stretch=0.5))
    title = f"{np.sum(share > 0)} of {len(scores)} frames have atoms outside the data"
    _style(upper, f"{title}, at most {worst:.3g} %", "", "atoms outside (%)")
    _note_missing(lower, *scores_by_frame)
    _style(lower, "Coverage score of each frame's atoms", "frame", "coverage score")
    _legend_below(figure)
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
    figure = _figure(8.0, 5.4)
    ax, name = figure.subplots(), f"training data ({len(codes_train):,})"
    ax.scatter(*np.transpose(codes_train), s=7, c="0.8", **_DOTS)
    share = _draw_scores(figure, ax, codes_new, scores_new, threshold)
    keys = ((name, "0.8", "o"), ("new, covered", BLUE, "o"), ("new, outside", VERMILION, "D"))
    for name, color, marker in keys:
        ax.scatter([], [], s=36, c=color, marker=marker, linewidth=0, label=name)
    title = f"{len(codes_new):,} new environments: {share} outside the training data"
    _style(ax, title, *axis_names)
    _legend_below(figure)
    return figure


def training_history(
    curves: Mapping[str, tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]],
    ylabel: str,
    xlabel: str = "epoch",
    title: str = "Training",
) -> Figure:
    """Bounds or losses against training steps; logarithmic where they are positive and span much.

    **Arguments:** `curves` name to (steps, values). On a linear axis a steep start is cut off, so
    that what follows can be seen; the legend gives the last values.

    ```python
    training_history({"test": (np.arange(len(elbo)), elbo)}, ylabel="ELBO (nats per environment)")
    ```
    """
    figure = _figure(8.0, 4.6)
    ax, columns = figure.subplots(), [_finite(values) for _, values in curves.values()]
    for place, (name, (steps, values)) in enumerate(curves.items()):
        text = f"{name}: {_short(values[-1])} at the end" if len(values) else f"{name}: empty"
        style = {"color": COLORS[place % 7], "linestyle": _DASHES[place % 4], "markersize": 4}
        marker = "o" if len(values) < 15 else None
        ax.plot(steps, values, linewidth=1.8, marker=marker, label=text, **style)
    every, late = _finite(*columns), _finite(*(column[len(column) // 5 :] for column in columns))
    if every.size and every.min() > 0 and every.max() > 10**1.5 * every.min():
        ax.set_yscale("log")
    else:
        ax.set_ylim(_limits(late, every, stretch=1.0))
    _note_missing(ax, *(values for _, values in curves.values()))
    _style(ax, title, xlabel, ylabel)
    ax.legend(**_LEGEND)
    return figure


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def _style(ax: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """The same sizes, grid and spines everywhere."""
    ax.set_title(title, fontsize=11, loc="left")
    ax.set_xlabel(xlabel, fontsize=10)
    ax.set_ylabel(ylabel, fontsize=10)
    ax.tick_params(labelsize=9, color="0.6")
    ax.grid(True, color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("0.6")


def _legend_below(figure) -> None:
    """One legend of everything that has a label, as wide as the figure allows."""
    found = [ax.get_legend_handles_labels() for ax in figure.axes]
    handles, texts = [h for hs, _ in found for h in hs], [t for _, ts in found for t in ts]
    room = figure.bbox.width / 150 * 14 / (max(map(len, texts), default=0) + 7)
    rows = -(-len(texts) // max(1, int(room))) or 1
    style = {"loc": "outside lower center", "fontsize": 9, "frameon": False}
    figure.legend(handles, texts, ncols=-(-len(texts) // rows) or 1, **style)


def _label_styles(ax: Axes, labels, order: Sequence[str] | None) -> dict[str, tuple[str, str]]:
    """Colour and marker (56 pairs) of every label that occurs, entered into the legend."""
    order = [] if order is None else [str(name) for name in order]
    names = [*order, *sorted(set(labels.tolist()) - set(order))]
    pairs = {name: (COLORS[i % 8], "os^DvPX"[i % 7]) for i, name in enumerate(names)}
    for name in (present := [name for name in names if name in labels]):
        color, marker = pairs[name]
        ax.scatter([], [], s=36, c=color, marker=marker, linewidth=0, label=name)
    return {name: pairs[name] for name in present}


def _size(num: int) -> float:
    """Marker area that keeps many points apart and few visible."""
    return float(np.clip(120 / max(num, 1) ** 0.4, 4.5, 22))


def _short(value) -> str:
    text = f"{value:.3g}" if not 1000 <= abs(value) < 1e6 else f"{value:,.0f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _finite(*values) -> np.ndarray:
    flat = np.concatenate([np.ravel(np.asarray(v, float)) for v in values] or [np.zeros(0)])
    return flat[np.isfinite(flat)]


def _note_missing(ax: Axes, *values) -> None:
    missing = sum(np.size(v) for v in values) - _finite(*values).size
    _note(ax, f"{missing:,} values are not finite" if missing else "")


def _note(ax: Axes, text: str) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.92 if text else 0, "pad": 2}
    style = {"ha": "right", "va": "bottom", "style": "italic", "color": "0.3", "zorder": 6}
    ax.text(0.985, 0.02, text, transform=ax.transAxes, fontsize=8, bbox=box, **style)


def _limits(main, *others, tail: float = 0.0, stretch: float = 0.0) -> tuple[float, float]:
    """Range of `main` (without `tail` of it), stretched towards the others by so many spans."""
    main, every = _finite(main), _finite(main, *others)
    main = main if main.size else every if every.size else np.array([0.0, 1.0])
    (low, high), ends = (np.quantile(v, [tail, 1 - tail]) for v in (main, [*every, *main]))
    span = max(high - low, 1e-3 * max(abs(low), abs(high)), 1e-9)
    low = max(min(low, ends[0]), low - stretch * span)
    high = min(max(high, ends[1]), high + stretch * span)
    margin = 0.05 * max(high - low, span)
    return float(low - margin), float(high + margin)


def _square(ax: Axes, limits: tuple[float, float], x: np.ndarray, y: np.ndarray) -> None:
    """Equal axes, the diagonal, and a note on the points that they leave out."""
    ax.axline((limits[0], limits[0]), slope=1, color="0.25", linewidth=1.0, linestyle="--")
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    inside = (np.minimum(x, y) >= limits[0]) & (np.maximum(x, y) <= limits[1])
    what = "outside the axes" if np.isfinite(x + y).all() else "outside the axes or not finite"
    _note(ax, "" if inside.all() else f"{_short(100 * np.mean(~inside))} % {what}")


def _density_parity(ax: Axes, x, y, limits: tuple[float, float]):
    """Hexagons coloured by the number of points; `_density_bar` sets their norm."""
    x, y = np.ravel(np.asarray(x, float)), np.ravel(np.asarray(y, float))
    style = {"gridsize": 72, "mincnt": 1, "linewidths": 0.1, "rasterized": True}
    good = np.isfinite(x) & np.isfinite(y)
    drawn = ax.hexbin(x[good], y[good], extent=(*limits, *limits), cmap="viridis", **style)
    _square(ax, limits, x, y)
    return drawn


def _density_bar(figure: Figure, drawn: Sequence, label: str) -> None:
    """One logarithmic colour scale for several densities, beside the last."""
    norm = LogNorm(1, max(np.max(np.asarray(d.get_array()), initial=2) for d in drawn))
    for density in drawn:
        density.set_norm(norm)
    _colorbar(figure, drawn[-1], label)


def _colorbar(figure: Figure, drawn, label: str, **style):
    bar = figure.colorbar(drawn, cax=drawn.axes.inset_axes((1.03, 0, 0.04, 1)), **style)
    bar.set_label(label, fontsize=10)
    bar.ax.tick_params(labelsize=9)
    return bar


def _draw_scores(figure: Figure, ax: Axes, codes, scores, threshold: float) -> str:
    """Environments coloured by coverage score, uncovered ones larger and on top; their share.

    Blue below the threshold and orange above, darker the further away.
    """
    codes, scores = np.reshape(np.asarray(codes, float), (-1, 2)), np.asarray(scores, float)
    outside, covered = np.flatnonzero(scores > threshold), np.flatnonzero(scores <= threshold)
    np.random.default_rng(0).shuffle(covered)
    outside = outside[np.argsort(scores[outside])]
    low = np.quantile([threshold, *_finite(scores[covered])], 0.005)
    high = np.quantile([threshold, *_finite(scores[outside])], 0.98)
    least = 0.02 * (high - low) or 1e-6
    low, high = min(low, threshold - least), max(high, threshold + least)
    at = (threshold - low) / (high - low)
    stops = [(0, "#08306b"), (at / 2, BLUE), (at, "#a6cbe3")]
    stops += [(at, "#f6b26b"), ((1 + at) / 2, VERMILION), (1, "#6b1f00")]
    colors = LinearSegmentedColormap.from_list("coverage", stops, 1024)
    style = {"cmap": colors, "norm": Normalize(low, high), "edgecolor": "white", **_DOTS}
    for part, marker, scale, edge in ((covered, "o", 1, 0), (outside, "D", 2.5, 0.25)):
        style |= {"s": scale * _size(len(scores)), "linewidth": edge, "zorder": 2 + edge}
        drawn = ax.scatter(*codes[part].T, c=scores[part], marker=marker, **style)
    beyond = (np.min(scores, initial=low) < low, np.max(scores, initial=high) > high)
    extend = {(1, 1): "both", (1, 0): "min", (0, 1): "max"}.get(beyond, "neither")
    label = f"coverage score (line: threshold {threshold:.3g})"
    bar = _colorbar(figure, drawn, label, extend=extend)
    bar.ax.axhline(threshold, color="black", linewidth=2)
    _note_missing(ax, scores, codes)
    return f"{_short(100 * len(outside) / max(len(scores), 1))} %"


def _snapshot_row(axes, run: Run, stopped: bool, end: str, colors: Mapping[str, str]) -> None:
    """Start, middle and end of one run; greyed out what does not exist."""
    shots = np.asarray(run["positions"], float).reshape(-1, len(run["symbols"]), 3)
    cell = np.asarray(run["cell"], float)
    good = np.flatnonzero(np.isfinite(shots).all(axis=(1, 2)) & np.isfinite(cell).all())
    first, last = (good[0] if len(good) else None), (good[-1] if len(good) > 1 else None)
    middle = good[len(good) // 2] if len(good) > 2 else None
    picks = (first, last, None) if stopped else (first, middle, last)
    words = ("start", "last recorded" if stopped else "middle", "end")
    for ax, pick, word in zip(axes, picks, words, strict=True):
        if pick is not None and (times := run.get("snapshot_fs")) is not None:
            word += f", {times[pick]:,.4g} fs"
        ax.set_title(word, fontsize=9)
        ax.set(xticks=[], yticks=[], aspect="equal")
        ax.spines[:].set_visible(False)
        if pick is not None:
            _draw_atoms(ax, shots[pick], cell, run["symbols"], colors)
            continue
        ax.set_facecolor("0.95")
        text = f"stopped: not finite\n{end}" if stopped and ax is axes[-1] else "no snapshot"
        style = {"ha": "center", "va": "center", "fontsize": 9, "color": "0.2"}
        ax.text(0.5, 0.5, text, transform=ax.transAxes, **style)


def _draw_atoms(ax: Axes, position, cell, symbols, colors: Mapping[str, str]) -> None:
    """Atoms wrapped into the cell, seen along z: nearer atoms are darker and drawn later."""
    fractional = position @ np.linalg.inv(cell)
    position = (fractional - np.floor(fractional)) @ cell
    corners = np.array(list(product((0, 1), repeat=3)))
    edges = [(a, b) for a in corners for b in corners if (b - a).sum() == 1 == abs(b - a).sum()]
    outline = np.array(edges) @ cell
    order, (low, *_, high) = np.argsort(position[:, 2]), np.sort(outline[..., 2].ravel())
    near = ((position[order, 2] - low) / (high - low))[:, None]
    face = np.array([to_rgb(colors[symbols[i]]) for i in order])
    face = (0.25 + 0.75 * near) * face + 0.75 * (1 - near)
    size = np.array([1.1 * covalent_radii[atomic_numbers.get(symbols[i], 0)] for i in order])
    style = {"facecolors": face, "edgecolors": 0.5 * face, "linewidths": 0.5, "units": "xy"}
    place = {"offsets": position[order, :2], "offset_transform": ax.transData}
    ax.add_collection(LineCollection(outline[..., :2], colors="0.55", linewidths=0.8))
    ax.add_collection(EllipseCollection(size, size, 0 * size, **place, **style))
    (x0, y0), (x1, y1) = (pick(outline[..., :2], axis=(0, 1)) for pick in (np.min, np.max))
    ax.set(xlim=(x0 - 0.7, x1 + 0.7), ylim=(y0 - 0.7, y1 + 0.7))
