"""Force matching: a fit to energies, forces and stress of frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Float
from tqdm import tqdm

from jaxvae_md._typing import Array, Params
from jaxvae_md.batching import Batch
from jaxvae_md.continuation import Continuation, Row
from jaxvae_md.errors import InputError, RunError
from jaxvae_md.fit.optimisers import change_by
from jaxvae_md.fit.result import FitResult
from jaxvae_md.neighbors import NeighborList
from jaxvae_md.potentials.potential import Potential, energy_forces_stress
from jaxvae_md.structure import Structure

Weight: TypeAlias = float | Callable[[float], float]
"""of a term of the loss: a number, or a function of the share of the epochs done, 0 to 1"""


class Labelled(NamedTuple):
    """A batch of frames prepared for one potential, with the reference's labels."""

    features: Any
    """what `potential.prepare` made of each frame; leading axis b"""
    mask: Array
    """[b, n], False marks padding"""
    energy: Float[Array, " b"]
    """eV, whole cell"""
    forces: Float[Array, "b n 3"]
    """eV / angstrom"""
    stress: Float[Array, "b 3 3"]
    """eV / angstrom^3, not a number where it is not known"""
    weight: Float[Array, " b"]
    """by which the loss of a frame is multiplied"""


def prepare(
    potential: Potential,
    data: Sequence[Batch],
    energy: Float[np.ndarray, " frames"],
    forces: Sequence[Float[Array, "n 3"]],
    stress: Float[np.ndarray, "frames 3 3"] | None = None,
    weight: Float[np.ndarray, " frames"] | None = None,
) -> list[Labelled]:
    """Does the work that no parameter enters, once for each frame.

    **Arguments:** `data` from `batching.batches`; `energy` (eV), `forces` (eV / angstrom) and,
    where it is known, `stress` (eV / angstrom^3, tension positive; not a number for frames
    without) of the frames in the order in which they were batched; `weight` of each frame in the
    loss, 1 where none is given: one number for all frames of a group weighs the group.
    **Raises:** `InputError` where there are not as many labels as frames.

    ```python
    data = prepare(potential, batches(structures, potential.cutoff), energy, forces)
    ```
    """
    num = sum(len(batch.frame) for batch in data)
    stress = np.full((num, 3, 3), np.nan) if stress is None else np.asarray(stress)
    weight = np.ones(num) if weight is None else np.asarray(weight)
    for name, values in zip(
        ("energies", "forces", "stresses", "weights"), (energy, forces, stress, weight), strict=True
    ):
        if len(values) != num:
            raise InputError(
                f"{len(values)} {name} for {num} frames", remedy="give one for each frame"
            )
    once = jax.jit(lambda *frames: lax.map(lambda frame: potential.prepare(*frame), frames))
    out = []
    for batch in data:
        mask = np.asarray(batch.structure.mask)
        padded = np.zeros((*mask.shape, 3))
        for row, frame in enumerate(batch.frame):
            padded[row][mask[row]] = forces[frame]
        features = once(batch.structure, batch.neighbors)
        labels = mask, energy[batch.frame], padded, stress[batch.frame], weight[batch.frame]
        out.append(Labelled(features, *map(jnp.asarray, labels)))
    return out


