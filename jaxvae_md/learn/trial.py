"""Stages: the same short simulation with several parameters, and the gradient through it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxvae_md import coverage, errors, fit, units
from jaxvae_md._typing import Array, Params
from jaxvae_md.learn.config import Config
from jaxvae_md.learn.evaluate import force_mae
from jaxvae_md.learn.gaps import surroundings_of
from jaxvae_md.learn.potential_fit import predictions
from jaxvae_md.learn.state import State, Trial, counts, frame
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.observables import radial_distribution
from jaxvae_md.potentials import Potential, stillinger_weber
from jaxvae_md.simulate import Simulator, Trajectory, nvt_langevin, relax, rollout, run
from jaxvae_md.structure import Structure

FRICTION = 0.02
"""1/fs"""
RECORD_EVERY = 10
_RDF_WIDTH = 0.1
_DEFAULT_TEMPERATURE = 300.0
_SHARES = (1.0, 0.5, 0.25)
_MAX_SPOILED = 1.02
"""how much worse the training forces may become by the refinement"""


def simulate(state: State, config: Config, key: Array, progress: bool) -> tuple[State, dict]:
    """A short NVT simulation: unlearned, learned and, where it can be run, the reference.

    All start from the same frame with the same velocities. Without a reference simulation, RDF
    and energy are compared with training frames of the same label and density.
    """
    assert state.standardizer is not None and config.trial_start is not None
    full = config.architecture.full(state.standardizer)
    begin = frame(state.data.structure, config.trial_start)
    kelvin = config.temperature or _equipartition(state, config, full, begin)
    simulated = lambda potential, params, name: _simulate(
        potential, params, begin, kelvin, config, key, progress, name
    )
    unlearned = simulated(full, state.unlearned, "MD unlearned")
    learned = simulated(full, state.params, "MD learned")
    reference = None
    if config.labeller == "sw":
        sw = stillinger_weber()
        reference = simulated(sw, sw.init(key), "MD reference")
    trial = _compared(state, config, begin, kelvin, unlearned, learned, reference)
    state = state._replace(trial=trial)
    return state, figures(state)


def _simulate(
    potential: Potential,
    params: Params,
    begin: Structure,
    kelvin: float,
    config: Config,
    key: Array,
    progress: bool,
    name: str,
) -> Trajectory:
    return run(
        _simulator(potential, config.time_step, kelvin),
        # one precision for all, so that the runs share what is compiled
        jax.tree.map(lambda leaf: jnp.asarray(leaf, float), params),
        begin,
        key,
        config.md_steps,
        initial_temperature=kelvin,
        record_every=RECORD_EVERY,
        progress=progress,
        label=name,
    )


@lru_cache(maxsize=4)
def _simulator(potential: Potential, time_step: float, kelvin: float) -> Simulator:
    """The thermostat of the trial; one object, so that its runs share what is compiled."""
    return nvt_langevin(potential, time_step, kelvin, FRICTION)


def _compared(
    state: State,
    config: Config,
    begin: Structure,
    kelvin: float,
    unlearned: Trajectory,
    learned: Trajectory,
    reference: Trajectory | None,
) -> Trial:
    """RDF and energy beside the reference's, or beside those of the reference frames."""
    assert config.nearest_distance is not None and config.cutoff is not None
    r = np.linspace(0.6 * config.nearest_distance, config.cutoff, 121)
    rdf_of = lambda trajectory: _mean_rdf(begin, _equilibrated(trajectory), r)
    if reference is not None:
        rdf_reference = rdf_of(reference)
        energy = np.mean(_tail(reference.potential_energy)) / len(begin.position)
    else:
        rdfs = [_mean_rdf(frame(state.data.structure, i), None, r) for i in config.trial_reference]
        rdf_reference = np.mean(rdfs, axis=0)
        energy = _reference_energy(state, config)
    return Trial(
        temperature=np.asarray(kelvin),
        unlearned=unlearned,
        learned=learned,
        reference=reference,
        r=r,
        rdf_unlearned=rdf_of(unlearned),
        rdf_learned=rdf_of(learned),
        rdf_reference=rdf_reference,
        energy_reference=np.asarray(energy),
        outside=np.asarray(_share_outside(state, config, begin, learned)),
    )


def _reference_energy(state: State, config: Config) -> float:
    """Mean energy (eV per atom) of the frames that stand in for a reference simulation."""
    frames = np.array(config.trial_reference)
    return float(np.mean(state.data.energy[frames] / counts(state)[frames]))


def _equipartition(state: State, config: Config, potential: Potential, begin: Structure) -> float:
    """Temperature (K) of the reference frames when the file does not give it.

    In a harmonic crystal the potential energy lies 3/2 kT per atom above the minimum, which is
    found by relaxing the start frame with the learned potential. For liquids an upper estimate;
    300 K when the relaxation fails.
    """
    fns = neighbor_list(potential.cutoff, skin=2.0)
    relaxation = jax.jit(lambda p, s, n: relax(potential, p, s, n, skin=2.0, tolerance=1e-3))
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), state.params)
    relaxed = relaxation(params, begin, fns.allocate(begin))
    ground = float(relaxed.energy) / len(begin.position)
    kelvin = (_reference_energy(state, config) - ground) / (1.5 * units.BOLTZMANN)
    if int(relaxed.error) & ~errors.ILL_CONDITIONED or not np.isfinite(kelvin):
        return _DEFAULT_TEMPERATURE
    return round(float(np.clip(kelvin, 50.0, 3000.0)), -1)


