# %% [markdown]
# # Argon: sigma and epsilon from what was measured
#
# Three ways to a potential's parameters. From a crystal at rest, by least squares. From averages of
# a liquid, by reweighting stored trajectories. From single trajectories, by gradients through the
# simulation.
#
# Small mode, as CI runs it: `JAXVAE_MD_SMALL=1 python examples/04_argon.py`.

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)

import jaxvae_md as jv
from jaxvae_md import units
from jaxvae_md.fit import Reference
from jaxvae_md.observables import equation_of_state, pressure, radial_distribution
from jaxvae_md.simulate import begin, nve, nvt_langevin, rollout, warn_past_horizon
from jaxvae_md.structure import Structure

SMALL = "JAXVAE_MD_SMALL" in os.environ


def crystal(volume: float, times: int = 1) -> Structure:
    """Face-centred cubic, `volume` (angstrom^3) an atom."""
    edge = (4 * volume) ** (1 / 3)
    corners = np.array(list(np.ndindex(*(times,) * 3)))
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    position = (corners[:, None] + basis).reshape(-1, 3) * edge
    num = len(position)
    ones, zeros = np.ones(num, bool), np.zeros(num, np.int32)
    return Structure(position, times * edge * np.eye(3), np.ones(3, bool), zeros, ones)


# %% [markdown]
# ## The crystal
# Volume and bulk modulus at 0 K, as they would be without zero-point motion, are those of the
# experiment in ASE's `dcdft` collection (Lejaeghere et al., Crit. Rev. Solid State Mater. Sci. 39,
# 1, 2014); that collection's PBE rows, 52.385 angstrom^3 and 0.743 GPa, show what a reference
# without dispersion would teach. The cohesive energy, 80 meV (Kittel, Introduction to Solid State
# Physics), does contain zero-point motion: 9/8 k of the Debye temperature, 92 K, is added.

# %%
VOLUME, MODULUS = 35.547, 3.298 * units.GIGAPASCAL
ENERGY = -(0.080 + 9 / 8 * units.BOLTZMANN * 92.0)

argon = jv.lennard_jones(("Ar",), cutoff=11.95, sigma=3.6, epsilon=0.008, scheme="cut", tail=True)
# the modulus as the slope of the pressure, by two volumes on both sides
tension = {ratio: MODULUS * (ratio - 1) * np.eye(3) for ratio in (0.99, 1.0, 1.01)}
references = [Reference(crystal(VOLUME * ratio), stress=s) for ratio, s in tension.items()]
references[1] = references[1]._replace(energy=4 * ENERGY)
result = jv.fit.least_squares(
    argon, argon.init(None), references, energy_error=1e-3, stress_error=1e-4
)
sigma, epsilon = (float(result.params[name][0, 0]) for name in ("sigma", "epsilon"))
error = np.sqrt(np.diag(result.covariance))
print(f"crystal: sigma {sigma:.4f} +- {error[1]:.4f} angstrom")
print(f"crystal: epsilon {1e3 * epsilon:.3f} +- {1e3 * error[0]:.3f} meV")
print(f"crystal: that is {epsilon / units.BOLTZMANN:.1f} K")
found = equation_of_state(argon, result.params, crystal(VOLUME), np.linspace(0.96, 1.04, 9))
print(f"its volume {found.volume_0 / 4:.3f} angstrom^3, measured {VOLUME}")
print(f"its modulus {found.bulk_modulus / units.GIGAPASCAL:.2f} GPa, measured 3.298")

# %% [markdown]
# Two parameters for three numbers: Lennard-Jones is an honest model of argon.
#
# ## The liquid
# Pressure, distances and energy (which the heat of vaporisation says) of a liquid at 85 K and
# 0.02125 atoms/angstrom^3, where Yarnell et al.
# (Phys. Rev. A 7, 2130, 1973) measured. Here a simulation with published parameters (Rahman, Phys.
# Rev. 136, A405, 1964: 119.8 K and 3.405 angstrom) stands for the measurement, so that the answer
# is known. The fit starts from 1 % and 5 % off.

# %%
KELVIN, DENSITY = 85.0, 0.02125
TRUE = {"sigma": 3.405, "epsilon": 119.8 * units.BOLTZMANN}
liquid_argon = jv.lennard_jones(("Ar",), cutoff=7.5, **TRUE)
true = liquid_argon.init(None)
start = crystal(1 / DENSITY, times=3)
simulator = nvt_langevin(liquid_argon, dt=5.0, temperature=KELVIN, friction=0.005)
r = jnp.linspace(2.8, 7.0, 22 if SMALL else 43)
ideal = DENSITY * units.BOLTZMANN * KELVIN


