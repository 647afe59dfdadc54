# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # What a descriptor sees
# A Chebyshev descriptor is a list of moments: of the distances to an atom's neighbors, and of the
# angles between them. Read backwards it is a density again, as sharp as its order allows. So a
# descriptor that a decoder made up can be looked at, before there is a structure with it.

# %%
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxvae_md as jv
from jaxvae_md.descriptors import describe, distributions
from jaxvae_md.report import save_figure

jax.config.update("jax_enable_x64", True)
out = Path("03_descriptor_figures")
out.mkdir(exist_ok=True)

# %% [markdown]
# ## The mean environment of a crystal, of a melt, and of a surface
# The descriptor is that of the main job: cutoff 6 angstrom, order 12 for distances and angles.

# %%
frames = {atoms.info["label"]: atoms for atoms in jv.datasets.silicon()}
descriptor = jv.chebyshev(("Si",), 6.0, 12, 6.0, 12)
x = dict(zip(frames, describe(list(frames.values()), descriptor), strict=True))

r, theta = jnp.linspace(0.05, 5.95, 300), jnp.linspace(0, jnp.pi, 300)
seen = {kind: distributions(descriptor, x[kind].mean(axis=0), r, theta) for kind in x}
shown = ("crystal", "melt", "surface")
figure = jv.plot.distributions(
    r,
    {kind: seen[kind].radial for kind in shown},
    theta,
    {kind: seen[kind].angular for kind in shown},
)
save_figure(figure, out / "distributions.png")

# %% [markdown]
# ## A higher order sees more
# Shells of the crystal at 2.35, 3.84 and 4.50 angstrom; the cutoff function weighs the far ones
# down.

# %%
crystal = [frames["crystal"]]
orders = (12, 24, 40)
sharper = {}
for order in orders:
    more = jv.chebyshev(("Si",), 6.0, order, 6.0, order)
    (columns,) = describe(crystal, more)
    sharper[f"order {order}"] = distributions(more, columns.mean(axis=0), r, theta)
figure = jv.plot.distributions(
    r,
    {name: view.radial for name, view in sharper.items()},
    theta,
    {name: view.angular for name, view in sharper.items()},
)
save_figure(figure, out / "orders.png")

# %%
weighted = float(jnp.trapezoid(seen["crystal"].radial, r))
print(f"{weighted:.2f} neighbors, weighted by the cutoff function: the descriptor's first column")
assert abs(weighted / x["crystal"][:, 0].mean() - 1) < 0.02
first_shell = r[jnp.argmax(jnp.where(r < 3.1, sharper["order 40"].radial, 0))]
assert abs(first_shell - 2.35) < 0.1
assert np.min([view.radial.min() for view in sharper.values()]) > 0
