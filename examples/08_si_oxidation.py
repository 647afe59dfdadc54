# %% [markdown]
# # Oxidising silicon, and what a potential would have to know of it
#
# Oxygen arrives at a hot Si(100) surface; an oxide forms. What is its structure, how thick is it,
# and which of its surroundings would training data of silicon and quartz crystals not contain?
#
# Small mode, as CI runs it: `JAXVAE_MD_SMALL=1 python examples/08_si_oxidation.py`. A growth
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
from ase.spacegroup import crystal
from matplotlib.figure import Figure

import jaxvae_md as jv
from jaxvae_md import units
from jaxvae_md.growth import grow, last_deposit
from jaxvae_md.simulate import beam, begin_deposit, zoned_langevin
from jaxvae_md.structure import stack

SMALL = "JAXVAE_MD_SMALL" in os.environ
WIDTH, NUM, STEPS, FRAMES = (2, 4, 100, 1) if SMALL else (3, 180, 1500, 4)
ANNEALING = STEPS if SMALL else 30 * STEPS
KELVIN, HOT, DT, LATTICE = 1300.0, 1700.0, 0.5, 5.432
SPECIES = OXYGEN, SILICON = 0, 1
SYMBOLS = ("O", "Si")
out = Path("08_si_oxidation" + ("_small" if SMALL else ""))

# %% [markdown]
# ## Oxygen arrives
# The potential of Munetoh and others (2007) has Si-O bonds without charges. Atoms come with 12 eV,
# as from a plasma, one every .75 picoseconds. Those of 1 eV stay on top, where in this time the
# surface takes up more oxygen than silica has: five and six around a silicon atom.

# %%
silica = jv.potentials.tersoff(SYMBOLS)
params = silica.init(jax.random.key(0))
substrate = bulk("Si", "diamond", a=LATTICE, cubic=True) * (WIDTH, WIDTH, 4)
substrate.pbc = (True, True, False)
simulator = zoned_langevin(silica, dt=DT, temperature=KELVIN, friction=0.005)
start = begin_deposit(
    simulator,
    params,
    jv.from_atoms(substrate, SYMBOLS),
    jax.random.key(0),
    capacity=len(substrate) + NUM,
    initial_temperature=KELVIN,
    thermostatted=5.0,
)
oxygen = beam(Atoms("O"), SYMBOLS, energy=12.0)
path = grow(
    out, simulator, params, start, oxygen, NUM, STEPS, frame_every=FRAMES, progress=not SMALL
)
frames = ase.io.read(path, ":")
energy = np.genfromtxt(out / "energy.csv", delimiter=",", names=True)
drift = np.ptp(energy["conserved_ev"]) / len(frames[-1])
print(f"{-energy['heat_ev'][-1]:.0f} eV went to the thermostat; the balance holds to")
print(f"{1e3 * drift:.2f} meV an atom; {int(energy['left'][-1])} atoms left")

# %% [markdown]
# ## Annealing
# What the beam broke heals in 22 picoseconds at a higher temperature.

# %%
hot = simulator
if not SMALL:
    hot = zoned_langevin(silica, dt=DT, temperature=HOT, friction=0.005)
grown = last_deposit(out, start)
*_, (state, trajectory) = jv.simulate.chunks(
    hot, params, grown.state, ANNEALING, record_every=100, chunk=STEPS
)
jv.errors.check(trajectory.error, "annealing")
annealed = frames[-1].copy()
annealed.positions = state.structure.position[state.structure.mask]

# %% [markdown]
# ## The structure of the oxide
# At its nearest minimum of the energy. Bonds are up to 2.0 angstrom for Si-O, 2.65 for Si-Si and
# 1.7 for O-O; the oxide's silicon is what has two oxygens or more.

# %%
last = jv.from_atoms(annealed, SYMBOLS)
quenched = last
if not SMALL:
    quenched = jv.quench(
        silica, params, last, fixed=annealed.arrays["fixed"], tolerance=0.01, max_steps=3000
    ).structure
BONDS = np.array([[1.7, 2.0], [2.0, 2.65]])


def bonds_of(structure):
    """Bonds of each atom to oxygen and to silicon, and which silicon atoms are oxidised."""
    around = jv.observables.coordination(structure, BONDS)
    return around, (np.asarray(structure.species) == SILICON) & (around[:, OXYGEN] >= 2)


species = np.asarray(quenched.species)
around, oxidised = bonds_of(quenched)
bonded_oxygen = (species == OXYGEN) & (around[:, SILICON] > 0)
two_fold = np.mean(around[bonded_oxygen].sum(axis=1) == 2)
four_fold = np.mean(around[oxidised].sum(axis=1) == 4) if oxidised.any() else np.nan
print(f"oxygen of two bonds: {two_fold:.0%}; silicon of the oxide with four: {four_fold:.0%}")