def force_matching(
    potential: Potential,
    params: Params,
    data: Sequence[Labelled],
    *,
    key: Array,
    num_steps: int = 10000,
    batch_size: int = 4,
    learning_rate: float = 3e-3,
    energy_weight: Weight = 3.0,
    stress_weight: Weight = 1.0,
    held_out: Sequence[Labelled] = (),
    patience: float = 0.25,
    optimiser: optax.GradientTransformation | None = None,
    weight_decay: float = 1e-6,
    checkpoint: str | Path | None = None,
    progress: bool = False,
    label: str = "fit",
) -> FitResult:
    """Fits energies, forces and stress by Adam with a warm-up and a cosine decay.

    The loss is the mean over frames of their weights times

        mean |F - F_ref|^2 / (3 rms(F_ref)^2) + energy_weight (E - E_ref)^2 / (n std(E_ref / n))^2
        + stress_weight mean |s - s_ref|^2 / rms(s_ref)^2   where stress is known

    Every update sees frames of all sizes. Parameters are kept where they make sense by
    `potential.project`.

    **Arguments:** `data` from `prepare`. Everyday arguments end with `stress_weight`; weights may
    be schedules. `held_out`, from `prepare` too, decides which epoch's parameters are returned, and
    ends the fit where none of a share `patience` of the epochs, and of at least ten, has improved
    on the best; their loss has the weights of the end. `optimiser` of optax, in whose place
    `learning_rate` and `weight_decay` say nothing; one that searches along a line, as
    `optax.lbfgs()`, wants all frames in one update: a large `batch_size`. For few parameters
    `least_squares` is better. `checkpoint` a folder, written every ten epochs and removed at the
    end: a fit that was interrupted continues from it, and ends with the same bits; potential and
    `optimiser` must be the same again, which nobody checks.
    **Raises:** `RunError` when the loss is not finite; `OptionError` for a checkpoint of another
    fit. **Source:** Ercolessi and Adams, Europhys. Lett. 26, 583 (1994).

    ```python
    result = force_matching(potential, potential.init(key), data, key=key)
    ```
    """
    counts = [len(part.energy) for part in data]
    updates_per_epoch = max(1, round(sum(counts) / batch_size))
    shares = [max(1, round(count / updates_per_epoch)) for count in counts]
    weights = [c / (s * sum(counts)) for c, s in zip(counts, shares, strict=True)]
    num_epochs = max(1, round(num_steps / updates_per_epoch))
    if optimiser is None:
        optimiser = _adam(learning_rate, weight_decay, num_epochs * updates_per_epoch)
    energy_at, stress_at = map(_schedule, (energy_weight, stress_weight))
    unit = terms_of(data, 1.0, float(callable(stress_weight) or stress_weight > 0))
    terms_at = lambda done: _scaled(unit, energy_at(done), stress_at(done))

    def loss_fn(params, picked, terms):
        of_frame = lambda frame: residuals(potential, params, frame, terms)
        parts = [
            weight * jnp.sum(jax.vmap(of_frame)(part) ** 2)
            for part, weight in zip(picked, weights, strict=True)
        ]
        return sum(parts[1:], parts[0])

    # the data are arguments: closed over, they would be compiled into the program
    @jax.jit
    def epoch(params, state, data, terms, key):
        rows = tuple(
            _rows(jax.random.fold_in(key, i), count, share, updates_per_epoch)
            for i, (count, share) in enumerate(zip(counts, shares, strict=True))
        )

        def update(carry, rows):
            params, state = carry
            picked = [
                jax.tree.map(lambda leaf, row=row: leaf[row], part)
                for part, row in zip(data, rows, strict=True)
            ]
            loss, gradient = jax.value_and_grad(loss_fn)(params, picked, terms)
            change, state = change_by(
                optimiser,
                lambda params: loss_fn(params, picked, terms),
                params,
                loss,
                gradient,
                state,
            )
            return (potential.project(optax.apply_updates(params, change)), state), loss

        (params, state), losses = lax.scan(update, (params, state), rows)
        return params, state, jnp.mean(losses)

    settings = [num_epochs, batch_size, learning_rate, weight_decay, patience]
    done_at = [(number + 1) / num_epochs for number in range(num_epochs)]
    settings += [[float(weight(done)) for done in done_at] for weight in (energy_at, stress_at)]
    continuation = Continuation(checkpoint, settings, key, (params, list(data), list(held_out)))
    (params, state, best), history = continuation.restored((params, optimiser.init(params), params))
    steps = range(len(history), num_epochs)
    with tqdm(steps, desc=label, unit="epoch", disable=not progress) as bar:
        for number in bar:
            worse_since = number - 1 - _best(history)
            if held_out and worse_since > max(10, patience * num_epochs):
                break
            terms = terms_at(done_at[number])
            key_of_epoch = jax.random.fold_in(key, number)
            params, state, loss = epoch(params, state, list(data), terms, key_of_epoch)
            last = _loss(potential, params, held_out, terms_at(1.0)) if held_out else 0.0
            history.append((loss, last))
            if not held_out or _best(history) == number:
                best = params
            # to look is to wait for the epoch
            if held_out or number % 20 == 0 or number == num_epochs - 1:
                bar.set_postfix(loss=f"{float(loss):.4f}")
                if not np.isfinite(float(loss) + last):
                    continuation.remove()
                    raise RunError(
                        f"the fit's loss is not finite after epoch {number}; take a smaller "
                        "learning rate, or look for frames with absurd forces"
                    )
            continuation.keep((params, state, best), history)
    continuation.remove()
    losses, off = np.array([tuple(map(float, row)) for row in history]).T
    return FitResult(best, losses, held_out=off if held_out else None)


def _best(history: Sequence[Row]) -> int:
    """The epoch of the smallest loss of the held-out frames."""
    return int(np.argmin([held_out for _, held_out in history])) if history else 0


def _schedule(weight: Weight) -> Callable[[float], float]:
    return weight if callable(weight) else lambda done: weight


def _scaled(unit: Terms, energy: float, stress: float) -> Terms:
    """Terms with the weights of energy and stress multiplied."""
    return unit._replace(
        energy=unit.energy * energy**0.5,
        stress=None if unit.stress is None else unit.stress * stress**0.5,
    )


def _loss(potential: Potential, params: Params, data: Sequence[Labelled], terms: Terms) -> float:
    """Mean loss of frames."""
    sums = [_losses(potential, params, part, terms) for part in data]
    return float(sum(map(jnp.sum, sums))) / sum(len(part.energy) for part in data)


