"""Refinement in the loop: `python benchmarks/refinement.py [--seed 0] [--oracle tersoff] [--json]`.

The potential of `ours` in loop.py after its last round, refined by reweighting (DiffTRe): the RDF
and the pressure of the oracle's crystal (900 K) and liquid (2500 K), 64 atoms each at the density
of the crystal, are matched by its parameters. What that costs is counted in the loss: the sum of
squares of the training frames' residuals and of the fit's penalties, of which a hundredth more
costs as much as a pressure wrong by .2 GPa or an RDF by .02 (root mean square). Adam steps in
coordinates that this sum makes round: far where the labels leave parameters open, little elsewhere.

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
NUM_UPDATES, LEARNING_RATE = 60, 0.03
NUM_RUNS = 4
"""of which averages are compared"""
DT, FRICTION = 2.0, 0.02
"""fs, 1 / fs"""


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


def wrong(seen: Seen, target: Seen):
    """The loss of one phase."""
    return ((seen.pressure - target.pressure) / PRESSURE) ** 2 + jnp.mean(
        ((seen.rdf - target.rdf) / RDF) ** 2
    )


def measured_in(metric: np.ndarray, inner: optax.GradientTransformation):
    """An optimiser of the coefficients in coordinates in which `metric` is the unit matrix."""
    to_coefficients = jnp.asarray(np.linalg.inv(np.linalg.cholesky(metric)).T)

    def init(params):
        return inner.init(jnp.zeros(len(metric)))

    def update(gradient, state, params=None):
        slope = gradient["quadratic"]["coefficients"] @ to_coefficients
        step, state = inner.update(slope, state)
        change = jax.tree.map(jnp.zeros_like, gradient)
        change["quadratic"]["coefficients"] = to_coefficients @ step
        return change, state

    return optax.GradientTransformation(init, update)


def refined(of: loop.Loop, known: Sequence, params: dict, every: Sequence[Phase], targets) -> dict:
    """The parameters that match the targets."""
    gram, right, rest = of.normal_equations(known)
    first = np.asarray(params["quadratic"]["coefficients"]) * of.scale
    residual = float(first @ gram @ first - 2 * first @ right + rest)
    # what residuals grow by, in units of RESIDUALS, of unscaled coefficients
    metric = (gram + np.diag(of.penalty)) * np.outer(of.scale, of.scale) / (RESIDUALS * residual)
    potential, start = of.ridge.potential, params["quadratic"]["coefficients"]

    def penalty(params):
        change = params["quadratic"]["coefficients"] - start
        return change @ jnp.asarray(metric) @ change

    result = fit.reweighting(
        lambda means: sum(wrong(*pair) for pair in zip(means, targets, strict=True)),
        observer(potential),
        [nvt_langevin(potential, DT, phase.kelvin, FRICTION) for phase in every],
        params,
        [phase.start for phase in every],
        key=jax.random.key(100),
        temperature=[phase.kelvin for phase in every],
        num_steps=NUM_STEPS,
        equilibration=EQUILIBRATION,
        record_every=EVERY,
        cutoff=CUTOFF,
        penalty_fn=penalty,
        num_updates=NUM_UPDATES,
        optimiser=measured_in(metric, optax.adam(LEARNING_RATE)),
        min_effective=0.5,
        progress=True,
    )
    return result.params


def averages(potential, params, phase: Phase, key) -> tuple[Seen, float]:
    """Of several simulations, and the standard error of their mean pressure (GPa)."""
    simulator = nvt_langevin(potential, DT, phase.kelvin, FRICTION)
    every = []
    for of_run in jax.random.split(key, NUM_RUNS):
        ensemble, _ = fit.sample(
            simulator, params, begin(simulator, params, phase.start, of_run, phase.kelvin),
            NUM_STEPS, temperature=phase.kelvin, record_every=EVERY, equilibration=EQUILIBRATION,
            cutoff=CUTOFF,
        )  # fmt: skip
        every.append(fit.averages(potential, params, ensemble, observer(potential))[0])
    mean = jax.tree.map(lambda *runs: np.mean(runs, axis=0), *every)
    spread = np.std([one.pressure for one in every], ddof=1)
    return mean, float(spread / np.sqrt(NUM_RUNS))


def measured(seed: int, oracle: str) -> Iterator[dict[str, Any]]:
    of = loop.Loop(oracle)
    params, known = loop.learned("ours", of, seed)
    every = phases(of)
    oracle_params = of.oracle.init(jax.random.key(0))
    keys = [jax.random.key(number) for number in range(len(every))]
    targets = [
        averages(of.oracle, oracle_params, phase, key)
        for phase, key in zip(every, keys, strict=True)
    ]
    after = refined(of, known, params, every, [target for target, _ in targets])
    for phase, key, (target, of_target) in zip(every, keys, targets, strict=True):
        for when, p in (("before", params), ("after", after)):
            found, error = averages(of.ridge.potential, p, phase, jax.random.fold_in(key, 1))
            rdf = float(np.sqrt(np.mean((found.rdf - target.rdf) ** 2)))
            yield {"name": f"refined-{phase.name}-pressure-{when}", "unit": "GPa",
                   "value": float(found.pressure), "error": error,
                   "oracle": float(target.pressure), "error_of_oracle": of_target}  # fmt: skip
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
