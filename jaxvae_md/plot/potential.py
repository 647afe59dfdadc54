"""Figures of a potential: its errors, its pair energies, and the course of its training."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxvae_md.plot.style import (
    BLUE,
    COLORS,
    DASHES,
    LEGEND,
    axis_limits,
    density_bar,
    density_parity,
    finite_values,
    label_styles,
    legend_below,
    new_figure,
    note_missing,
    short_number,
    square_axes,
    style_axes,
)


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
    kinds, figure = np.asarray(labels, str), new_figure(min(12.0, 4.6 * len(energies) + 1.0), 8.6)
    axes, drawn = figure.subplots(2, len(energies), squeeze=False), []
    styles = label_styles(axes[0, 0], kinds, label_order)
    x, x_force = np.asarray(reference_energy, float), np.ravel(reference_forces)
    limits = axis_limits(x, *energies.values(), stretch=0.5)
    force_limits = axis_limits(x_force, *forces.values(), tail=1e-4, stretch=0.25)
    for column, (top, bottom, name) in enumerate(zip(*axes, energies, strict=True)):
        y, y_force = np.asarray(energies[name], float), np.ravel(forces[name])
        for label, (color, marker) in styles.items():
            chosen = kinds == label
            edge = {"edgecolor": "white", "linewidth": 0.3}
            top.scatter(x[chosen], y[chosen], s=24, c=color, marker=marker, zorder=3, **edge)
        square_axes(top, limits, x, y)
        # total energies of a reference have many digits
        top.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        drawn.append(density_parity(bottom, x_force, y_force, force_limits))
        mae, mae_force = (1e3 * np.mean(np.abs(a - b)) for a, b in ((x, y), (x_force, y_force)))
        name = textwrap.fill(name, 28)
        title, ylabel = (
            f"{name}\nenergy MAE {short_number(mae)} meV/atom",
            "predicted energy (eV/atom)",
        )
        style_axes(top, title, "reference energy (eV/atom)", "" if column else ylabel)
        title, ylabel = f"{name}\nforce MAE {short_number(mae_force)} meV/Å", "predicted (eV/Å)"
        style_axes(bottom, title, "reference force component (eV/Å)", "" if column else ylabel)
    density_bar(figure, drawn, "components per hexagon")
    legend_below(figure)
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
    figure = new_figure(7.0 if columns == 1 else 10.0, 0.4 + 4.0 * rows)
    pairs = zip(names, np.atleast_2d(before), np.atleast_2d(after), strict=True)
    for place, (name, *phis) in enumerate(pairs):
        ax, wells = figure.add_subplot(rows, columns, place + 1), []
        looks = (("before", "0.45", "--", "s"), ("after", BLUE, "-", "o"))
        for phi, (when, color, dash, marker) in zip(phis, looks, strict=True):
            lowest, text = np.argmin(np.where(np.isfinite(phi), phi, np.inf)), "no well"
            if 0 < lowest < len(r) - 1 and phi[lowest] < 0:
                text = f"{short_number(phi[lowest])} eV at {r[lowest]:.2f} Å"
                style = {"markersize": 8, "markeredgecolor": "white", "zorder": 4}
                ax.plot(r[lowest], phi[lowest], marker, color=color, **style)
                wells.append(-phi[lowest])
            ax.plot(r, phi, color=color, linestyle=dash, linewidth=2, label=f"{when}: {text}")
        depth = max(wells, default=0) or np.median(np.abs(finite_values(*phis, [0.0, 1.0])))
        ax.axhline(0, color="0.3", linewidth=0.8)
        ax.set(xlim=(r[0], r[-1]), ylim=(-1.2 * depth, 1.4 * depth))
        note_missing(ax, *phis)
        style_axes(ax, f"{name} pair potential", "distance r (Å)", "φ(r) (eV)")
        ax.legend(**LEGEND, loc="upper right")
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
    figure = new_figure(8.0, 4.6)
    ax, columns = figure.subplots(), [finite_values(values) for _, values in curves.values()]
    for place, (name, (steps, values)) in enumerate(curves.items()):
        text = f"{name}: {short_number(values[-1])} at the end" if len(values) else f"{name}: empty"
        style = {"color": COLORS[place % 7], "linestyle": DASHES[place % 4], "markersize": 4}
        marker = "o" if len(values) < 15 else None
        ax.plot(steps, values, linewidth=1.8, marker=marker, label=text, **style)
    every, late = (
        finite_values(*columns),
        finite_values(*(column[len(column) // 5 :] for column in columns)),
    )
    if every.size and every.min() > 0 and every.max() > 10**1.5 * every.min():
        ax.set_yscale("log")
    else:
        ax.set_ylim(axis_limits(late, every, stretch=1.0))
    note_missing(ax, *(values for _, values in curves.values()))
    style_axes(ax, title, xlabel, ylabel)
    ax.legend(**LEGEND)
    return figure
