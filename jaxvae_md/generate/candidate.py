"""A structure that was made for a lack of the data, and what is measured of it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvae_md import coverage, errors
from jaxvae_md._typing import Array, Params
from jaxvae_md.coverage import Novelty
from jaxvae_md.descriptors import Chebyshev, Standardizer
from jaxvae_md.errors import InputError, OptionError
from jaxvae_md.generate.guard import Guard
from jaxvae_md.neighbors import NeighborList, allocate_systems, host_pairs, neighbor_list
from jaxvae_md.potentials import Potential
from jaxvae_md.structure import Structure, check_geometry, check_species, pad, stack
from jaxvae_md.vae import VAE

_MULTIPLE = 32
"""of which the capacity of a neighbor list is one"""
BATCH = 16
"""structures that are worked on side by side"""
BAND = (1.5, 4.5)
"""novelty, over d95, of an environment that is worth a label and still believed"""
MAX_RESIDUAL = 0.3
"""of a latent request, in units of the prior's width"""
ENERGY_TOO_HIGH, ENERGY_TOO_LOW, KNOWN, TOO_FAR, REQUEST_MISSED, REPEATED, NO_LABEL = (
    1 << bit for bit in range(10, 17)
)
"""error bits of candidates, beside those of `errors`"""
REASONS = {
    errors.NOT_FINITE: "not finite",
    errors.STALE_NEIGHBORS: "atoms moved too far",
    errors.NEIGHBOR_OVERFLOW: "too many neighbors",
    errors.TOO_CLOSE: "atoms too close",
    ENERGY_TOO_HIGH: "energy too high",
    ENERGY_TOO_LOW: "energy too low to be believed",
    KNOWN: "not novel once realised",
    TOO_FAR: "too far from the data",
    REQUEST_MISSED: "request not met",
    REPEATED: "like another one",
    NO_LABEL: "no label from the reference",
}


class Candidate(NamedTuple):
    """A generated structure with its origin and what was measured."""

    structure: Structure
    """numpy arrays without padding"""
    center: int
    """the atom whose surroundings are new"""
    start: int
    """the training structure it was made from"""
    route: str
    """decode, ascent, explore or simulate"""
    reason: str
    """what was asked for, or done to the start"""
    request: Float[np.ndarray, " latent"] | None
    """the latent point that was requested"""
    latent: Float[np.ndarray, " latent"] | None = None
    """the latent code of the center as it is"""
    error: int = 0
    """error bits; 0 is a structure to label"""
    residual: float = np.nan
    """rms difference of the center's latent code from the requested one"""
    novelty: float = np.nan
    """distance of the center's descriptor from the training data and the archive, over d95"""
    closest: float = np.nan
    """shortest pair distance over its lower limit"""
    energy: float = np.nan
    """eV per atom, by the current potential"""


class Setting(NamedTuple):
    """What is known when structures are generated."""

    descriptor: Chebyshev
    standardizer: Standardizer
    training: Sequence[Structure]
    """numpy arrays without padding"""
    known: Novelty
    """standardised descriptors of the training data and of what was made before: the archive"""
    potential: Potential
    """the current one"""
    params: Params
    guard: Guard
    nearest_distance: float
    """angstrom, of the material"""
    temperature: float
    """K, of short simulations"""
    model: VAE | None = None
    """without one nothing is decoded"""
    model_params: Params = None
    x_train: Float[np.ndarray, "m f"] | None = None
    """standardised descriptors of all training atoms, structure after structure"""
    visited: Float[np.ndarray, "v f"] | None = None
    """standardised descriptors that simulations with the current potential visit: what is decoded
    lies near them"""


def check(setting: Setting, num: int) -> None:
    """What can be known to fail, before anything is compiled.

    **Raises:** `OptionError` for a number or a guard that is none; `SpeciesError` and
    `GeometryError` for training structures, naming the frame.

    ```python
    check(setting, num=10)
    ```
    """
    if not isinstance(num, int | np.integer) or num < 0:
        raise OptionError(f"num is {num!r}", remedy="give a whole number, 0 or more")
    distance, *energies = setting.guard
    if not (np.isfinite(distance).all() and np.isfinite(energies).all()):
        raise OptionError(
            f"the guard is {setting.guard}",
            remedy="look at the energies that the current potential gives the training frames",
        )
    for number, structure in enumerate(setting.training):
        try:
            check_species(structure, setting.potential.species)
            check_geometry(structure)
        except InputError as error:
            raise error.at(frame=number) from None


