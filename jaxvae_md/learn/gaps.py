"""Stages: judge what the data lack, generate it, have it labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from jaxvae_md import coverage, errors
from jaxvae_md._typing import Array, Labeller
from jaxvae_md.batching import batches
from jaxvae_md.coverage import Surroundings
from jaxvae_md.descriptors import describe
from jaxvae_md.errors import LabelError, RunError
from jaxvae_md.generate.decode import propose
from jaxvae_md.generate.realise import Realised, realise
from jaxvae_md.label import label
from jaxvae_md.learn.config import Config
from jaxvae_md.learn.represent import standardized
from jaxvae_md.learn.state import (
    Generated,
    State,
    by_frame,
    counts,
    frame,
    frames_of,
    to_dataset,
)
from jaxvae_md.neighbors import host_pairs
from jaxvae_md.potentials import energy_and_forces
from jaxvae_md.structure import Structure, stack

if TYPE_CHECKING:
    from ase import Atoms

SKIN = 2.0
"""angstrom, of the neighbor lists with which structures are realised"""
REJECTED_BY_ENERGY = 1 << 10
REJECTED_AS_KNOWN = 1 << 11
REJECTED_AS_MISSED = 1 << 12
MAX_RESIDUAL = 0.3
"""rms difference of the latent code from the requested one"""
REASONS = {
    errors.NOT_FINITE: "not finite",
    errors.STALE_NEIGHBORS: "atoms moved too far",
    errors.TOO_CLOSE: "atoms too close",
    REJECTED_BY_ENERGY: "energy too high",
    REJECTED_AS_KNOWN: "not novel once realised",
    REJECTED_AS_MISSED: "request not met",
}


def judge(state: State, config: Config, key: Array, progress: bool) -> tuple[State, dict]:
    """The coverage model of the training frames, and the false alarms on held-out frames."""
    del key, progress
    y = surroundings_of(state, config, state.data.structure)
    assert config.nearest_distance is not None
    kinds = np.asarray(state.data.kind)
    steps = config.coverage_steps
    method = coverage.latent_ratio(num_steps=steps) if steps else coverage.local_ratio()
    training = [y[i] for i in state.train]
    fitted = coverage.fit(training, kinds[state.train], config.false_alarm, config.seed, method)
    scores = coverage.score(fitted, coverage.joined([y[i] for i in state.test]))
    return state._replace(coverage=fitted), {
        "threshold": float(fitted.threshold),
        "held_out_outside": float(np.mean(np.asarray(scores) > float(fitted.threshold))),
    }


def surroundings_of(state: State, config: Config, structure: Structure) -> list[Surroundings]:
    """Pooled descriptors of a stack of structures, as the coverage model compares them."""
    assert state.standardizer is not None and config.nearest_distance is not None
    return coverage.surroundings(
        frames_of(structure, config.species),
        config.architecture.descriptor,
        state.standardizer,
        config.nearest_distance,
    )


def generate(
    state: State, config: Config, key: Array, progress: bool, beside: Sequence[Atoms] = ()
) -> tuple[State, dict]:
    """Requests decoded from gaps, each realised from the training frame nearest to it.

    **Arguments:** `beside` structures that are no gap any more, though they are not labelled yet.
    """
    assert state.standardizer is not None and state.x is not None
    z_train, _ = standardized(state)
    z_frames = by_frame(state, np.asarray(state.standardizer.apply(jnp.asarray(state.x))))
    known = coverage.fit_novelty([z_frames[i] for i in state.train], seed=config.seed)
    if beside:
        x = np.concatenate(describe(beside, config.architecture.descriptor))
        z = state.standardizer.apply(jnp.asarray(x))
        known = known._replace(reference=jnp.concatenate([known.reference, z]))
    targets = propose(
        config.architecture.autoencoder,
        state.vae_params,
        known,
        z_train,
        key,
        config.num_generated,
        band=config.novelty_band,
    )
    if not len(targets.z):
        nothing = {"novelty_mean": None, "residual_mean": None, "rejected": []}
        return state._replace(targets=None, generated=None), {
            "num_requested": 0,
            "num_generated": 0,
            **nothing,
        }
    state = state._replace(targets=targets)
    generated = _realise_all(state, config, known, progress)
    state = state._replace(generated=generated)
    accepted = generated.accepted.astype(bool)
    return state, {
        "num_requested": len(targets.z),
        "num_generated": int(accepted.sum()),
        "novelty_mean": float(generated.novelty[accepted].mean()) if accepted.any() else None,
        "residual_mean": float(generated.residual[accepted].mean()) if accepted.any() else None,
        "rejected": [rejection(bits) for bits in generated.error[~accepted]],
    }


def label_generated(
    state: State, config: Config, labeller: Labeller | None, progress: bool
) -> tuple[State, dict]:
    """The reference's energies and forces of the accepted structures.

    A generated structure counts as of the kind of the frame it was made from.
    """
    frames = accepted_frames(state, config)
    if labeller is None or not frames:
        return state, {"num_labelled": 0}
    assert state.generated is not None
    try:
        labelled = label(frames, labeller, progress)
    except LabelError as error:
        raise RunError(
            error.message,
            file="the generated structures",
            frame=error.frame,
            atom=error.atom,
            remedy=error.remedy,
        ) from error
    kinds = state.data.kind[state.generated.start[state.generated.accepted.astype(bool)]]
    labels = to_dataset(labelled, config)._replace(kind=kinds)
    return state._replace(labels=labels), {"num_labelled": len(labelled)}


def accepted_frames(state: State, config: Config) -> list:
    """The accepted structures as ASE Atoms, with request, start and figures in `info`."""
    if state.generated is None or state.targets is None:
        return []
    out = []
    for i in np.nonzero(state.generated.accepted)[0]:
        (atoms,) = frames_of(
            jax.tree.map(lambda a, i=i: a[i : i + 1], state.generated.structure), config.species
        )
        atoms.wrap()
        atoms.info.update(
            label="generated",
            latent=np.asarray(state.targets.z[i], float),
            center=int(state.generated.center[i]),
            start_frame=int(state.generated.start[i]),
            novelty=float(state.generated.novelty[i]),
            residual=float(state.generated.residual[i]),
        )
        out.append(atoms)
    return out


def rejection(bits: int) -> str:
    """Why a candidate was rejected, in words."""
    return ", ".join(reason for bit, reason in REASONS.items() if int(bits) & bit)


def _realise_all(
    state: State, config: Config, known: coverage.Novelty, progress: bool
) -> Generated:
    assert state.targets is not None and state.standardizer is not None
    targets = state.targets
    atom_frame = np.repeat(state.train, counts(state)[state.train])
    within = np.concatenate([np.arange(n) for n in counts(state)[state.train]])
    start, center = atom_frame[targets.start], within[targets.start]
    structures = [frame(state.data.structure, i) for i in start]

    realise_one = _realiser(state, config)
    results: list[Realised] = [None] * len(start)  # type: ignore[list-item]
    bar = tqdm(total=len(start), desc="realise", unit="structure", disable=not progress)
    for batch in batches(structures, config.architecture.descriptor.cutoff + SKIN):
        for row, number in enumerate(batch.frame):
            one = jax.tree.map(lambda leaf, row=row: leaf[row], (batch.structure, batch.neighbors))
            target = jnp.asarray(targets.z[number], float)
            result = realise_one(target, *one, int(center[number]))
            mask = np.asarray(one[0].mask)
            results[number] = jax.tree.map(np.asarray, result)._replace(
                structure=structures[number]._replace(
                    position=np.asarray(result.structure.position)[mask]
                )
            )
            bar.update()
    bar.close()
    return _accept(state, config, known, results, start, center)


def _realiser(state: State, config: Config):
    """`realise` of a latent point with this run's encoder and distance limits, compiled."""
    assert state.standardizer is not None
    standardizer, vae = state.standardizer, config.architecture.autoencoder
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), state.vae_params)
    limit = jnp.asarray(_min_distance(config, _shortest_pairs(state, config)))
    latent = lambda x: vae.encode(params, standardizer.apply(x))[0]
    chebyshev = config.architecture.descriptor

    @jax.jit
    def one(target, structure, neighbors, center):
        return realise(chebyshev, latent, target, structure, neighbors, center, limit, skin=SKIN)

    return one


