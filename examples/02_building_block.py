# %% [markdown]
# # A building block for your own JAX code
#
# Descriptor, encoder, potentials and simulator are pure functions of pytrees: put them into your
# own loss, `jax.grad` through them, `jax.vmap` over structures.
#
# Small mode, as CI runs it: `JAXVAE_MD_SMALL=1 python examples/02_building_block.py`.

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

from ase.build import bulk

import jaxvae_md as jv
from jaxvae_md.batching import batches
from jaxvae_md.simulate import nve, rollout

SMALL = "JAXVAE_MD_SMALL" in os.environ

# %% [markdown]
# ## A descriptor, an encoder, a potential
# A short training is enough here: the encoder only has to be some differentiable function.

# %%
frames = jv.datasets.silicon()[:: 6 if SMALL else 1]
species = ("Si",)
descriptor = jv.chebyshev(species, 6.0, 12, 6.0, 12)
x = np.concatenate(jv.describe(frames, descriptor))
standardizer = jv.fit_standardizer(x)
model = jv.vae.vae(descriptor.num_features, latent_dim=2)
vae_params, _ = jv.train(
    model, standardizer.apply(x), key=jax.random.key(0), num_steps=200 if SMALL else 2000
)
lj = jv.lennard_jones(species, cutoff=6.0, sigma=2.2, epsilon=0.15)
lj_params = lj.init(jax.random.key(1))

# %% [markdown]
# ## Your own loss
# Move the atoms such that one atom's latent code becomes a given point, while the Lennard-Jones
# energy stays low. The gradient goes through descriptor, encoder and energy.

# %%
atoms = bulk("Si", cubic=True) * (2, 2, 2)
atoms.rattle(0.1, seed=0)
structure = jax.tree.map(jnp.asarray, jv.from_atoms(atoms, species))
fns = jv.neighbor_list(descriptor.cutoff, skin=1.0)
neighbors = jax.tree.map(jnp.asarray, fns.allocate(structure))
wanted = jnp.array([1.0, -1.0])


def loss(position, lj_params):
    moved = structure._replace(position=position)
    latent, _ = model.encode(vae_params, standardizer.apply(descriptor(moved, neighbors)))
    return jnp.sum((latent[0] - wanted) ** 2) + 0.01 * lj.energy(lj_params, moved, neighbors)


by_position, by_params = jax.jit(jax.grad(loss, argnums=(0, 1)))(structure.position, lj_params)
print("largest gradient by position", float(jnp.abs(by_position).max()))
print("gradient by sigma and epsilon", jax.tree.map(float, jax.tree.map(jnp.sum, by_params)))

# %% [markdown]
# The same by finite differences.

# %%
step = 1e-5
direction = jax.random.normal(jax.random.key(2), structure.position.shape)
plus, minus = (loss(structure.position + s * step * direction, lj_params) for s in (1, -1))
numerical = (plus - minus) / (2 * step)
analytical = jnp.sum(by_position * direction)
print("directional derivative", float(analytical), "finite difference", float(numerical))

# %% [markdown]
# ## Through fifty steps of molecular dynamics
# Argon atoms, Lennard-Jones, velocity Verlet: how do the final positions depend on sigma and
# epsilon?

# %%
argon = jv.lennard_jones(("Ar",), cutoff=8.0, sigma=3.405, epsilon=0.0103)
crystal = bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 2, 2)
start = jv.from_atoms(crystal, ("Ar",))
simulator = nve(argon, dt=5.0)
list_of_argon = simulator.neighbor_fns.allocate(start, extra=1.2)
params = argon.init(jax.random.key(0))


def mean_square_displacement(params):
    state = simulator.init(jax.random.key(3), params, start, list_of_argon, 60.0)
    final, _ = rollout(simulator, params, state, num_steps=50)
    return jnp.mean(jnp.sum((final.structure.position - start.position) ** 2, axis=-1))


value, gradient = jax.jit(jax.value_and_grad(mean_square_displacement))(params)
print("mean square displacement", float(value), "gradient by sigma", float(gradient["sigma"][0, 0]))

# %%
shift = lambda s: {**params, "sigma": params["sigma"] + s * step}
compiled = jax.jit(mean_square_displacement)
by_difference = (compiled(shift(1)) - compiled(shift(-1))) / (2 * step)
print("finite difference", float(by_difference))

# %% [markdown]
# ## vmap over structures
# Frames of different size become padded batches; `vmap` does the rest. Here forces on the
# Lennard-Jones parameters from a batch of structures at once.

# %%
structures = [jv.from_atoms(a, species) for a in frames[:8]]
for batch in batches(structures, descriptor.cutoff):
    energies = jax.vmap(lj.energy, in_axes=(None, 0, 0))(
        lj_params, batch.structure, batch.neighbors
    )
    codes = jax.vmap(
        lambda s, n: model.encode(vae_params, standardizer.apply(descriptor(s, n)))[0]
    )(batch.structure, batch.neighbors)
    print("batch of", len(batch.frame), "energies", energies.shape, "latent codes", codes.shape)

# %%
np.testing.assert_allclose(analytical, numerical, rtol=1e-4)
np.testing.assert_allclose(gradient["sigma"][0, 0], by_difference, rtol=1e-4)
assert bool(jnp.all(jnp.isfinite(codes)))