def refine(state: State, config: Config, key: Array, progress: bool) -> tuple[State, dict]:
    """Gradient descent through the simulation on its RDF and mean energy.

    Windows start from frames of the learned simulation. Of the way to the result a whole, a half
    or a quarter is gone: the first that does not spoil the forces of the training frames, and
    with which the whole simulation, repeated, is not farther from the reference beyond the noise
    (two standard errors) of its mean energy; else none.
    """
    trial = state.trial
    assert trial is not None and state.standardizer is not None
    learned = trial.learned
    if config.refine_updates == 0 or int(learned.error) or not len(learned.position):
        return state, {"kept": False, "reason": "no stable MD"}
    potential = config.architecture.full(state.standardizer)
    loss_fn = _window_loss(state, config, potential)
    result = fit.through_trajectory(
        loss_fn,
        jax.tree.map(lambda leaf: jnp.asarray(leaf, float), state.params),
        key=key,
        num_updates=config.refine_updates,
        learning_rate=3e-4,
        project=potential.project,
        progress=progress,
        label="refine through MD",
    )
    if not len(result.history):
        return state, {"kept": False, "reason": "not finite"}
    before, after = float(result.history[0]), float(result.history.min())
    info: dict[str, Any] = {"loss_before": before, "loss_after": after}
    if after >= before:
        return state, {"kept": False, "reason": "no descent", **info}
    for share in _SHARES:
        tried, measured = _part_way(state, config, potential, result.params, share, key, progress)
        info.update(measured)
        spoiled = info["train_force_mae_after_mev"] / info["train_force_mae_before_mev"]
        not_farther = info["trial_loss_refined"] <= info["trial_loss_learned"] + info["trial_noise"]
        if not_farther and spoiled <= _MAX_SPOILED:
            return tried, {"kept": True, **info}
    return state, {"kept": False, **info}


def _part_way(
    state: State,
    config: Config,
    potential: Potential,
    refined: Params,
    share: float,
    key: Array,
    progress: bool,
) -> tuple[State, dict[str, float]]:
    """Parameters a share of the way to the refined ones: what forces and simulation become."""
    trial = state.trial
    assert trial is not None and config.trial_start is not None
    params = jax.tree.map(lambda a, b: a + share * (b - a), state.params, refined)
    *_, before, after = predictions(state._replace(refined=params), config).values()
    error = lambda predicted: 1e3 * force_mae(state, predicted, state.train)
    begin = frame(state.data.structure, config.trial_start)
    kelvin = float(trial.temperature)
    again = _simulate(potential, params, begin, kelvin, config, key, progress, "MD refined")
    rdf = _mean_rdf(begin, _equilibrated(again), np.asarray(trial.r))
    return state._replace(refined=params, trial=trial._replace(refined=again, rdf_refined=rdf)), {
        "share": share,
        "train_force_mae_before_mev": error(before),
        "train_force_mae_after_mev": error(after),
        "trial_loss_learned": _trial_loss(trial, trial.rdf_learned, trial.learned),
        "trial_loss_refined": _trial_loss(trial, rdf, again),
        "trial_noise": _noise(trial, again),
    }


def _trial_loss(trial: Trial, rdf: Array, trajectory: Trajectory) -> float:
    """What the refinement minimises, over a whole simulation; infinite when it did not finish."""
    if int(trajectory.error):
        return float("inf")
    kT = units.BOLTZMANN * float(trial.temperature)
    num = trajectory.position.shape[1]
    energy = float(np.mean(_tail(trajectory.potential_energy))) / num
    loss = ((energy - float(trial.energy_reference)) / kT) ** 2
    reference = np.asarray(trial.rdf_reference)
    if np.isfinite(reference).all():
        loss += _rms(np.asarray(rdf) - reference) ** 2
    return loss


def _noise(trial: Trial, trajectory: Trajectory, num_blocks: int = 5) -> float:
    """Square of two standard errors of the mean energy over kT, from block averages."""
    energy = np.asarray(_tail(trajectory.potential_energy)) / trajectory.position.shape[1]
    if int(trajectory.error) or len(energy) < num_blocks:
        return 0.0
    means = [block.mean() for block in np.array_split(energy, num_blocks)]
    error = np.std(means, ddof=1) / np.sqrt(num_blocks)
    return float((2 * error / (units.BOLTZMANN * float(trial.temperature))) ** 2)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def figures(state: State) -> dict[str, Any]:
    """What the trial simulation says, as numbers."""
    trial = state.trial
    assert trial is not None
    num = trial.learned.position.shape[1]
    error = lambda g: _rms(np.asarray(g) - np.asarray(trial.rdf_reference))
    mean = lambda t: float(np.mean(_tail(t.potential_energy))) / num if len(t.position) else None
    return {
        "temperature_k": float(trial.temperature),
        "rdf_rmse_unlearned": error(trial.rdf_unlearned),
        "rdf_rmse_learned": error(trial.rdf_learned),
        "energy_unlearned_ev": mean(trial.unlearned),
        "energy_learned_ev": mean(trial.learned),
        "energy_reference_ev": float(trial.energy_reference),
        "outside": float(trial.outside),
        "finished": not int(trial.learned.error),
    }


