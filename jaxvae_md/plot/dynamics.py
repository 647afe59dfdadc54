"""Figures of molecular dynamics: the record of one run, several runs, and their structure."""

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
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxvae_md.plot.style import (
    BLUE,
    COLORS,
    DASHES,
    DISTINCT,
    GREEN,
    LEGEND,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
    axis_limits,
    finite_values,
    legend_below,
    new_figure,
    short_number,
    style_axes,
)


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
    figure = new_figure(12.0, max(4.0, 2.35 * len(runs) + 0.5))
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
    bottom = axis_limits(
        main, *(s[2] for s in series.values()), tail=0.0 if calm else 0.1, stretch=1.0
    )

    for place, (name, (time, temperature, energy)) in enumerate(series.items()):
        end = f"after {time[-1]:,.4g} fs" if len(time) else "nothing recorded"
        label = f"{name}: stopped, not finite, {end}" if stopped[name] else name
        label += f" (up to {hottest[name]:,.0f} K)" if hottest[name] > top else ""
        color, dash = COLORS[place % 7], DASHES[place % 4]
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
    hot.set(ylim=(0, top), xlim=axis_limits(*(s[0] for s in series.values()), stretch=np.inf))
    cold.set(ylim=bottom)
    style_axes(hot, "Temperature", "", "temperature (K)")
    style_axes(cold, "Energy", "time (fs)", "energy (eV/atom)")
    left.suptitle("Snapshots along z, nearer atoms darker, cell outlined", fontsize=11)
    for symbol, color in colors.items():
        shots[-1, 0].scatter([], [], s=60, c=color, edgecolor="0.2", label=symbol)
    legend_below(left)
    legend_below(right)
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
    truth, figure = np.asarray(curves[reference], float), new_figure(8.0, 4.6)
    ax = figure.subplots()
    ax.axhline(1, color="0.3", linewidth=0.8, linestyle=":")
    ax.plot(r, truth, color="0.72", linewidth=6, label=reference, solid_capstyle="round")
    for place, name in enumerate(name for name in curves if name != reference):
        gap = np.mean(np.abs(np.asarray(curves[name], float) - truth))
        text = f"{name} (mean |Δg| {gap:.3g})" if np.isfinite(gap) else f"{name}: not finite"
        color, dash = DISTINCT[place % 4], DASHES[(1, 0, 2, 3)[place % 4]]
        ax.plot(r, curves[name], color=color, label=text, linewidth=1.8, linestyle=dash)
    ax.set(xlim=(r[0], r[-1]), ylim=(0, axis_limits(truth, *curves.values(), stretch=0.6)[1]))
    style_axes(ax, f"Radial distribution functions against {reference}", "distance r (Å)", "g(r)")
    ax.legend(**LEGEND)
    return figure


def simulation(
    time_fs: Float[np.ndarray, " t"],
    temperature: Float[np.ndarray, " t"],
    energy_per_atom: Float[np.ndarray, " t"],
    outside: Float[np.ndarray, " t"] | None,
    *,
    target_temperature: float | None = None,
    pressure_gpa: Float[np.ndarray, " t"] | None = None,
    threshold_share: float | None = None,
    energy_label: str = "potential energy (eV/atom)",
    averaged_from: int = 0,
) -> Figure:
    """The record of one run: temperature, energy and, where given, pressure and coverage.

    A panel for each against time, with mean and standard deviation of the records from number
    `averaged_from` on, since a run does not start in equilibrium. Values far from the others, as
    in a run that blows up, leave the axes; a note counts them.

    **Arguments:** `temperature` and `target_temperature` in K; `energy_per_atom` in eV,
    `energy_label` says which energy; `outside` the share of atoms outside the training data at
    each record (0 to 1, drawn in percent) or None; `pressure_gpa` in GPa; `threshold_share` the
    share (0 to 1) that lies outside by chance.

    ```python
    time = np.arange(0.0, 500.0, 10.0)
    hot, energy = 300 + 9 * np.sin(time), -4.3 + 0.01 * np.cos(time)
    simulation(time, hot, energy, time / 5e3, target_temperature=300.0, threshold_share=0.01)
    ```
    """
    time, unit = np.ravel(np.asarray(time_fs, float)), "fs"
    if np.max(finite_values(time), initial=0.0) >= 1e4:
        time, unit = time / 1e3, "ps"
    target = [] if target_temperature is None else [target_temperature]
    chance = [] if threshold_share is None else [100 * threshold_share]
    tenth = 0.1 * float(np.median([*target, *finite_values(temperature)] or [0.0]))
    panels = [("temperature (K)", temperature, max(tenth, 1.0), target)]
    panels += [(energy_label, energy_per_atom, 1e-3, [])]
    panels += [] if pressure_gpa is None else [("pressure (GPa)", pressure_gpa, 0.01, [])]
    num = len(panels) + (outside is not None)
    figure = new_figure(8.0, 0.8 + 1.75 * num)
    axes = figure.subplots(num, sharex=True)
    for ax, (label, values, least, lines) in zip(axes, panels, strict=False):
        window = _window(values, least, lines)
        _draw_record(ax, time, values, window, lines)
        name, _, of = label.partition(" (")
        spread = _spread(values, averaged_from, window, of.rstrip(")"))
        title = f"{name[:1].upper()}{name[1:]}{spread}"
        if ax is axes[0] and "±" in title:
            since = f" from {time[averaged_from]:.4g} {unit} on" if averaged_from else ""
            title += f" (mean ± standard deviation{since})"
        style_axes(ax, title, "", textwrap.fill(label, 20))
    for kelvin in target:
        line = {"linestyle": "--", "linewidth": 1.3, "label": f"target: {kelvin:g} K"}
        axes[0].axhline(kelvin, color="0.3", zorder=3.5, **line)
    if outside is not None:
        _draw_outside(axes[-1], time, 100 * np.ravel(np.asarray(outside, float)), chance)
    begin, end = time[:1] if len(time) > 1 else [0.0], np.max(finite_values(time), initial=0.0)
    axes[-1].set(xlim=axis_limits([*begin, end or 1.0]))
    axes[-1].set_xlabel(f"time ({unit})", fontsize=10)
    if not len(time):
        axes[-1].set_xticks([])
    figure.align_ylabels(axes)
    if target or (chance and outside is not None):
        legend_below(figure)
    return figure


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