def measure(
    setting: Setting,
    candidates: Sequence[Candidate],
    band: tuple[float, float],
    max_residual: float,
) -> tuple[list[Candidate], list[Float[np.ndarray, "n f"]]]:
    """The candidates with everything measured again, and their standardised descriptors.

    A center of -1 becomes the atom of largest novelty. Bits are added for what the guard, the
    novelty or the request forbid.

    ```python
    measured, z = measure(setting, candidates, band=(1.5, 4.5), max_residual=0.3)
    ```
    """
    # one that is not finite has no neighbors to speak of: its start stands in for it
    sound = [np.isfinite(c.structure.position).all() for c in candidates]
    stand_in = [
        c.structure if ok else setting.training[c.start]
        for c, ok in zip(candidates, sound, strict=True)
    ]
    out, descriptors = list(candidates), [np.empty(0)] * len(candidates)
    evaluate = _evaluation(setting.descriptor, setting.potential)
    cutoff = max(setting.descriptor.cutoff, setting.potential.cutoff)
    size = 1 + max(len(s.position) for s in [*setting.training, *stand_in])
    for first, batch, neighbors in whole_batches(stand_in, cutoff, size):
        x, energy = (np.asarray(part) for part in evaluate(setting.params, batch, neighbors))
        z_batch = np.asarray(setting.standardizer.apply(x))
        novelty = np.asarray(
            coverage.novelty(setting.known, jnp.asarray(z_batch.reshape(BATCH * size, -1)))
        ).reshape(BATCH, size)
        for row, number in enumerate(range(first, min(first + BATCH, len(candidates)))):
            mask = batch.mask[row]
            z, n = z_batch[row][mask], novelty[row][mask]
            one = candidates[number]
            center = one.center if one.center >= 0 else int(np.argmax(n))
            closest = closest_pair(stand_in[number], setting.guard)
            latent = _code(setting, z[center])
            residual = np.nan
            if latent is not None and one.request is not None:
                residual = float(np.sqrt(np.mean((latent - one.request) ** 2)))
            bits = one.error | (0 if sound[number] else errors.NOT_FINITE)
            per_atom = float(energy[row] / mask.sum())
            if not np.isfinite(per_atom):
                bits |= errors.NOT_FINITE
            elif per_atom >= setting.guard.ceiling:
                bits |= ENERGY_TOO_HIGH
            elif per_atom <= setting.guard.floor:
                bits |= ENERGY_TOO_LOW
            if closest < 1:
                bits |= errors.TOO_CLOSE
            if not n[center] >= band[0]:
                bits |= KNOWN
            if n[center] > band[1]:
                bits |= TOO_FAR
            if residual > max_residual:
                bits |= REQUEST_MISSED
            out[number] = one._replace(
                center=center,
                latent=latent,
                error=bits,
                residual=residual,
                novelty=float(n[center]),
                closest=closest,
                energy=per_atom,
            )
            descriptors[number] = z
    return out, descriptors


def whole_batches(
    structures: Sequence[Structure], cutoff: float, num_atoms: int
) -> Iterator[tuple[int, Structure, NeighborList]]:
    """Structures, sixteen at a time, padded to few shapes: every shape is compiled.

    Of each batch where it begins in the list, the padded structures (the last ones are repeated to
    fill it) and their neighbor lists, which serve these positions alone.

    ```python
    for first, batch, neighbors in whole_batches(structures, cutoff=6.0, num_atoms=65):
        x = jax.vmap(descriptor)(batch, neighbors)
    ```
    """
    fns = neighbor_list(cutoff)
    for first in range(0, len(structures), BATCH):
        rows = np.resize(np.arange(first, min(first + BATCH, len(structures))), BATCH)
        batch = stack([pad(structures[int(i)], num_atoms) for i in rows])
        neighbors = allocate_systems(fns, batch, multiple=_MULTIPLE)
        # images are for an update; without them there are fewer shapes
        yield first, batch, neighbors._replace(images=np.zeros((BATCH, 0, 3), np.int32))


def plausible(
    candidates: Sequence[Candidate], z: Sequence[Float[np.ndarray, "n f"]]
) -> Float[np.ndarray, "v f"] | None:
    """Environments of measured candidates that the guard allows, whether they are novel or not.

    ```python
    setting = setting._replace(visited=plausible(*measure(setting, candidates, (1.5, 4.5), 0.3)))
    ```
    """
    allowed = [of for one, of in zip(candidates, z, strict=True) if not one.error & ~KNOWN]
    return np.concatenate(allowed) if allowed else None


def rng_of(key: Array) -> np.random.Generator:
    """What is drawn on the host.

    ```python
    rng_of(jax.random.key(0)).integers(3)
    ```
    """
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def rejection(bits: int) -> str:
    """Why a candidate was rejected, in words.

    ```python
    rejection(candidate.error)  # "" for one that was not
    ```
    """
    return ", ".join(reason for bit, reason in REASONS.items() if int(bits) & bit)


def closest_pair(structure: Structure, guard: Guard) -> float:
    """Shortest pair distance over its lower limit; 2 where no pair is near it.

    ```python
    closest_pair(structure, guard) >= 1  # no two atoms are too close
    ```
    """
    i, j, shift = host_pairs(structure, 2 * float(guard.min_distance.max()))
    if not len(i):
        return 2.0
    vector = structure.position[j] + shift @ structure.cell - structure.position[i]
    limit = guard.min_distance[structure.species[i], structure.species[j]]
    return float(np.min(np.linalg.norm(vector, axis=1) / limit))


def _code(setting: Setting, z: Float[np.ndarray, " f"]) -> Float[np.ndarray, " latent"] | None:
    if setting.model is None:
        return None
    mean, _ = setting.model.encode(setting.model_params, jnp.asarray(z, np.float32))
    return np.asarray(mean, float)


@lru_cache(maxsize=16)
def _evaluation(descriptor: Chebyshev, potential: Potential):
    def one(params, structure, neighbors):
        return descriptor(structure, neighbors), potential.energy(params, structure, neighbors)

    return jax.jit(
        lambda params, structure, neighbors: jax.lax.map(
            lambda frame: one(params, *frame), (structure, neighbors)
        )
    )
