"""Figures of environments: the VAE's reconstruction, its latent space, distances and angles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxvae_md._typing import Params
from jaxvae_md.descriptors import Chebyshev, Standardizer
from jaxvae_md.descriptors import distributions as density_view
from jaxvae_md.plot.coverage import draw_scores
from jaxvae_md.plot.style import (
    BLUE,
    DASHES,
    DISTINCT,
    DOTS,
    ORANGE,
    axis_limits,
    density_bar,
    density_parity,
    finite_values,
    label_styles,
    legend_below,
    marker_size,
    new_figure,
    note_missing,
    style_axes,
)
from jaxvae_md.vae import VAE


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
    _draw_kinds(left, codes, kinds, styles)
    if generated is not None and len(generated):
        star = {"marker": "*", "s": 110, "c": "white", "edgecolor": "black", "zorder": 4}
        left.scatter(*np.transpose(generated), label=f"generated ({len(generated)})", **star)
        right.scatter(*np.transpose(generated), **star)
    note_missing(left, codes)
    style_axes(left, f"By label: {len(codes):,} environments", *axis_names)
    share = draw_scores(figure, right, codes, scores, threshold)
    style_axes(right, f"By coverage score: {share} outside the data", axis_names[0], "")
    legend_below(figure)
    return figure


def maps(
    latent: Float[np.ndarray, "m 2"],
    pca: Float[np.ndarray, "m 2"],
    labels: Sequence[str],
    label_order: Sequence[str] | None = None,
) -> Figure:
    """Environments by label in two latent dimensions, and in two principal components.

    ```python
    maps(codes, pca_reconstruction(z, z, 2)[1], labels)
    ```
    """
    figure, kinds = new_figure(10.0, 5.0), np.asarray(labels, str)
    panels = figure.subplots(1, 2)
    styles = label_styles(panels[0], kinds, label_order)
    for ax, points, name, axis in (
        (panels[0], latent, "VAE, learned without labels", "latent dimension"),
        (panels[1], pca, "PCA", "principal component"),
    ):
        points = np.asarray(points, float)
        _draw_kinds(ax, points, kinds, styles, len(points))
        note_missing(ax, points)
        style_axes(ax, name, f"{axis} 1", f"{axis} 2")
    legend_below(figure)
    return figure


def _draw_kinds(ax: Axes, points, kinds, styles, num: int | None = None) -> None:
    """Points by kind, rare ones over abundant ones; as large as for `num`, or by kind."""
    for place, name in enumerate(sorted(styles, key=lambda name: -np.sum(kinds == name))):
        chosen = points[kinds == name]
        style = {"c": styles[name][0], "marker": styles[name][1], "zorder": 2 + place / 100}
        ax.scatter(*chosen.T, s=marker_size(num or len(chosen)), **style, **DOTS)


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


def decoded(
    descriptor: Chebyshev,
    standardizer: Standardizer,
    model: VAE,
    params: Params,
    codes: Mapping[str, Float[np.ndarray, " latent"]],
) -> Figure:
    """Distances and angles at latent points, decoded: what the VAE thinks is there.

    **Arguments:** `codes` points of the latent space by name, training environments and gaps.

    ```python
    decoded(descriptor, standardizer, model, params, {"crystal": z[0], "gap": targets.z[0]})
    ```
    """
    r = np.linspace(0.1, descriptor.radial_cutoff - 0.05, 300)
    theta = np.linspace(0, np.pi, 300)
    z = model.decode(params, jnp.asarray(list(codes.values()), jnp.float32))
    view = density_view(descriptor, standardizer.invert(jnp.asarray(z, float)), r, theta)
    by_name = lambda density: dict(zip(codes, np.asarray(density), strict=True))
    return distributions(r, by_name(view.radial), theta, by_name(view.angular))