i, j, shift = jv.neighbors.host_pairs(quenched, 2.0)
between = (species[i] == SILICON) & (species[j] == OXYGEN)
vector = quenched.position[j] + shift @ quenched.cell - quenched.position[i]
bond = np.median(np.linalg.norm(vector[between], axis=1))
edges = np.linspace(0, np.pi, 46)
angles = {
    name: jv.observables.adf_histogram(quenched, edges, 2.0, triple)
    for name, triple in {
        "O-Si-O": (SILICON, OXYGEN, OXYGEN),
        "Si-O-Si": (OXYGEN, SILICON, SILICON),
    }.items()
    if not SMALL
}
if angles:
    tetrahedral = np.degrees(angles["O-Si-O"].center[np.argmax(angles["O-Si-O"].count)])
    bridge = np.degrees(np.average(angles["Si-O-Si"].center, weights=angles["Si-O-Si"].count))
    print(f"Si-O {bond:.3f} angstrom; O-Si-O {tetrahedral:.0f} degrees, Si-O-Si {bridge:.0f}")

# %% [markdown]
# Thickness of the oxide with time: the height over which half of the oxygen's largest density is
# exceeded. And its composition: oxygen, and silicon that is oxidised.

# %%
grid = np.arange(-2.0, substrate.positions[:, 2].max() + 25.0, 0.5)
middle = 0.5 * (grid[1:] + grid[:-1])
kernel = np.exp(-0.5 * (np.arange(-8, 9) * 0.5 / 1.5) ** 2)


def profile_of(structure, kind):
    """Atoms a cubic angstrom at the heights of the grid, smoothed by 1.5 angstrom."""
    profile = jv.observables.density_profile(structure, grid, species=kind)
    return np.convolve(profile, kernel / kernel.sum(), mode="same")


def oxide_of(structure):
    """Thickness in angstrom, oxygen atoms, and oxidised silicon atoms."""
    num_oxygen = int(np.sum(np.asarray(structure.species) == OXYGEN))
    if num_oxygen == 0:
        return 0.0, 0, 0
    profile = profile_of(structure, OXYGEN)
    return (
        0.5 * np.sum(profile > 0.5 * profile.max()),
        num_oxygen,
        int(bonds_of(structure)[1].sum()),
    )


thickness, num_oxygen, num_oxidised = np.array(
    [oxide_of(jv.from_atoms(atoms, SYMBOLS)) for atoms in (*frames, annealed)]
).T
print(f"oxide: {thickness[-1]:.1f} angstrom, {num_oxygen[-1]:.0f} O, {num_oxidised[-1]:.0f} Si")

# %% [markdown]
# ## What do crystals not know of it?
# Silicon and quartz, cold to hot, are the training data.

# %%
quartz = crystal(
    ("Si", "O"),
    [(0.4697, 0, 2 / 3), (0.4135, 0.2669, 0.7858)],
    spacegroup=154,
    cellpar=(4.913, 4.913, 5.405, 90, 90, 120),
) * (2, 2, 2)
rng = np.random.default_rng(0)
moving = jv.simulate.nve(silica, 1.0)


def shaken(perfect, label, num):
    """Copies, strained and with the momenta of heat."""
    crystals = []
    for number in range(num):
        atoms = perfect.copy()
        strain = rng.normal(0, 0.01, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain + strain.T), scale_atoms=True)
        atoms.info["label"] = label
        kelvin = (600.0, 1200.0, 2600.0)[number % 3]  # half of it becomes potential energy
        noise = rng.normal(size=atoms.positions.shape)
        atoms.set_momenta(noise * np.sqrt(atoms.get_masses() * units.BOLTZMANN * kelvin)[:, None])
        crystals.append(atoms)
    return crystals


diamond = bulk("Si", "diamond", a=LATTICE, cubic=True) * (2, 2, 2)
num = 3 if SMALL else 20
training = shaken(diamond, "silicon", num) + shaken(quartz, "quartz", num)
if SMALL:
    for atoms in training:
        atoms.rattle(0.1, rng=rng)
else:
    # all simulated side by side
    together = stack([jv.from_atoms(atoms, SYMBOLS) for atoms in training])
    momentum = np.zeros(together.position.shape)
    momentum[together.mask] = np.concatenate([atoms.get_momenta() for atoms in training])
    key = jax.random.key(0)
    state = jv.simulate.begin(moving, params, together, key, momentum=momentum, extra=2.0)
    *_, chunk = jv.simulate.chunks(moving, params, state, num_steps=200, record_every=200)
    for atoms, position in zip(training, chunk.trajectory.position[-1], strict=True):
        atoms.positions = position[: len(atoms)]
