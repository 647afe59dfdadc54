"""Gradients through a simulation: `python benchmarks/gradients.py [--json] [--only PART]`.

NVE of a Lennard-Jones liquid (reduced density 0.8442, cutoff 2.5 sigma, force-shifted, time step
0.005) in float64 on one core. `time`: the gradient by sigma and epsilon of a loss on the last of
1,000 steps, over the time of these steps alone, medians of repeats that alternate; beside it
checkpointed reverse mode, as JAX gives it. `memory`: by how much the memory of a process grows
from 100 to 100,000 steps, of a cold crystal, each in a process of its own. `recovery`: relative
errors of sigma and epsilon found again from what they were to be found from.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from one_core import one_core

from jaxvae_md import errors, fit, units, vae
from jaxvae_md.descriptors import chebyshev, fit_standardizer
from jaxvae_md.observables import pressure, radial_distribution
from jaxvae_md.potentials import lennard_jones
from jaxvae_md.simulate import (
    State,
    advance,
    begin,
    masses,
    nve,
    nvt_langevin,
    rollout,
    value_and_grad,
)
from jaxvae_md.structure import Structure, stack

jax.config.update("jax_enable_x64", True)

DENSITY, CUTOFF, DT = 0.8442, 2.5, 0.005
MASS = float(masses(("Ar",))[0])
"""sigma is 1 angstrom and epsilon 1 eV here, and the unit of time sigma sqrt(mass / epsilon)"""
POTENTIAL = lennard_jones(("Ar",), CUTOFF, 1.0, 1.0, "force_shift")
PARAMS = POTENTIAL.init(jax.random.key(0))
SIMULATOR = nve(POTENTIAL, DT * MASS**0.5 / units.FEMTOSECOND, skin=0.4)
KEY = jax.random.key(0)


def solid(
    times: tuple[int, int, int], temperature: float, density: float = DENSITY
) -> tuple[Structure, np.ndarray]:
    """A face-centred cubic crystal of the liquid's density, and momenta."""
    edge = (4 / density) ** (1 / 3)
    corners = np.array(list(np.ndindex(*times)))
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    position = (corners[:, None] + basis).reshape(-1, 3) * edge
    num = len(position)
    structure = Structure(
        position=position,
        cell=edge * np.diag(times).astype(float),
        pbc=np.ones(3, bool),
        species=np.zeros(num, np.int32),
        mask=np.ones(num, bool),
    )
    momentum = np.random.default_rng(0).normal(0, (MASS * temperature) ** 0.5, (num, 3))
    return structure, momentum - momentum.mean(axis=0)


def liquid(times: tuple[int, int, int]) -> State:
    """The crystal molten by 2,000 steps, at about the temperature 0.7."""
    structure, momentum = solid(times, 1.44)
    state = begin(SIMULATOR, PARAMS, structure, KEY, momentum=momentum, extra=2.0)
    state = jax.jit(partial(advance, SIMULATOR, num_steps=2000))(PARAMS, state)
    assert not state.neighbors.overflow
    # lists with room for what comes
    on_host = jax.tree.map(np.asarray, state.structure)
    return begin(SIMULATOR, PARAMS, on_host, KEY, momentum=state.dynamics.momentum, extra=1.5)


def loss_fn(params, last: State, trajectory) -> Any:
    """Of the momenta, of density waves and of the forces at the end."""
    del params, trajectory
    x, cell = last.structure.position[:, 0], last.structure.cell
    waves = 2 * jnp.pi / cell[0, 0] * jnp.arange(1, 5)[:, None]
    density = jnp.mean(jnp.sum(jnp.cos(waves * x), axis=1) ** 2) / len(x)
    kinetic = jnp.mean(last.dynamics.momentum**2) / MASS
    return kinetic + density + 1e-3 * jnp.mean(last.dynamics.force**2)