def _accept(
    state: State,
    config: Config,
    known: coverage.Novelty,
    results: list[Realised],
    start: np.ndarray,
    center: np.ndarray,
) -> Generated:
    """Measures every structure again; what is not sound or not novel is rejected."""
    assert state.standardizer is not None
    potential = config.architecture.full(state.standardizer)
    chebyshev = config.architecture.descriptor
    ceiling = _energy_ceiling(state)
    energy_fn = jax.jit(lambda s, n: energy_and_forces(potential.energy, state.fitted, s, n)[0])
    x_fn = jax.jit(lambda s, n, atom: chebyshev.at(s, n, atom[None])[0])
    structures = [result.structure for result in results]
    novelty = np.zeros(len(results))
    bits = np.array(
        [int(result.error) & ~errors.NOT_CONVERGED & ~errors.ILL_CONDITIONED for result in results]
    )
    for batch in batches(structures, potential.cutoff):
        for row, number in enumerate(batch.frame):
            one = jax.tree.map(lambda leaf, row=row: leaf[row], (batch.structure, batch.neighbors))
            x = x_fn(*one, jnp.asarray(center[number]))
            z = state.standardizer.apply(x)
            novelty[number] = coverage.novelty(known, z[None])[0]
            per_atom = float(energy_fn(*one)) / len(structures[number].position)
            if not per_atom < ceiling:
                bits[number] |= REJECTED_BY_ENERGY
            if not novelty[number] > 1:
                bits[number] |= REJECTED_AS_KNOWN
            if not results[number].residual < MAX_RESIDUAL:
                bits[number] |= REJECTED_AS_MISSED
    return Generated(
        structure=stack(structures),
        center=center,
        start=start,
        residual=np.array([float(result.residual) for result in results]),
        novelty=novelty,
        closest=np.array([float(result.closest) for result in results]),
        error=bits,
        accepted=bits == 0,
    )


