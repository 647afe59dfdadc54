"""Stages: judge what the data lack, generate it, have it labelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae_md import coverage, units
from jaxvae_md import generate as generation
from jaxvae_md._typing import Array, Labeller
from jaxvae_md.coverage import Surroundings
from jaxvae_md.descriptors import describe
from jaxvae_md.errors import LabelError, RunError
from jaxvae_md.generate import rejection
from jaxvae_md.generate.candidate import NO_LABEL
from jaxvae_md.label import label_many
from jaxvae_md.learn.config import Config
from jaxvae_md.learn.represent import standardized
from jaxvae_md.learn.state import (
    Generated,
    State,
    by_frame,
    composition,
    counts,
    frame,
    frames_of,
    to_dataset,
)
from jaxvae_md.potentials import fit_atomic_energy
from jaxvae_md.structure import Structure, from_atoms, stack

if TYPE_CHECKING:
    from ase import Atoms

_TEMPERATURES = (50.0, 1500.0)
"""K, between which that of exploring is estimated where none is given"""
_FAILURES = 0.5
"""largest share of generated structures without a label"""
ORIGINS = (
    ("decode", "gap"),
    ("ascent", "novelty"),
    *(("explore", move) for move in generation.KINDS),
    ("simulate", "heat"),
)
"""routes and reasons, by the number that a state keeps"""


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
    """Structures whose labels the training frames lack, by the way that the config names.

    **Arguments:** `beside` structures that are no gap any more, though they are not labelled yet.
    """
    known, num = setting(state, config, beside), config.num_generated
    if config.acquisition == "novelty":
        made = generation.generate(known, key, num, band=config.novelty_band)
    else:
        soon = [from_atoms(atoms, config.species) for atoms in beside]
        made = generation.acquire(known, key, num, beside=soon)
    accepted = [one for one in made if not one.error]
    generated = _as_arrays(state, config, made) if made else None
    by_route = Counter(one.route for one in accepted)
    return state._replace(generated=generated), {
        "num_requested": len(made),
        "num_generated": len(accepted),
        "num_by_route": dict(by_route),
        "novelty_mean": float(np.mean([one.novelty for one in accepted])) if accepted else None,
        "rejected": [rejection(one.error) for one in made if one.error],
    }


def setting(state: State, config: Config, beside: Sequence[Atoms] = ()) -> generation.Setting:
    """What generation starts from, of a run so far; `beside` as in `generate`."""
    assert state.standardizer is not None and state.x is not None
    assert config.nearest_distance is not None
    z_train, _ = standardized(state)
    z_frames = by_frame(state, np.asarray(state.standardizer.apply(jnp.asarray(state.x))))
    known = coverage.fit_novelty([z_frames[i] for i in state.train], seed=config.seed)
    if beside:
        x = np.concatenate(describe(beside, config.architecture.descriptor))
        z = state.standardizer.apply(jnp.asarray(x))
        known = known._replace(reference=jnp.concatenate([known.reference, z]))
    training = [frame(state.data.structure, i) for i in state.train]
    potential = config.architecture.full(state.standardizer)
    return generation.Setting(
        descriptor=config.architecture.descriptor,
        standardizer=state.standardizer,
        training=training,
        known=known,
        potential=potential,
        params=state.fitted,
        guard=generation.fit_guard(training, potential, state.fitted, config.nearest_distance),
        nearest_distance=config.nearest_distance,
        temperature=config.temperature or _temperature(state, config),
        model=config.architecture.autoencoder,
        model_params=state.vae_params,
        x_train=np.asarray(z_train),
    )


def _temperature(state: State, config: Config) -> float:
    """K: what equipartition makes of the energies of half the training frames."""
    atomic = fit_atomic_energy(composition(state.data, len(config.species)), state.data.energy)
    bound = state.data.energy - composition(state.data, len(config.species)) @ atomic
    per_atom = (bound / counts(state))[state.train]
    kelvin = np.median(per_atom - per_atom.min()) / (1.5 * units.BOLTZMANN)
    return float(np.clip(kelvin, *_TEMPERATURES))


def label_generated(
    state: State, config: Config, labeller: Labeller | None, progress: bool
) -> tuple[State, dict]:
    """The reference's labels of the accepted structures.

    A generated structure counts as of the kind of the frame it was made from. One that the
    reference gives no label is no longer accepted; where too many are so, the run stops.
    """
    frames = accepted_frames(state, config)
    if labeller is None or not frames:
        return state, {"num_labelled": 0}
    assert state.generated is not None
    workers = getattr(labeller, "num_workers", 1)
    try:
        with ThreadPoolExecutor(workers) as executor:
            labelled, rejected = label_many(
                frames,
                labeller,
                None,
                executor,
                num_workers=workers,
                failure_rate=1.0,
                progress=progress,
            )
        # of all at once: in which order they come says nothing
        if len(rejected) > _FAILURES * len(frames):
            raise LabelError(
                f"{len(rejected)} of {len(frames)} have no label; the first: {rejected[0].reason}",
                frame=rejected[0].frame,
                remedy="look at the reference, and resume the run; labels that it gave are kept",
            )
    except LabelError as error:
        raise RunError(
            error.message,
            file="the generated structures",
            frame=error.frame,
            atom=error.atom,
            remedy=error.remedy,
        ) from error
    info = {"num_labelled": len(labelled), "without_label": [one.reason for one in rejected]}
    accepted = np.nonzero(state.generated.accepted)[0]
    refused = accepted[[one.frame for one in rejected]]
    error, kept = state.generated.error.copy(), state.generated.accepted.copy()
    error[refused], kept[refused] = NO_LABEL, False
    kinds = state.data.kind[state.generated.start[kept.astype(bool)]]
    return state._replace(
        generated=state.generated._replace(error=error, accepted=kept),
        labels=to_dataset(labelled, config)._replace(kind=kinds),
    ), info


def accepted_frames(state: State, config: Config) -> list:
    """The accepted structures as ASE Atoms, with request, start and figures in `info`."""
    if state.generated is None:
        return []
    out = []
    made = state.generated
    for i in np.nonzero(made.accepted)[0]:
        (atoms,) = frames_of(
            jax.tree.map(lambda a, i=i: a[i : i + 1], made.structure), config.species
        )
        atoms.wrap()
        route, reason = ORIGINS[int(made.origin[i])]
        atoms.info.update(
            label="generated",
            route=route,
            reason=reason,
            latent=np.asarray(made.latent[i], float),
            center=int(made.center[i]),
            start_frame=int(made.start[i]),
            novelty=float(made.novelty[i]),
        )
        if np.isfinite(made.request[i]).all():
            atoms.info.update(
                latent_request=np.asarray(made.request[i], float),
                residual=float(made.residual[i]),
            )
        out.append(atoms)
    return out


def _as_arrays(state: State, config: Config, made: Sequence[generation.Candidate]) -> Generated:
    column = lambda name: np.array([getattr(one, name) for one in made])
    none = np.full(config.latent_dim, np.nan)
    codes = lambda name: np.array(
        [none if (code := getattr(one, name)) is None else code for one in made]
    )
    return Generated(
        structure=stack([one.structure for one in made]),
        center=column("center"),
        start=np.asarray(state.train)[column("start")],
        origin=np.array([ORIGINS.index((one.route, one.reason)) for one in made]),
        request=codes("request"),
        latent=codes("latent"),
        residual=column("residual"),
        novelty=column("novelty"),
        closest=column("closest"),
        energy=column("energy"),
        error=column("error"),
        accepted=column("error") == 0,
    )
