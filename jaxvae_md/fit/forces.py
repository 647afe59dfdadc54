"""Force matching: a fit to energies and forces of frames."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Float
from tqdm import tqdm

from jaxvae_md._typing import Array, Params
from jaxvae_md.batching import Batch
from jaxvae_md.errors import RunError
from jaxvae_md.fit.result import FitResult
from jaxvae_md.neighbors import NeighborList
from jaxvae_md.potentials.potential import Potential, energy_and_forces
from jaxvae_md.structure import Structure


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


def prepare(
    potential: Potential,
    data: Sequence[Batch],
    energy: Float[np.ndarray, " frames"],
    forces: Sequence[Float[Array, "n 3"]],
) -> list[Labelled]:
    """Does the work that no parameter enters, once for each frame.

    **Arguments:** `data` from `batching.batches`; `energy` (eV) and `forces` (eV / angstrom) of
    the frames in the order in which they were batched.

    ```python
    data = prepare(potential, batches(structures, potential.cutoff), energy, forces)
    ```
    """
    once = jax.jit(lambda *frames: lax.map(lambda frame: potential.prepare(*frame), frames))
    out = []
    for batch in data:
        mask = np.asarray(batch.structure.mask)
        padded = np.zeros((*mask.shape, 3))
        for row, frame in enumerate(batch.frame):
            padded[row][mask[row]] = forces[frame]
        features = once(batch.structure, batch.neighbors)
        labels = (jnp.asarray(mask), jnp.asarray(energy[batch.frame]), jnp.asarray(padded))
        out.append(Labelled(features, *labels))
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
    energy_weight: float = 3.0,
    weight_decay: float = 1e-6,
    progress: bool = False,
    label: str = "fit",
) -> FitResult:
    """Fits energies and forces by Adam with a warm-up and a cosine decay.

    The loss is mean |F - F_ref|^2 / (3 rms(F_ref)^2) + energy_weight mean (E - E_ref)^2 / (n
    std(E_ref / n))^2 over frames. Every update sees frames of all sizes. Parameters are kept
    where they make sense by `potential.project`.

    **Arguments:** `data` from `prepare`. Everyday arguments end with `learning_rate`.
    **Raises:** `RunError` when the loss is not finite. **Source:** Ercolessi and Adams,
    Europhys. Lett. 26, 583 (1994).

    ```python
    result = force_matching(potential, potential.init(key), data, key=key)
    ```
    """
    counts = [len(part.energy) for part in data]
    updates_per_epoch = max(1, round(sum(counts) / batch_size))
    shares = [max(1, round(count / updates_per_epoch)) for count in counts]
    weights = [c / (s * sum(counts)) for c, s in zip(counts, shares, strict=True)]
    scales = tuple(jnp.asarray(scale) for scale in _label_scales(data))
    num_epochs = max(1, round(num_steps / updates_per_epoch))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        learning_rate,
        min(100, num_epochs * updates_per_epoch // 4),
        num_epochs * updates_per_epoch,
        1e-3 * learning_rate,
    )
    optimiser = optax.chain(
        optax.clip_by_global_norm(10.0), optax.adamw(schedule, weight_decay=weight_decay)
    )

    def loss_fn(params, data, scales, rows):
        total = 0.0
        for part, row, weight in zip(data, rows, weights, strict=True):
            picked = jax.tree.map(lambda leaf, row=row: leaf[row], part)
            total += weight * jnp.sum(_loss(potential, params, picked, scales, energy_weight))
        return total

    # the data are arguments: closed over, they would be compiled into the program
    @jax.jit
    def epoch(params, state, data, scales, key):
        rows = tuple(
            _rows(jax.random.fold_in(key, i), count, share, updates_per_epoch)
            for i, (count, share) in enumerate(zip(counts, shares, strict=True))
        )

        def update(carry, rows):
            params, state = carry
            loss, gradient = jax.value_and_grad(loss_fn)(params, data, scales, rows)
            change, state = optimiser.update(gradient, state, params)
            return (potential.project(optax.apply_updates(params, change)), state), loss

        (params, state), losses = lax.scan(update, (params, state), rows)
        return params, state, jnp.mean(losses)

    state = optimiser.init(params)
    history = []
    with tqdm(range(num_epochs), desc=label, unit="epoch", disable=not progress) as bar:
        for number in bar:
            key_of_epoch = jax.random.fold_in(key, number)
            params, state, loss = epoch(params, state, list(data), scales, key_of_epoch)
            history.append(loss)
            if number % 20 == 0 or number == num_epochs - 1:
                bar.set_postfix(loss=f"{float(loss):.4f}")
                if not np.isfinite(float(loss)):
                    raise RunError(
                        f"the fit's loss is not finite after epoch {number}; take a smaller "
                        "learning rate, or look for frames with absurd forces"
                    )
    return FitResult(params, np.array([float(loss) for loss in history]))


class Prediction(NamedTuple):
    """Energies and forces of frames, in their order."""

    energy: Float[np.ndarray, " frames"]
    """eV, whole cell"""
    forces: list[Float[np.ndarray, "n 3"]]
    """eV / angstrom"""


def predict(potential: Potential, params: Params, data: Sequence[Batch]) -> Prediction:
    """Energies and forces of batched frames, without their padding.

    ```python
    energy, forces = predict(potential, params, batches(structures, potential.cutoff))
    ```
    """
    total = sum(len(batch.frame) for batch in data)
    energy, forces = np.zeros(total), [np.empty((0, 3))] * total
    for batch in data:
        e, f = _predict(potential, params, batch.structure, batch.neighbors)
        energy[batch.frame] = np.asarray(e)
        for number, one, mask in zip(batch.frame, np.asarray(f), batch.structure.mask, strict=True):
            forces[number] = one[mask]
    return Prediction(energy, forces)


def _loss(potential, params, part: Labelled, scales, energy_weight) -> Float[Array, " b"]:
    """Loss of each frame."""
    energy, forces = jax.vmap(potential.predict, in_axes=(None, 0))(params, part.features)
    num = jnp.sum(part.mask, axis=1)
    force_scale, energy_scale = scales
    difference = jnp.where(part.mask[..., None], forces - part.forces, 0)
    force = jnp.sum(difference**2, axis=(1, 2)) / (3 * num * force_scale**2)
    return force + energy_weight * ((energy - part.energy) / (num * energy_scale)) ** 2


def _label_scales(data: Sequence[Labelled]) -> tuple[float, float]:
    """Root mean square force component, and standard deviation of the energy per atom."""
    forces = np.concatenate([np.asarray(p.forces)[np.asarray(p.mask)] for p in data])
    per_atom = np.concatenate([np.asarray(p.energy) / np.asarray(p.mask).sum(1) for p in data])
    force, energy = float(np.sqrt(np.mean(forces**2))), float(np.std(per_atom))
    return force if force > 0 else 1.0, energy if energy > 1e-6 else 1.0


def _rows(key: Array, count: int, share: int, num_updates: int) -> Array:
    """Frames of every update of an epoch, `[num_updates, share]`, in random order."""
    needed = num_updates * share
    rounds = -(-needed // count)
    keys = jax.random.split(key, rounds)
    order = jnp.concatenate([jax.random.permutation(k, count) for k in keys])
    return order[:needed].reshape(num_updates, share)


@partial(jax.jit, static_argnums=0)
def _predict(potential: Potential, params: Params, structure: Structure, neighbors: NeighborList):
    one = lambda frame: energy_and_forces(potential.energy, params, *frame)
    return lax.map(one, (structure, neighbors))