some = frames[:: max(1, len(frames) // (2 if SMALL else 5))]
for atoms in some:
    atoms.info["step"] = atoms.info["arrivals"]
# without a melt among the data the plain distance says which atoms are new, and only those
method = jv.coverage.nearest_neighbors()
result = jv.assess(
    training,
    some,
    method=method,
    order=4 if SMALL else 8,
    map_steps=0,
    name="The oxidation",
)
print(result.verdict.sentence)
outside = [
    np.mean(part[~atoms.arrays["fixed"]]) for part, atoms in zip(result.outside, some, strict=True)
]
print("share of moving atoms outside the data:", np.round(outside, 2))
# with silicon alone as the training data, every oxygen is outside, whatever surrounds it
if not SMALL:
    silicon = [atoms for atoms in training if atoms.info["label"] == "silicon"]
    unseen = jv.assess(silicon, some[-1:], method=method, order=8, map_steps=0, name="The oxide")
    print(unseen.verdict.sentence)

# %% [markdown]
# ## Structures for the gaps, to be labelled

# %%
descriptor = jv.chebyshev(SYMBOLS, 5.0, 8, 5.0, 8)
setting = jv.generate.setting(training, descriptor, silica, params, 1.61, 1000.0)
made = jv.generate.generate(setting, jax.random.key(1), 2 if SMALL else 12)
accepted = [one for one in made if not one.error]
to_label = []
for one in accepted:
    atoms = jv.to_atoms(one.structure, SYMBOLS)
    atoms.info.update(reason=one.reason, novelty=one.novelty, center=one.center)
    to_label.append(atoms)
if to_label:
    ase.io.write(out / "to_label.extxyz", to_label)
print(len(accepted), "structures to label:", sorted({one.reason for one in accepted}))

# %% [markdown]
# ## Pictures

# %%
colors = {"Si": jv.plot.YELLOW, "O": jv.plot.VERMILION}
colors |= {"outside the data": jv.plot.BLUE, "known": jv.plot.SKY}


def snapshot(atoms, kinds, title):
    """One moment for the pictures."""
    return jv.plot.Snapshot(
        atoms.positions, atoms.cell.array, atoms.get_chemical_symbols(), list(kinds), title
    )


picoseconds = STEPS * DT / 1000
moment = lambda atoms: f"{atoms.info['arrivals'] * picoseconds:.0f} ps"
shown = [frames[0], frames[len(frames) // 2], frames[-1]]
stills = [snapshot(atoms, atoms.get_chemical_symbols(), moment(atoms)) for atoms in shown]
known = np.where(result.outside[-1], "outside the data", "known")
stills.append(snapshot(some[-1], known, "what crystals do not know"))
time = np.array([atoms.info["arrivals"] * picoseconds for atoms in frames])
jv.plot.film(stills, colors, {"oxide": (time, thickness[:-1])}).savefig(out / "oxide.png")
figure = Figure(figsize=(10, 3.2), layout="constrained")
axes = figure.subplots(1, 3)
for kind, symbol in enumerate(SYMBOLS):
    axes[0].plot(middle, profile_of(quenched, kind), color=colors[symbol], label=symbol)
axes[0].set(xlabel="height (angstrom)", ylabel="density (atoms / cubic angstrom)")
for name, histogram in angles.items():
    axes[1].plot(np.degrees(histogram.center), histogram.count, label=name)
if SMALL:
    axes[1].plot([], label="too few angles")
axes[1].set(xlabel="angle (degrees)", ylabel="number")
axes[2].plot(time, num_oxygen[:-1], color=colors["O"], label="O")
axes[2].plot(time, num_oxidised[:-1], color=colors["Si"], label="Si with two O or more")
axes[2].set(xlabel="time (ps)", ylabel="atoms")
for ax in axes:
    ax.legend(frameon=False)
figure.savefig(out / "oxide_structure.png")
movie = [snapshot(atoms, atoms.get_chemical_symbols(), moment(atoms)) for atoms in frames]
jv.plot.film_movie(out / "oxide.gif", movie, {name: colors[name] for name in ("Si", "O")})

# %%
assert drift < 0.03  # of the time step, at the kinks of fC; heat was a hundred times as much
assert outside[-1] > 0
if not SMALL:
    assert abs(bond - 1.6) < 0.08
    assert two_fold > 0.6
    assert four_fold > 0.6
    assert 100 < tetrahedral < 118
    assert 125 < bridge < 155