@partial(jax.jit, static_argnums=0)
def _losses(potential: Potential, params: Params, part: Labelled, terms: Terms):
    return lax.map(lambda frame: jnp.sum(residuals(potential, params, frame, terms) ** 2), part)


class Prediction(NamedTuple):
    """What a potential says of frames, in their order."""

    energy: Float[np.ndarray, " frames"]
    """eV, whole cell"""
    forces: list[Float[np.ndarray, "n 3"]]
    """eV / angstrom"""
    stress: Float[np.ndarray, "frames 3 3"]
    """eV / angstrom^3, tension positive"""


def predict(potential: Potential, params: Params, data: Sequence[Batch]) -> Prediction:
    """Energies, forces and stresses of batched frames, without their padding.

    ```python
    energy, forces, stress = predict(potential, params, batches(structures, potential.cutoff))
    ```
    """
    total = sum(len(batch.frame) for batch in data)
    energy, forces = np.zeros(total), [np.empty((0, 3))] * total
    stress = np.zeros((total, 3, 3))
    for batch in data:
        e, f, s = _predict(potential, params, batch.structure, batch.neighbors)
        energy[batch.frame], stress[batch.frame] = np.asarray(e), np.asarray(s)
        for number, one, mask in zip(batch.frame, np.asarray(f), batch.structure.mask, strict=True):
            forces[number] = one[mask]
    return Prediction(energy, forces, stress)


class Terms(NamedTuple):
    """What the residuals of a frame are multiplied by, of one energy, force and stress each."""

    energy: Float[Array, ""]
    forces: Float[Array, ""]
    stress: Float[Array, ""] | None
    """None where no frame's is known"""


def terms_of(data: Sequence[Labelled], energy_weight: float, stress_weight: float) -> Terms:
    """Weights of the terms of `force_matching`'s loss over the sizes of labels.

    ```python
    terms = terms_of(data, energy_weight=3.0, stress_weight=1.0)
    ```
    """
    forces = np.concatenate([np.asarray(p.forces)[np.asarray(p.mask)] for p in data])
    per_atom = np.concatenate([np.asarray(p.energy) / np.asarray(p.mask).sum(1) for p in data])
    tension = np.concatenate([np.asarray(p.stress) for p in data])
    known = tension[np.isfinite(tension).all(axis=(1, 2))]
    rms = lambda x: float(np.sqrt(np.mean(x**2)))
    force, energy = rms(forces), float(np.std(per_atom))
    worth = lambda weight, size, least: jnp.asarray(weight**0.5 / (size if size > least else 1.0))
    return Terms(
        energy=worth(energy_weight, energy, 1e-6),
        forces=worth(1.0, force, 0.0),
        stress=worth(stress_weight, rms(known), 0.0) if len(known) and stress_weight else None,
    )


def residuals(
    potential: Potential, params: Params, frame: Labelled, terms: Terms
) -> Float[Array, " k"]:
    """Of one frame, such that the sum of their squares is its loss in `force_matching`.

    ```python
    loss = jnp.sum(residuals(potential, params, frame, terms) ** 2)
    ```
    """
    found = potential.predict(params, frame.features)
    num, share = jnp.sum(frame.mask), jnp.sqrt(frame.weight)
    force = jnp.where(frame.mask[:, None], found.forces - frame.forces, 0)
    parts = [
        # of all members, where it is a committee
        (share * terms.energy / num * (found.energy - frame.energy)).reshape(-1),
        (share * terms.forces / jnp.sqrt(3 * num) * force).reshape(-1),
    ]
    if terms.stress is not None:
        known = jnp.isfinite(frame.stress)
        stress = jnp.where(known, found.stress - jnp.where(known, frame.stress, 0), 0)
        parts.append((share * terms.stress / 3 * stress).reshape(-1))
    return jnp.concatenate(parts)


def _adam(learning_rate: float, weight_decay: float, num_updates: int):
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, min(100, num_updates // 4), num_updates, 1e-3 * learning_rate
    )
    adam = optax.adamw(schedule, weight_decay=weight_decay)
    return optax.chain(optax.clip_by_global_norm(10.0), adam)


def _rows(key: Array, count: int, share: int, num_updates: int) -> Array:
    """Frames of every update of an epoch, `[num_updates, share]`, in random order."""
    needed = num_updates * share
    rounds = -(-needed // count)
    keys = jax.random.split(key, rounds)
    order = jnp.concatenate([jax.random.permutation(k, count) for k in keys])
    return order[:needed].reshape(num_updates, share)


@partial(jax.jit, static_argnums=0)
def _predict(potential: Potential, params: Params, structure: Structure, neighbors: NeighborList):
    one = lambda frame: energy_forces_stress(potential.energy, params, *frame)
    return lax.map(one, (structure, neighbors))
