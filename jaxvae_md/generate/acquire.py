"""What to label next: made and simulated candidates in one pool, and the rule that chooses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvae_md import coverage
from jaxvae_md._typing import Array
from jaxvae_md.descriptors import Chebyshev
from jaxvae_md.generate.candidate import (
    BAND,
    BATCH,
    MAX_RESIDUAL,
    Candidate,
    Setting,
    check,
    measure,
    plausible,
    whole_batches,
)
from jaxvae_md.generate.decode import decode
from jaxvae_md.generate.explore import explore
from jaxvae_md.generate.select import select
from jaxvae_md.generate.simulated import CLOSEST, HEATING, Heating, simulated
from jaxvae_md.structure import Structure

_ANY = (0.0, np.inf)
"""novelty: which candidates are worth a label is for the selection to say"""
_ENERGY = 1.5
"""eV per atom above the lowest energy that is allowed at least: of what it never saw, a potential
is wrong by as much"""
_LOWER = 1.0
"""eV per atom, by which the floor is lower for the same reason"""
_MADE = 4
"""candidates for each structure that is wanted"""
_DECODED = 0.1
"""of them, where there is a VAE"""


def acquire(
    setting: Setting,
    key: Array,
    num: int,
    heating: Heating = HEATING,
    beside: Sequence[Structure] = (),
) -> list[Candidate]:
    """The `num` structures whose labels a potential learns most from: the step of an active loop.

    Moves make what no simulation reaches (defects, surfaces, strain), simulations what no move
    makes (heat, melt), and a VAE, where there is one, decodes a tenth of what is made. From all of
    them `select` chooses, one after the other, what covers most of what the labelled data lack.

    **Arguments:** `beside` structures that are to be labelled anyhow. **Returns:** the chosen
    candidates, most worthwhile first, as many as there are (a budget is spent: `select` says from
    where on the pool is covered), then those that the guard refuses. The guard allows 1.5 eV per
    atom at least, whatever the data span. **Raises:** as `generate` and `select`.

    ```python
    to_label = [c for c in acquire(setting, jax.random.key(0), num=10) if not c.error]
    ```
    """
    if num == 0:
        return []
    pool = candidates(setting, key, num, heating)
    sound = [one for one in pool if not one.error]
    refused = [one for one in pool if one.error]
    if not sound:
        return refused
    regions = _regions(setting, [*setting.training, *beside, *(one.structure for one in sound)])
    known = len(setting.training) + len(beside)
    chosen = select(regions[:known], regions[known:], num)
    return [sound[i] for i in chosen.order] + refused


def candidates(
    setting: Setting, key: Array, num: int, heating: Heating = HEATING
) -> list[Candidate]:
    """What `acquire` chooses `num` from, measured; those that the guard refuses have error bits.

    ```python
    pool = candidates(setting, jax.random.key(0), num=10)
    ```
    """
    check(setting, num)
    guard = setting.guard
    lowest = guard.floor
    wide = guard._replace(floor=lowest - _LOWER, ceiling=max(guard.ceiling, lowest + _ENERGY))
    setting = setting._replace(guard=wide)
    num_decoded = round(_DECODED * _MADE * num) if setting.model is not None else 0
    keys = jax.random.split(key, 3)
    made = explore(setting, keys[0], _MADE * num - num_decoded, _ANY)
    made, z = measure(setting, made, _ANY, np.inf)
    if num_decoded:
        setting = setting._replace(visited=plausible(made, z))
        decoded = decode(setting, keys[1], num_decoded, BAND)
        made += measure(setting, decoded, _ANY, MAX_RESIDUAL)[0] if decoded else []
    heated = simulated(setting, keys[2], heating)
    nearer = np.minimum(guard.min_distance, CLOSEST * setting.nearest_distance)
    allowed = setting._replace(guard=wide._replace(min_distance=nearer))
    return made + (measure(allowed, heated, _ANY, np.inf)[0] if heated else [])


def _regions(setting: Setting, structures: Sequence[Structure]) -> list[Float[np.ndarray, "n d"]]:
    """What `select` compares, of each structure."""
    pooled = _pooled(setting.descriptor, setting.nearest_distance)
    scale = jax.tree.map(jnp.asarray, setting.standardizer)
    cutoff = coverage.reach(setting.descriptor, setting.nearest_distance)
    size = 1 + max(len(structure.position) for structure in structures)
    out = []
    for first, batch, neighbors in whole_batches(structures, cutoff, size):
        regions = np.asarray(pooled(scale, batch, neighbors))
        num = min(BATCH, len(structures) - first)
        out += [regions[row][batch.mask[row]] for row in range(num)]
    return out


@lru_cache(maxsize=16)
def _pooled(descriptor: Chebyshev, nearest_distance: float):
    def regions(standardizer, structures, neighbors):
        one = partial(coverage.surroundings_of, descriptor, standardizer, nearest_distance)
        return jax.lax.map(lambda frame: one(*frame).region, (structures, neighbors))

    return jax.jit(regions)
