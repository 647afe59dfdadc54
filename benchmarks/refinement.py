"""Refinement in the loop: `python benchmarks/refinement.py [--seed 0] [--oracle tersoff] [--json]`.

The potential of `ours` in loop.py after its last round, refined by reweighting (DiffTRe): the RDF
and the pressure of the oracle's crystal (900 K) and liquid (2500 K), 64 atoms each at the density
of the crystal, are matched by its parameters. What that costs is counted in the loss: the sum of
squares of the training frames' residuals, of which a hundredth more costs as much as a pressure
wrong by .2 GPa or an RDF by .02 (root mean square). In the coordinates that this sum of squares
makes round, the gradient descends along what the labels leave open.

`before` and `after`: of the refined potential's own simulation, with other random numbers than those
of the fit; force errors on the frames of loop.py that no fit sees.
"""  # noqa: E501

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [HERE, *(path for path in sys.path if path != HERE)]
import loop  # noqa: E402

from jaxvae_md import fit, units  # noqa: E402
from jaxvae_md.observables import pressure, radial_distribution  # noqa: E402
from jaxvae_md.simulate import begin, nvt_langevin, run  # noqa: E402
from jaxvae_md.structure import Structure, from_atoms  # noqa: E402

DISTANCES = np.linspace(1.8, 5.5, 75)
CUTOFF = 5.8
PRESSURE, RDF, RESIDUALS = 0.2, 0.02, 0.01
"""GPa, and without units: deviations that count one in the loss"""
NUM_STEPS, EQUILIBRATION, EVERY = 6000, 1500, 20
NUM_TRAJECTORIES, NUM_UPDATES, LEARNING_RATE = 4, 40, 0.02


class Phase(NamedTuple):
    """What is simulated."""

    name: str
    kelvin: float
    start: Structure


class Seen(NamedTuple):
    """Ensemble averages."""

    pressure: Any
    """GPa, without the part of the velocities, which is the same for all"""
    rdf: Any


def phases(of: loop.Loop) -> list[Phase]:
    crystal = from_atoms(of.crystal, loop.SPECIES)
    params = of.oracle.init(jax.random.key(0))
    molten = run(
        nvt_langevin(of.oracle, 2.0, 5000.0, 0.02), params, crystal, jax.random.key(7), 2500,
        initial_temperature=5000.0, record_every=500,
    )  # fmt: skip
    liquid = crystal._replace(position=np.asarray(molten.position[-1]))
    return [Phase("crystal", 900.0, crystal), Phase("liquid", 2500.0, liquid)]


def observer(potential):
    def observe(params, structure, neighbors) -> Seen:
        return Seen(
            pressure(potential, params, structure, neighbors) / units.GIGAPASCAL,
            radial_distribution(structure, neighbors, jnp.asarray(DISTANCES), 0.1),
        )

    return observe


def sampled(potential, params, phase: Phase, key, state=None):
    simulator = nvt_langevin(potential, 2.0, phase.kelvin, 0.02)
    if state is None:
        state = begin(simulator, params, phase.start, key, phase.kelvin)
    return fit.sample(
        simulator, params, state, NUM_STEPS, temperature=phase.kelvin, record_every=EVERY,
        equilibration=EQUILIBRATION, cutoff=CUTOFF,
    )  # fmt: skip


def wrong(seen: Seen, target: Seen):
    """The loss of one phase."""
    return ((seen.pressure - target.pressure) / PRESSURE) ** 2 + jnp.mean(
        ((seen.rdf - target.rdf) / RDF) ** 2
    )


def refined(of: loop.Loop, known: Sequence, params: dict, states, targets) -> Iterator[dict]:
    """Parameters after each trajectory."""
    gram, right, rest = of.normal_equations(known)
    first = np.asarray(params["quadratic"]["coefficients"]) * of.scale
    residual = float(first @ gram @ first - 2 * first @ right + rest)
    # residuals grow by the square of a step in these coordinates, in units of RESIDUALS
    factor = np.linalg.cholesky((gram + np.diag(of.penalty)) / (RESIDUALS * residual))
    potential = of.ridge.potential
    observe = observer(potential)

    def at(u):
        step = jax.scipy.linalg.solve_triangular(factor.T, u)
        quadratic = {**params["quadratic"], "coefficients": (first + step) / of.scale}
        return {**params, "quadratic": quadratic}

    def loss(u, ensembles):
        pairs = [fit.averages(potential, at(u), one, observe) for one in ensembles]
        total = sum(wrong(seen, t) for (seen, _), t in zip(pairs, targets, strict=True))
        least = jnp.min(
            jnp.array([n / len(e.energy) for (_, n), e in zip(pairs, ensembles, strict=True)])
        )
        return total + jnp.sum(u**2), least

    value_and_grad = jax.jit(jax.value_and_grad(loss, has_aux=True))
    adam = optax.adam(LEARNING_RATE)
    u = jnp.zeros(len(first))
    for number in range(NUM_TRAJECTORIES):
        runs = [
            sampled(potential, at(u), phase, jax.random.key(100 + number), state)
            for phase, state in states
        ]
        states = [(phase, after) for (phase, _), (_, after) in zip(states, runs, strict=True)]
        ensembles, moments = [ensemble for ensemble, _ in runs], adam.init(u)
        for _ in range(NUM_UPDATES):
            (_, least), slope = value_and_grad(u, ensembles)
            if least < 0.5:
                break
            change, moments = adam.update(slope, moments)
            u = optax.apply_updates(u, change)
        yield at(u)


def measured(seed: int, oracle: str) -> Iterator[dict[str, Any]]:
    of = loop.Loop(oracle)
    params, known = loop.learned("ours", of, seed)
    every = phases(of)
    oracle_params = of.oracle.init(jax.random.key(0))
    keys = [jax.random.key(number) for number in range(len(every))]
    seen = lambda potential, params, phase, key: fit.averages(
        potential, params, sampled(potential, params, phase, key)[0], observer(potential)
    )[0]
    targets = [seen(of.oracle, oracle_params, *pair) for pair in zip(every, keys, strict=True)]
    *_, after = refined(of, known, params, [(phase, None) for phase in every], targets)
    for phase, key, target in zip(every, keys, targets, strict=True):
        for when, p in (("before", params), ("after", after)):
            found = seen(of.ridge.potential, p, phase, jax.random.fold_in(key, 1))
            rdf = float(np.sqrt(np.mean((found.rdf - target.rdf) ** 2)))
            yield {"name": f"refined-{phase.name}-pressure-{when}", "unit": "GPa",
                   "value": float(found.pressure), "oracle": float(target.pressure)}  # fmt: skip
            yield {"name": f"refined-{phase.name}-rdf-{when}", "unit": "1", "value": rdf}
    errors = {when: of.errors(p) for when, p in (("before", params), ("after", after))}
    for kind in errors["before"]:
        for when, found in errors.items():
            yield {"name": f"refined-{kind}-forces-{when}", "unit": "meV/angstrom",
                   "value": 1e3 * found[kind][0]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--oracle", choices=loop.ORACLES, default="sw")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for result in measured(options.seed, options.oracle):
        rest = {k: v for k, v in result.items() if k not in ("name", "value", "unit")}
        line = f"{result['name']:36} {result['value']:9.4f} {result['unit']} {rest or ''}"
        print(json.dumps(result) if options.json else line, flush=True)


if __name__ == "__main__":
    main()