def medians(repeats: int, *runs: Callable[[], Any]) -> list[float]:
    """Median seconds of each, in turn after turn, after one that compiles."""
    laps: list[list[float]] = [[] for _ in runs]
    for number in range(repeats + 1):
        for run, lap in zip(runs, laps, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(run())
            if number:
                lap.append(time.perf_counter() - began)
    return [statistics.median(lap) for lap in laps]


def timing(repeats: int) -> Iterator[dict]:
    """Times of gradients over the time of the steps alone."""
    num_steps = 1000
    for times in ((4, 4, 4), (10, 10, 5)):
        state = liquid(times)
        num = len(state.structure.position)

        @jax.jit
        def forward(params, state):
            last = advance(SIMULATOR, params, state, num_steps)
            return loss_fn(params, last, None)

        # reverse mode as JAX has it takes minutes for the larger one
        adjoints = ("reversible", "checkpointed") if num == 256 else ("reversible",)
        ways = [
            jax.jit(value_and_grad(loss_fn, SIMULATOR, num_steps, adjoint=adjoint))
            for adjoint in adjoints
        ]
        for way in ways:
            errors.check(way(PARAMS, state).error, "gradient")
        runs = [partial(way, PARAMS, state) for way in (forward, *ways)]
        alone, ours, *theirs = medians(repeats, *runs)
        one = {
            "name": f"gradient-time-{num}",
            "value": ours / alone,
            "unit": "forward passes",
            "forward_seconds": alone,
        }
        if theirs:
            one |= {"peer": "jax.checkpoint", "peer_version": version("jax")}
            one |= {"peer_value": theirs[0] / alone, "ratio": theirs[0] / ours}
        yield one


def peak(num_steps: int) -> float:
    """MB of this process at its highest, after a gradient through that many steps."""
    structure, momentum = solid((4, 4, 4), 0.1)
    state = begin(SIMULATOR, PARAMS, structure, KEY, momentum=momentum, extra=1.5)
    sensitivity = jax.jit(value_and_grad(loss_fn, SIMULATOR, num_steps))(PARAMS, state)
    errors.check(sensitivity.error, "gradient")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(repeats: int) -> Iterator[dict]:
    """Growth of the memory with the number of steps."""
    del repeats
    command = [sys.executable, __file__, "--peak"]
    few, many = (
        float(subprocess.run([*command, str(n)], check=True, capture_output=True).stdout)
        for n in (100, 100_000)
    )
    yield {"name": "gradient-memory-growth", "value": many - few, "unit": "MB", "few": few}


WRONG = {"sigma": 0.98 * PARAMS["sigma"], "epsilon": 1.06 * PARAMS["epsilon"]}


def largest_error(params) -> float:
    """Of sigma and epsilon, relative."""
    return max(float(jnp.max(jnp.abs(params[name] / PARAMS[name] - 1))) for name in PARAMS)


def recovery(repeats: int) -> Iterator[dict]:
    """Sigma and epsilon found again, each way in turn."""
    del repeats
    for way in (recovery_by_trajectory, recovery_by_environments, recovery_by_reweighting):
        yield from way()


def recovery_by_trajectory() -> Iterator[dict]:
    """From where atoms are after 100 steps."""
    state = liquid((4, 4, 4))

    def final(params):
        last, frames = rollout(SIMULATOR, params, state, 100, 100, "reversible")
        return last.structure.position, frames.error

    target, _ = jax.jit(final)(PARAMS)

    def distance(params, key):
        del key
        position, error = final(params)
        return jnp.mean((position - target) ** 2), error

    optimiser = fit.relative(optax.lbfgs(), unit=0.01)
    result = fit.through_trajectory(distance, WRONG, key=KEY, num_updates=25, optimiser=optimiser)
    yield {"name": "recovery-trajectory", "value": largest_error(result.params), "unit": "relative"}


def recovery_by_environments() -> Iterator[dict]:
    """From latent codes of the atoms in a liquid and in crystals of two densities.

    The liquid tells sigma, and how far the atoms of crystals swing then epsilon.
    """
    dt = DT * MASS**0.5 / units.FEMTOSECOND
    descriptor = chebyshev(("Ar",), CUTOFF, 8, 2.0, 4)

    @jax.jit
    def describe(ensemble):
        def of_frame(position):
            structure = ensemble.structure._replace(position=position)
            return descriptor(structure, ensemble.update(structure, ensemble.neighbors))

        return jax.lax.map(of_frame, ensemble.structure.position)

    began, x, starts, momenta = time.perf_counter(), [], [], []
    # melting takes heat that the thermostat then takes back
    for density, kT, heat in ((DENSITY, 0.75, 3.0), (0.95, 0.3, 0.6), (1.2, 0.3, 0.6)):
        kelvin = kT / units.BOLTZMANN
        simulator = nvt_langevin(POTENTIAL, dt, kelvin, friction=2 / (200 * dt), skin=0.4)
        structure, _ = solid((5, 5, 5), kT, density)
        state = begin(simulator, PARAMS, structure, KEY, heat / units.BOLTZMANN, extra=1.5)
        ensemble, _ = fit.sample(
            simulator,
            PARAMS,
            state,
            32 * 200,
            temperature=kelvin,
            record_every=200,
            equilibration=4000,
            cutoff=CUTOFF,
        )
        x.append(np.asarray(describe(ensemble)).reshape(-1, descriptor.num_features))
        for number in range(0, 32, 4):
            starts.append(structure._replace(position=ensemble.structure.position[number]))
            drawn = np.random.default_rng(number).normal(0, (MASS * kT) ** 0.5, (500, 3))
            momenta.append(drawn - drawn.mean(axis=0))
    standardizer = fit_standardizer(np.concatenate(x))
    model = vae.vae(descriptor.num_features, latent_dim=6)
    z = np.asarray(standardizer.apply(np.concatenate(x)))
    encoder, _ = vae.train(model, z[::8], key=KEY, num_steps=1500)
    encode = lambda x: model.encode(encoder, standardizer.apply(x))[0]
    reference = [jax.jit(encode)(part) for part in x]
    starts = jax.tree.map(np.asarray, stack(starts))

    def discrepancy_fn(codes):
        simulated = codes.reshape(len(reference), -1, 6)
        each = zip(simulated, reference, strict=True)
        return sum(fit.fisher_discrepancy(one, other) for one, other in each)

    result = fit.environment_matching(
        lambda structure, neighbors: encode(descriptor(structure, neighbors)),
        discrepancy_fn,
        SIMULATOR,
        WRONG,
        begin(SIMULATOR, PARAMS, starts, KEY, momentum=np.stack(momenta), extra=1.5),
        cutoff=CUTOFF,
        num_steps=100,
        num_updates=12,
    )
    seconds, error = time.perf_counter() - began, largest_error(result.params)
    yield {"name": "recovery-environments", "value": error, "unit": "relative", "seconds": seconds}


def recovery_by_reweighting() -> Iterator[dict]:
    """Sigma and epsilon from pressure and g(r) of a liquid; and the cost of an update."""
    kelvin = 0.75 / units.BOLTZMANN
    dt = DT * MASS**0.5 / units.FEMTOSECOND
    simulator = nvt_langevin(POTENTIAL, dt, kelvin, friction=0.5 / (200 * dt), skin=0.4)
    r, molten = jnp.linspace(0.85, 2.3, 30), jax.tree.map(np.asarray, liquid((4, 4, 4)).structure)

    def observe(params, structure, neighbors):
        virial = pressure(POTENTIAL, params, structure, neighbors)
        return jnp.append(radial_distribution(structure, neighbors, r, width=0.05), virial)

    options = {"temperature": kelvin, "record_every": 200, "equilibration": 2000}
    begun = begin(simulator, PARAMS, molten, jax.random.key(1), kelvin)
    began = time.perf_counter()
    reference, begun = fit.sample(simulator, PARAMS, begun, 200_000, **options)
    squares = lambda *arguments: (lambda seen: (seen, seen**2))(observe(*arguments))
    (mean, square), _ = fit.averages(POTENTIAL, PARAMS, reference, squares)
    # each average is worth what its fluctuations leave it worth
    spread = jnp.sqrt(square - mean**2)
    loss = lambda averages: jnp.sum(((averages - mean) / spread) ** 2)

    # an update beside the sampling of its trajectory, both compiled
    ensemble, begun = fit.sample(simulator, PARAMS, begun, 50_000, **options)
    gradient = jax.jit(
        jax.value_and_grad(
            lambda params, ensemble: loss(fit.averages(POTENTIAL, params, ensemble, observe)[0])
        )
    )
    sampled, updated = medians(
        3,
        lambda: fit.sample(simulator, PARAMS, begun, 50_000, **options)[0].energy,
        lambda: gradient(PARAMS, ensemble),
    )
    yield {
        "name": "reweighting-update",
        "value": updated / sampled,
        "unit": "times the sampling of its trajectory",
        "sampling_seconds": sampled,
    }
    result = fit.reweighting(
        loss,
        observe,
        simulator,
        WRONG,
        molten,
        key=jax.random.key(2),
        num_steps=50_000,
        num_updates=30,
        **options,
    )
    seconds = time.perf_counter() - began
    error = largest_error(result.params)
    yield {"name": "recovery-reweighting", "value": error, "unit": "relative", "seconds": seconds}


def main() -> None:
    """Prints the figures as they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = {"time": timing, "memory": memory, "recovery": recovery}
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=parts)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    one_core()
    if options.peak:
        print(peak(options.peak))
        return
    names = ("jax", "jaxvae_md", "jax-md")
    head = {"python": platform.python_version()} | {name: version(name) for name in names}
    print(json.dumps(head) if options.json else head, flush=True)
    for name, part in parts.items():
        if options.only in (None, name):
            for one in part(5):
                print(json.dumps(one) if options.json else one, flush=True)


if __name__ == "__main__":
    main()