def _draw_record(ax: Axes, time, values, window: tuple[float, float], lines: Sequence) -> None:
    """One series, few or lone values as dots; over it to the right what cannot be seen."""
    values = np.ravel(np.asarray(values, float))
    good = np.isfinite(values)
    lone = good & ~np.append(False, good[:-1]) & ~np.append(good[1:], False)
    style = {"color": BLUE, "linewidth": 1.2, "marker": "o", "markersize": 4, "zorder": 3}
    dots = (lone | (len(values) < 15)).tolist()
    ax.plot(time, values, markevery=dots, **style)
    ax.set_ylim(window)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.ticklabel_format(axis="y", useOffset=False)
    away = np.sum(good & ((values < window[0]) | (values > window[1])))
    counts = ((np.sum(~good), "not finite"), (away, "outside the axes"))
    parts = ["a single record"] if len(values) == 1 else []
    parts += [f"{count:,} of {len(values):,} {what}" for count, what in counts if count]
    text = {"fontsize": 8, "style": "italic", "color": "0.3"}
    ax.set_title(", ".join(parts), loc="right", **text)
    if not good.any():
        ax.set_facecolor("0.95")
        text = "nothing finite" if len(values) else "nothing recorded"
        style = {"ha": "center", "va": "bottom", "fontsize": 9, "color": "0.2"}
        ax.text(0.5, 0.52, text, transform=ax.transAxes, **style)
        ax.set_yticks(lines)


def _draw_outside(ax: Axes, time, percent, chance: Sequence[float]) -> None:
    """Share of atoms outside the training data, and the share expected by chance."""
    shares = finite_values(percent)
    top = float(np.clip(1.15 * max([*shares, *chance], default=0.0), 5, 105))
    _draw_record(ax, time, percent, (0.0, top), chance)
    ax.fill_between(time, percent, color=BLUE, alpha=0.25, linewidth=0)
    for share in chance:
        line = {
            "linestyle": "--",
            "linewidth": 1.3,
            "label": f"expected by chance: {_percent(share)}",
        }
        ax.axhline(share, color=VERMILION, zorder=3.5, **line)
    text = (
        f": mean {_percent(shares.mean())}, at most {_percent(shares.max())}"
        if shares.size > 1
        else ""
    )
    text = f": {_percent(shares[0])}" if shares.size == 1 else text
    style_axes(ax, f"Atoms outside the training data{text}", "", "atoms outside (%)")
    if shares.size:
        ax.lines[0].set_clip_on(False)  # all of a line at zero


def _percent(share: float) -> str:
    """Two digits, and no power of ten at 100."""
    return f"{share:.0f} %" if share >= 10 else f"{share:.2g} %"


def _window(values, least: float, lines: Sequence[float]) -> tuple[float, float]:
    """Nine tenths of the values, the lines, and what lies up to ten times their span away."""
    values = finite_values(values)
    values = values if values.size else np.array([*lines, 0.0])[:1]
    low, high = np.quantile(values, [0.05, 0.95])
    reach = 10 * max(high - low, least)
    low, high = max(values.min(), low - reach), min(values.max(), high + reach)
    low, high = min([low, *lines]), max([high, *lines])
    margin = max(0.05 * (high - low), 0.55 * least - 0.5 * (high - low))
    return float(low - margin), float(high + margin)


def _spread(values, averaged_from: int, window: tuple[float, float], unit: str) -> str:
    """For a title: mean and standard deviation, or the extremes where the axes leave some out."""
    averaged = finite_values(np.ravel(values)[averaged_from:])
    values = finite_values(values)
    low, high = np.min(values, initial=np.inf), np.max(values, initial=-np.inf)
    if low < window[0] or high > window[1]:
        return f": between {short_number(low)} and {short_number(high)} {unit}"
    if len(averaged) < 2:
        text = "".join(f": {value:.5g} {unit}" for value in averaged)
    else:
        deviation = np.std(averaged)
        digits = int(np.clip(1 - np.floor(np.log10(max(deviation, 1e-9))), 0, 6))
        text = f": {np.mean(averaged):.{digits}f} ± {deviation:.{digits}f} {unit}"
    return text.replace("-", "\N{MINUS SIGN}").rstrip()
