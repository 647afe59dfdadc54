# %% [markdown]
# # Which structure to label?
#
# A potential that was fitted to crystals is to be right for the melt too. The gradient of the error
# of a few held-out frames of the melt goes through the fit to the label that a structure would get,
# and through the making of the structure to the latent point that asked for it: the point can
# climb to where its label would say most.
#
# Small mode, as CI runs it: `JAXVAE_MD_SMALL=1 python examples/05_which_label.py`.

# %%
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

import jaxvae_md as jv
from jaxvae_md import coverage
from jaxvae_md.batching import batches
from jaxvae_md.fit import answer, ascend, held_out_direction, influence, prepare, terms_of
from jaxvae_md.neighbors import allocate_systems
from jaxvae_md.potentials import energy_and_forces
from jaxvae_md.structure import stack

SMALL = "JAXVAE_MD_SMALL" in os.environ
NUM = 3 if SMALL else 8

# %% [markdown]
# ## A potential that knows crystals
# Lennard-Jones with a network on the same descriptors that the VAE sees.

# %%
frames = jv.datasets.silicon()
of_kind = lambda *kinds: [a for a in frames if a.info["label"] in kinds]
known = of_kind("crystal", "strained", "vacancy")[:: 3 if SMALL else 1]
melt = of_kind("melt")
held_out, test = melt[:6], melt[6:18]
species = ("Si",)
descriptor = jv.chebyshev(species, 6.0, 12, 6.0, 12)
per_frame = jv.describe(known, descriptor)
standardizer = jv.fit_standardizer(np.concatenate(per_frame))
z_frames = [np.asarray(standardizer.apply(x)) for x in per_frame]
x_train = np.concatenate(z_frames)
model = jv.vae.vae(descriptor.num_features, latent_dim=8)
vae_params, _ = jv.train(model, x_train, key=jax.random.key(0), num_steps=400 if SMALL else 3000)

potential = jv.compose(
    core=jv.lennard_jones(species, cutoff=6.0, sigma=2.2, epsilon=0.15),
    network=jv.chebyshev_nn(descriptor, standardizer, hidden=(16,)),
)


def labelled(atoms):
    """Prepared frames, with their labels less the mean energy of an atom."""
    structures = [jv.from_atoms(a, species) for a in atoms]
    energy = np.array([a.get_potential_energy() + 4.3 * len(a) for a in atoms])
    forces = [a.get_forces() for a in atoms]
    return prepare(potential, batches(structures, potential.cutoff), energy, forces)


def fitted(data, params):
    num_steps = 200 if SMALL else 4000
    return jv.fit.force_matching(
        potential, params, data, key=jax.random.key(1), num_steps=num_steps
    ).params


data = labelled(known)
params = fitted(data, potential.init(jax.random.key(2)))
terms = terms_of(data, energy_weight=3.0, stress_weight=0.0)


def force_error(params, atoms):
    """meV / angstrom, root mean square."""
    structures = [jv.from_atoms(a, species) for a in atoms]
    found = jv.fit.predict(potential, params, batches(structures, potential.cutoff))
    off = [f - a.get_forces() for f, a in zip(found.forces, atoms, strict=True)]
    return 1e3 * np.sqrt(np.mean(np.concatenate(off) ** 2))


print(f"fitted to crystals: {force_error(params, known):.0f} meV/A there", end=", ")
print(f"{force_error(params, test):.0f} in the melt")

# %% [markdown]
# ## What labels would change the error of the melt
# The direction in which the fitted parameters answer the held-out error; then the structures of
# latent points, and the answer of their energies and forces along that direction.

# %%
direction = held_out_direction(potential, params, data, labelled(held_out), terms)
novelty = coverage.fit_novelty(z_frames)
key, SKIN = jax.random.key(3), 2.0
targets = jv.propose(model, vae_params, novelty, x_train, key, NUM, max_cycle=1.0)
sizes = [len(a) for a in known]
frame_of, atom_of = (
    np.repeat(np.arange(len(known)), sizes),
    np.concatenate(list(map(np.arange, sizes))),
)
structures = stack([jv.from_atoms(known[i], species) for i in frame_of[targets.start]])
lists = jv.neighbor_list(descriptor.cutoff, SKIN)
starts = (structures, allocate_systems(lists, structures, extra=1.1), atom_of[targets.start])
starts = jax.tree.map(jnp.asarray, starts)
encoder = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), vae_params)
latent = lambda x: model.encode(encoder, standardizer.apply(x))[0]


def made(z, start):
    structure, neighbors, center = start
    shortest = jnp.array([[2.0]])
    return jv.realise(descriptor, latent, z, structure, neighbors, center, shortest, skin=SKIN)


def log_influence(z, start):
    result = made(z, start)
    listed = lists.update(result.structure, start[1])
    found = answer(potential, params, direction, result.structure, listed)
    blocking = jv.errors.NOT_FINITE | jv.errors.STALE_NEIGHBORS | jv.errors.TOO_CLOSE
    return jnp.log(influence(found, terms, result.structure.mask)), result.error & blocking


ascent = jax.jit(partial(ascend, log_influence, num_steps=2 if SMALL else 8))(
    jnp.asarray(targets.z, float), starts
)
growth = np.exp(np.asarray(ascent.value - ascent.start))
print("influence of the labels, after over before:", np.round(growth, 2))

# %% [markdown]
# ## Are they worth it?
# The structures before and after are labelled with Stillinger-Weber, which made the data, and the
# potential is fitted again with each.

# %%
oracle = jv.stillinger_weber()
oracle_params = oracle.init(None)
realised = jax.jit(lambda z, start: made(z, start).structure.position)


def with_labels(z):
    """The known frames and the structures of these points."""
    more = []
    for number in range(len(z)):
        start = jax.tree.map(lambda leaf, number=number: leaf[number], starts)
        atoms = known[frame_of[targets.start[number]]].copy()
        atoms.positions = np.asarray(realised(z[number], start))[: len(atoms)]
        more.append(labelled_by_oracle(atoms))
    return known + more


def labelled_by_oracle(atoms):
    from ase.calculators.singlepoint import SinglePointCalculator

    structure = jv.from_atoms(atoms, species)
    neighbors = jv.neighbor_list(oracle.cutoff).allocate(structure)
    energy, forces = energy_and_forces(oracle.energy, oracle_params, structure, neighbors)
    atoms.calc = SinglePointCalculator(atoms, energy=float(energy), forces=np.asarray(forces))
    return atoms


errors = {"crystals alone": force_error(fitted(data, params), test)}
for name, z in (("requests", targets.z), ("after the ascent", ascent.z)):
    errors[name] = force_error(fitted(labelled(with_labels(jnp.asarray(z, float))), params), test)
for name, value in errors.items():
    print(f"force error in the melt, {name}: {value:.0f} meV/A")

# %%
from matplotlib.figure import Figure

figure = Figure((8, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
before, after = (np.exp(np.asarray(v)) for v in (ascent.start, ascent.value))
left.scatter(before, after, color=jv.plot.BLUE)
line = np.array([before.min(), after.max()])
left.plot(line, line, color="0.6", linewidth=1)
left.set(xlabel="influence of the request", ylabel="after the ascent")
right.bar(list(errors), list(errors.values()), color=jv.plot.VERMILION)
right.set(ylabel="force error in the melt (meV/Å)")
figure.savefig("which_label.png", dpi=150)

# %%
assert (growth >= 1).all() and growth.max() > 1.01
print("which_label.png written")
