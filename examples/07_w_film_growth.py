# %% [markdown]
# # A growing tungsten film, and what a potential would have to know of it
#
# Tungsten atoms arrive at a bcc (001) surface. Is the film a crystal? And which surroundings in
# it would training data of crystals alone not contain?
#
# Small mode, as CI runs it: `JAXVAE_MD_SMALL=1 python examples/07_w_film_growth.py`. A full run
# that is stopped goes on where it was when it is started again.

# %%
import os
from pathlib import Path

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

import ase.io
from ase import Atoms
from ase.build import bulk

import jaxvae_md as jv
from jaxvae_md import units
from jaxvae_md.growth import grow
from jaxvae_md.simulate import beam, begin_deposit, zoned_langevin
from jaxvae_md.structure import stack

SMALL = "JAXVAE_MD_SMALL" in os.environ
WIDTH, NUM, STEPS, FRAMES = (4, 4, 200, 1) if SMALL else (6, 400, 1000, 8)
KELVIN, DT, LATTICE = 1200.0, 2.0, 3.165
out = Path("07_w_film_growth" + ("_small" if SMALL else ""))

# %% [markdown]
# ## Atoms arrive
# The lowest 6 angstrom are fixed, the next 6 have a thermostat, and above them everything moves
# freely: what an arriving atom brings is led away as in a real substrate. One atom of 1 eV every
# two picoseconds is fast, some metres an hour; what hops rarely has no time to.

# %%
tungsten = jv.potentials.eam_zhou()
params = tungsten.init(jax.random.key(0))
substrate = bulk("W", "bcc", a=LATTICE, cubic=True) * (WIDTH, WIDTH, 6)
substrate.pbc = (True, True, False)
simulator = zoned_langevin(tungsten, dt=DT, temperature=KELVIN, friction=0.005)
start = begin_deposit(
    simulator,
    params,
    jv.from_atoms(substrate, ("W",)),
    jax.random.key(0),
    capacity=len(substrate) + NUM,
    initial_temperature=KELVIN,
)
atom = beam(Atoms("W"), ("W",), energy=1.0)
path = grow(out, simulator, params, start, atom, NUM, STEPS, frame_every=FRAMES, progress=not SMALL)
frames = ase.io.read(path, ":")
energy = np.genfromtxt(out / "energy.csv", delimiter=",", names=True)
drift = np.ptp(energy["conserved_ev"]) / len(frames[-1])
print(f"{energy['brought_ev'][-1]:.0f} eV came, {-energy['heat_ev'][-1]:.0f} eV went to the")
print(f"thermostat, the balance holds to {1e3 * drift:.2f} meV an atom")

# %% [markdown]
# ## Is the film a crystal?
# Common-neighbor analysis of the structure at its nearest minimum of the energy, where heat does
# not hide it.

# %%
quenched = jv.from_atoms(frames[-1], ("W",))
if not SMALL:
    fixed = frames[-1].arrays["fixed"]
    quenched = jv.quench(tungsten, params, quenched, fixed=fixed, max_steps=2000).structure
names = np.array(jv.observables.STRUCTURES)
kinds = names[jv.observables.local_structure(quenched)]
base = float(substrate.positions[:, 2].max()) + LATTICE / 4
area = np.prod(substrate.cell.lengths()[:2])
found = jv.observables.film(quenched, base)
deposited = int(found.num_atoms.sum())
expected = deposited * LATTICE**3 / 2 / area
height = np.asarray(quenched.position)[:, 2]
inside = (height > base) & (height < base + found.thickness - LATTICE)
crystalline = np.mean(kinds[inside] == "bcc") if inside.any() else np.nan
print(f"{deposited} atoms are {found.thickness:.1f} angstrom thick; as a crystal {expected:.1f}")
print(f"bcc two layers below the surface: {crystalline:.0%}")

# %% [markdown]
# The lattice parameter of the film along its normal, from the distance of its layers.

# %%
lattice = np.nan
if inside.sum() > 50:
    depth = np.sort(height[inside])
    layers = [part.mean() for part in np.split(depth, np.nonzero(np.diff(depth) > 0.6)[0] + 1)]
    lattice = 2 * np.mean(np.diff(layers))
    print(f"lattice parameter {lattice:.3f} angstrom, of the potential {LATTICE}")

# %% [markdown]
# ## What do crystals not know of it?
# Crystals at four temperatures, and strained ones, are the training data. The score of every atom
# of the growing film tells what they lack.