def _energy_ceiling(state: State) -> float:
    """eV per atom: the training data's highest energy and half their range above it."""
    per_atom = (state.data.energy / counts(state))[state.train]
    return float(per_atom.max() + 0.5 * np.ptp(per_atom) + 0.05)


def _shortest_pairs(state: State, config: Config) -> np.ndarray:
    """Shortest distance of each species pair in the training frames, infinite where none."""
    shortest = np.full((len(config.species),) * 2, np.inf)
    assert config.nearest_distance is not None
    for number in state.train:
        structure = frame(state.data.structure, number)
        i, j, shift = host_pairs(structure, 2 * config.nearest_distance)
        vector = structure.position[j] + shift @ structure.cell - structure.position[i]
        pair = (structure.species[i], structure.species[j])
        np.minimum.at(shortest, pair, np.linalg.norm(vector, axis=1))
    return shortest


def _min_distance(
    config: Config, shortest: Float[np.ndarray, "s s"], margin: float = 0.95
) -> Float[np.ndarray, "s s"]:
    """Lower limits (angstrom) of pair distances in generated structures.

    The shortest distance in the training data less a margin; for pairs that never meet there,
    0.7 times the sum of covalent radii.
    """
    from ase.data import atomic_numbers, covalent_radii

    radius = np.array([covalent_radii[atomic_numbers[symbol]] for symbol in config.species])
    fallback = 0.7 * (radius[:, None] + radius)
    return np.where(np.isfinite(shortest), margin * shortest, fallback)