def observe(params, structure, neighbors):
    virial = pressure(liquid_argon, params, structure, neighbors)
    energy = liquid_argon.energy(params, structure, neighbors) / len(structure.position)
    g = radial_distribution(structure, neighbors, r, width=0.1)
    return jnp.concatenate([g, jnp.array([virial + ideal, energy])])


def with_square(params, structure, neighbors):
    seen = observe(params, structure, neighbors)
    return seen, seen**2


options = {"temperature": KELVIN, "record_every": 50, "cutoff": 7.4}
state = begin(simulator, true, start, jax.random.key(1), 3 * KELVIN)
measured, _ = jv.fit.sample(
    simulator, true, state, 10_000 if SMALL else 60_000, equilibration=5_000, **options
)
(target, square), _ = jv.fit.averages(liquid_argon, true, measured, with_square)
# an average is worth what its fluctuations leave it worth; no atom ever comes very close
spread = jnp.sqrt(jnp.maximum(square - target**2, 1e-8))
# molten, as the crystal would not be at this temperature
molten = start._replace(position=np.asarray(measured.structure.position[-1]))


def difference(averages):
    return jnp.mean(((averages - target) / spread) ** 2)


off = {"sigma": 0.99 * true["sigma"], "epsilon": 1.05 * true["epsilon"]}
liquid = jv.fit.reweighting(
    difference,
    observe,
    simulator,
    off,
    molten,
    key=jax.random.key(2),
    num_steps=4_000 if SMALL else 20_000,
    equilibration=5_000,
    num_updates=10 if SMALL else 30,
    **options,
)
of_liquid = {name: float(liquid.params[name][0, 0] / true[name][0, 0] - 1) for name in true}
print("liquid, off by", {name: f"{100 * value:+.2f} %" for name, value in of_liquid.items()})

# %% [markdown]
# ## Trajectories
# The same parameters from where atoms are after half a picosecond. The gradient runs backwards
# through the simulation; it is worth something within the horizon only.

# %%
verlet = nve(liquid_argon, dt=5.0)
initial = begin(verlet, true, molten, jax.random.key(3), KELVIN, extra=1.4)
NUM = 100
horizon = warn_past_horizon(verlet, true, initial, NUM)
print(f"horizon: about {horizon:.0f} steps; the fit goes through {NUM}")


def final(params):
    last, frames = rollout(verlet, params, initial, NUM, NUM, adjoint="reversible")
    return last.structure.position, frames.error


arrived = jax.jit(final)(true)[0]


def distance(params, key):
    del key
    position, error = final(params)
    return jnp.mean((position - arrived) ** 2), error


paths = jv.fit.through_trajectory(
    distance,
    off,
    key=jax.random.key(0),
    num_updates=25,
    optimiser=jv.fit.relative(optax.lbfgs(), unit=0.01),
)
of_paths = {name: float(paths.params[name][0, 0] / true[name][0, 0] - 1) for name in true}
print("trajectory, off by", {name: f"{100 * value:+.4f} %" for name, value in of_paths.items()})

# %%
from matplotlib.figure import Figure

figure = Figure((10, 3.6), layout="constrained")
left, middle, right = figure.subplots(1, 3)
left.plot(found.volume / 4, found.energy / 4, color=jv.plot.BLUE, marker="o", label="fitted")
left.plot(VOLUME, ENERGY, "s", color=jv.plot.VERMILION, label="measured, without zero point")
left.margins(y=0.3)
left.set(xlabel="volume (Å³ an atom)", ylabel="energy (eV an atom)", title="Crystal")
mean, _ = jv.fit.averages(liquid_argon, liquid.params, measured, observe)
middle.plot(r, target[:-2], color=jv.plot.BLACK, linewidth=3, alpha=0.4, label="to be met")
middle.plot(r, mean[:-2], color=jv.plot.BLUE, label="fitted")
middle.set(xlabel="r (Å)", ylabel="g(r)", title="Liquid at 85 K")
for name, fitted, color in (("liquid", liquid, jv.plot.BLUE), ("paths", paths, jv.plot.VERMILION)):
    right.semilogy(fitted.history / fitted.history[0], color=color, label=name)
right.set(xlabel="update", ylabel="loss / first loss", title="Fits")
for ax in (left, middle, right):
    ax.legend(frameon=False)
figure.savefig("argon.png", dpi=150)

# %%
assert abs(sigma - 3.385) < 0.02 and abs(epsilon / units.BOLTZMANN - 119.8) < 3
assert abs(found.volume_0 / 4 / VOLUME - 1) < 0.01
# few frames say little of a liquid
assert SMALL or (abs(of_liquid["sigma"]) < 0.005 and abs(of_liquid["epsilon"]) < 0.01)
assert max(map(abs, of_paths.values())) < 0.01
print("argon.png written")