# %%
rng = np.random.default_rng(0)
training = []
for number in range(6 if SMALL else 40):
    crystal = bulk("W", "bcc", a=LATTICE, cubic=True) * (3, 3, 3)
    strain = rng.normal(0, 0.015, (3, 3)) * (number % 2)
    crystal.set_cell(crystal.cell.array @ (np.eye(3) + strain + strain.T), scale_atoms=True)
    crystal.info["label"] = "strained" if number % 2 else "crystal"
    kelvin = (600.0, 1200.0, 2400.0)[number // 2 % 3]  # half of it becomes potential energy
    noise = (
        rng.normal(size=crystal.positions.shape) * np.sqrt(crystal.get_masses() * kelvin)[:, None]
    )
    crystal.set_momenta((noise - noise.mean(axis=0)) * units.BOLTZMANN**0.5)
    training.append(crystal)
# all side by side
moving = jv.simulate.nve(tungsten, 2.0)
together = stack([jv.from_atoms(atoms, ("W",)) for atoms in training])
state = jv.simulate.begin(
    moving,
    params,
    together,
    jax.random.key(1),
    momentum=np.stack([a.get_momenta() for a in training]),
)
*_, last_chunk = jv.simulate.chunks(moving, params, state, num_steps=200, record_every=200)
for crystal, position in zip(training, last_chunk.trajectory.position[-1], strict=True):
    crystal.positions = position
some = frames[:: max(1, len(frames) // 2 if SMALL else len(frames) // 5)]
for atoms in some:
    atoms.info["step"] = atoms.info["arrivals"]
method = jv.coverage.local_ratio()
result = jv.assess(
    training,
    some,
    method=method,
    order=4 if SMALL else 8,
    map_steps=0,
    name="The film",
)
print(result.verdict.sentence)
outside = np.concatenate(
    [part[~atoms.arrays["fixed"]] for part, atoms in zip(result.outside, some, strict=True)]
)
print(f"{outside.mean():.0%} of the atoms that move are outside the data")

# %% [markdown]
# ## Structures for the gaps, to be labelled
# What is missing is made from the crystals by moves, quenched and simulated for a moment with the
# potential at hand. `to_label.extxyz` is for a code that knows better.

# %%
descriptor = jv.chebyshev(("W",), 7.0, 8, 7.0, 8)
setting = jv.generate.setting(training, descriptor, tungsten, params, 2.74, 600.0)
made = jv.generate.generate(setting, jax.random.key(1), 2 if SMALL else 12)
accepted = [one for one in made if not one.error]
to_label = []
for one in accepted:
    atoms = jv.to_atoms(one.structure, ("W",))
    atoms.info.update(reason=one.reason, novelty=one.novelty, center=one.center)
    to_label.append(atoms)
ase.io.write(out / "to_label.extxyz", to_label)
print(len(accepted), "structures to label:", sorted({one.reason for one in accepted}))

# %% [markdown]
# ## Pictures
# A still and a movie, coloured by structure, and by what the data lack.

# %%
colors = {"bcc": jv.plot.BLUE, "fcc": jv.plot.GREEN, "hcp": jv.plot.PURPLE, "other": jv.plot.ORANGE}
colors |= {"outside the data": jv.plot.VERMILION, "known": jv.plot.SKY}


def snapshot(atoms, kinds, title):
    """One moment for the pictures."""
    return jv.plot.Snapshot(
        atoms.positions, atoms.cell.array, atoms.get_chemical_symbols(), list(kinds), title
    )


def structure_of(atoms):
    """Names of the structures of all atoms."""
    return names[jv.observables.local_structure(jv.from_atoms(atoms, ("W",)))]


picoseconds = STEPS * DT / 1000
shown = [frames[0], frames[len(frames) // 2], frames[-1]]
stills = [
    snapshot(atoms, structure_of(atoms), f"{atoms.info['arrivals'] * picoseconds:.0f} ps")
    for atoms in shown
]
known = np.where(result.outside[-1], "outside the data", "known")
stills.append(snapshot(some[-1], known, "what crystals do not know"))
thickness = [jv.observables.film(jv.from_atoms(atoms, ("W",)), base).thickness for atoms in frames]
time = np.array([atoms.info["arrivals"] * picoseconds for atoms in frames])
ideal = np.array([atoms.info["arrivals"] for atoms in frames]) * LATTICE**3 / 2 / area
curves = {"film": (time, np.array(thickness)), "as many atoms as a crystal": (time, ideal)}
jv.plot.film(stills, colors, curves).savefig(out / "film.png")
movie = [
    snapshot(atoms, structure_of(atoms), f"{atoms.info['arrivals'] * picoseconds:.0f} ps")
    for atoms in frames
]
jv.plot.film_movie(out / "film.gif", movie, {name: colors[name] for name in names})

# %%
assert drift < 3e-3
assert outside.any()
assert accepted
if not SMALL:
    assert crystalline >= 0.8
    assert abs(lattice / LATTICE - 1) < 0.02
    assert abs(found.thickness / expected - 1) < 0.1