def _window_loss(state: State, config: Config, potential: Potential):
    """Loss of a short window: squared RDF difference, and that of the mean energy over kT."""
    trial = state.trial
    assert trial is not None
    assert config.trial_start is not None and config.cutoff is not None
    kelvin = float(trial.temperature)
    begin = frame(state.data.structure, config.trial_start)
    simulator = _simulator(potential, config.time_step, kelvin)
    num = len(trial.learned.position)
    frames = np.linspace(num // 4, num - 1, config.refine_replicas).astype(int)
    starts = jnp.asarray(trial.learned.position[frames])
    r, target = jnp.asarray(trial.r), jnp.asarray(trial.rdf_reference)
    rdf_fns = neighbor_list(config.cutoff + 3 * _RDF_WIDTH)
    rdf_list = jax.tree.map(jnp.asarray, rdf_fns.allocate(begin, extra=1.5))
    lists = jax.tree.map(jnp.asarray, simulator.neighbor_fns.allocate(begin, extra=1.3))
    kT = units.BOLTZMANN * kelvin
    num_records = min(5, config.refine_window)
    every = config.refine_window // num_records

    def window(params, position, key):
        structure = jax.tree.map(jnp.asarray, begin)._replace(position=position)
        neighbors = simulator.neighbor_fns.update(structure, lists)
        initial = simulator.init(key, params, structure, neighbors, kelvin)
        _, trajectory = rollout(
            simulator, params, initial, every * num_records, every, adjoint="checkpointed"
        )

        def rdf(position):
            moved = structure._replace(position=position)
            near = rdf_fns.update(moved, rdf_list)
            return radial_distribution(moved, near, r, _RDF_WIDTH), near.overflow

        g, overflow = lax.map(rdf, trajectory.position)
        bits = jnp.where(jnp.any(overflow), errors.NEIGHBOR_OVERFLOW, 0) | trajectory.error
        energy = jnp.mean(trajectory.potential_energy) / len(position)
        return jnp.mean(g, axis=0), energy, bits

    def loss_fn(params, key):
        keys = jax.random.split(key, len(starts))
        g, energy, bits = lax.map(lambda a: window(params, *a), (starts, keys))
        loss = ((jnp.mean(energy) - trial.energy_reference) / kT) ** 2
        if np.isfinite(np.asarray(trial.rdf_reference)).all():
            loss += jnp.mean((jnp.mean(g, axis=0) - target) ** 2)
        return loss, jnp.max(bits)

    return loss_fn


def _mean_rdf(
    begin: Structure, positions: Float[Array, "t n 3"] | None, r: Float[np.ndarray, " bins"]
) -> Float[np.ndarray, " bins"]:
    """RDF of one structure, or the mean over a trajectory that starts near it.

    Not a number without frames, and where a direction is not periodic: there is no density.
    """
    fns = neighbor_list(float(r[-1]) + 3 * _RDF_WIDTH)
    if positions is None:
        positions = np.asarray(begin.position)[None]
    if not len(positions) or not begin.pbc.all():
        return np.full(len(r), np.nan)

    # every frame has its own list: a bad simulation packs atoms as no other frame does
    values = []
    for position in positions[:: max(1, len(positions) // 40)]:
        moved = begin._replace(position=np.asarray(position))
        values.append(_rdf(moved, fns.allocate(moved, multiple=64), r, _RDF_WIDTH))
    return np.mean(values, axis=0)


_rdf = jax.jit(radial_distribution, static_argnums=3)


def _share_outside(state: State, config: Config, begin: Structure, trajectory: Trajectory) -> float:
    """Share of a simulation's environments that the coverage model finds outside the data."""
    positions = _equilibrated(trajectory)
    if not len(positions):
        return float("nan")
    positions = positions[:: max(1, len(positions) // 10)]
    many = lambda leaf: np.repeat(np.asarray(leaf)[None], len(positions), axis=0)
    structures = jax.tree.map(many, begin)._replace(position=positions)
    y = coverage.joined(surroundings_of(state, config, structures))
    assert state.coverage is not None
    scores = coverage.score(state.coverage, y)
    return float(np.mean(np.asarray(scores) > float(state.coverage.threshold)))


def _equilibrated(trajectory: Trajectory) -> Array:
    return _tail(trajectory.position)


def _tail(values: Array) -> Array:
    """All but the first quarter."""
    return values[len(values) // 4 :]
