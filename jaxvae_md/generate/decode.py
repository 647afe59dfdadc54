"""New environments from gaps of the latent space: requested by decoding, and realised."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from jaxvae_md import errors
from jaxvae_md._typing import Array, Params
from jaxvae_md.batching import batches
from jaxvae_md.coverage import Novelty, novelty
from jaxvae_md.descriptors import Chebyshev
from jaxvae_md.errors import InputError
from jaxvae_md.generate.candidate import Candidate, Setting
from jaxvae_md.generate.realise import realise
from jaxvae_md.vae.model import VAE

_SKIN = 2.0
"""angstrom, of the lists with which structures are realised"""
_FARTHER = 1.03
"""than the guard demands: the repulsion gives way a little"""
_HARMLESS = errors.NOT_CONVERGED | errors.ILL_CONDITIONED
"""what matters of a realisation is measured again"""


class Targets(NamedTuple):
    """Requested environments."""

    z: Float[Array, "num latent"]
    """latent points"""
    x: Float[Array, "num f"]
    """their decoded, standardised descriptors"""
    novelty: Float[Array, " num"]
    """distance of x to the training data over the data's own d95"""
    cycle: Float[Array, " num"]
    """rms |encode(decode z) - z|: how well the decoder knows this point"""
    start: Int[Array, " num"]
    """training environment nearest to x: where realising begins"""


def decode(setting: Setting, key: Array, num: int, band: tuple[float, float]) -> list[Candidate]:
    """Gaps of the latent space, decoded and realised; fewer than `num` where there are fewer.

    ```python
    candidates = decode(setting, jax.random.key(0), num=10, band=(1.5, 4.5))
    ```
    """
    assert setting.model is not None and setting.x_train is not None
    targets = propose(
        setting.model,
        setting.model_params,
        setting.known,
        jnp.asarray(setting.x_train),
        key,
        num,
        band=band,
        visited=None if setting.visited is None else jnp.asarray(setting.visited),
    )
    return realise_all(setting, targets)


def requests(
    setting: Setting, z: Float[np.ndarray, "num latent"], max_cycle: float = 1.0
) -> Targets:
    """Latent points of one's own as targets. `max_cycle` is the reach of the latent space.

    **Raises:** `InputError` for points of another dimension, that are not finite, or that do not
    come back to themselves through decoder and encoder: what the decoder makes of them means
    nothing.

    ```python
    candidates = realise_all(setting, requests(setting, codes + 0.5))
    ```
    """
    assert setting.model is not None and setting.x_train is not None
    if np.ndim(z) != 2 or np.shape(z)[1] != setting.model.latent_dim:
        raise InputError(
            f"latent points of shape {np.shape(z)}",
            remedy=f"give [num, {setting.model.latent_dim}]",
        )
    points = jnp.asarray(z, jnp.float32)
    x, cycle, n = _judge(setting.model, setting.model_params, setting.known, points)
    lost = np.nonzero(~(np.asarray(cycle) <= max_cycle))[0]
    if len(lost):
        raise InputError(
            f"latent point {lost[0]} comes back from the decoder {float(cycle[lost[0]]):.2g} away",
            remedy="ask for points nearer to the codes of the data, or raise max_cycle",
        )
    start = _nearest_rows(jnp.asarray(setting.x_train), x)
    return Targets(*(np.asarray(v) for v in (points, x, n, cycle, start)))


def realise_all(setting: Setting, targets: Targets) -> list[Candidate]:
    """Each target as a structure, made from the training environment nearest to it.

    ```python
    candidates = realise_all(setting, targets)
    ```
    """
    if not len(targets.start):
        return []
    assert setting.model is not None
    sizes = [len(structure.position) for structure in setting.training]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    within = np.concatenate([np.arange(size) for size in sizes])
    start, center = owner[targets.start], within[targets.start]
    structures = [setting.training[int(i)] for i in start]
    realise_one = _realiser(setting.descriptor, setting.model)
    in_double = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, float), tree)
    knowledge = in_double((setting.model_params, setting.standardizer, setting.guard.min_distance))
    out: list[Candidate] = [None] * len(start)  # type: ignore[list-item]
    for batch in batches(structures, setting.descriptor.cutoff + _SKIN):
        for row, number in enumerate(batch.frame):
            one = jax.tree.map(lambda leaf, row=row: leaf[row], (batch.structure, batch.neighbors))
            target = jnp.asarray(targets.z[number], float)
            result = realise_one(knowledge, target, *one, int(center[number]))
            structure = structures[number]
            size = len(structure.position)
            moved = structure._replace(position=np.asarray(result.structure.position)[:size])
            origin = int(center[number]), int(start[number]), "decode", "gap"
            error = int(result.error) & ~_HARMLESS
            out[number] = Candidate(moved, *origin, np.asarray(target), error=error)
    return out


@lru_cache(maxsize=16)
def _realiser(descriptor: Chebyshev, model: VAE):
    """`realise` of a latent point, compiled."""

    def one(knowledge, target, structure, neighbors, center):
        params, standardizer, limit = knowledge
        latent = lambda x: model.encode(params, standardizer.apply(x))[0]
        return realise(descriptor, latent, target, structure, neighbors, center, limit, skin=_SKIN)

    return jax.jit(one)


def propose(
    model: VAE,
    params: Params,
    known: Novelty,
    x_train: Float[Array, "m f"],
    key: Array,
    num: int,
    *,
    band: tuple[float, float] = (1.5, 3.0),
    max_cycle: float = 0.3,
    num_candidates: int = 20000,
    visited: Float[Array, "v f"] | None = None,
) -> Targets:
    """Latent points whose decoded descriptors are missing from the training data.

    Distance in latent space is not novelty after decoding, so candidates (beyond and between the
    codes of training environments) are judged by the novelty of what they decode to, and must
    come back to themselves through the encoder. From those within `band` the `num` most different
    ones are taken greedily. `max_cycle` is widened up to fourfold when too few come back so well;
    fewer than `num` are returned when fewer qualify even then.

    **Arguments:** `known` from `coverage.fit_novelty`; `x_train` standardised descriptors of the
    training environments, whose rows `start` refers to; `visited` those that a simulation with
    the current potential visits: candidates then lie on lines through their codes.

    ```python
    targets = propose(model, params, known, z_train, jax.random.key(0), num=12)
    ```
    """
    dtype = params["decoder"]["linear"]["kernel"].dtype
    x_train = jnp.asarray(x_train, dtype)
    codes, _ = model.encode(params, x_train)
    others = codes if visited is None else model.encode(params, jnp.asarray(visited, dtype))[0]
    z = _candidates(codes, others, key, num_candidates)
    x, cycle, n = _judge(model, params, known, z)
    novel = np.asarray((n > band[0]) & (n < band[1]))
    good = np.zeros(0, int)
    for widening in (1, 2, 4):
        good = np.nonzero(novel & (np.asarray(cycle) < widening * max_cycle))[0]
        if len(good) >= num:
            break
    picks = good[np.asarray(_most_different(x[good], num))] if len(good) > num else good
    start = _nearest_rows(x_train, x[picks])
    return Targets(*(np.asarray(v) for v in (z[picks], x[picks], n[picks], cycle[picks], start)))


def _nearest_rows(x_train: Float[Array, "m f"], x: Float[Array, "num f"]) -> Int[Array, " num"]:
    return lax.map(lambda y: jnp.argmin(jnp.sum((x_train - y) ** 2, axis=-1)), x)


def _candidates(
    codes: Float[Array, "m l"], others: Float[Array, "v l"], key: Array, num: int
) -> Float[Array, "num l"]:
    """Points on lines through a training code and another, from half a length before to behind."""
    pair, along, noise = jax.random.split(key, 3)
    rows = jax.random.randint(pair, (2, num), 0, jnp.array([[len(codes)], [len(others)]]))
    a, b = codes[rows[0]], others[rows[1]]
    t = jax.random.uniform(along, (num, 1), codes.dtype, -0.5, 1.5)
    spread = 0.1 * jnp.std(codes, axis=0)
    return a + t * (b - a) + spread * jax.random.normal(noise, a.shape, codes.dtype)


@partial(jax.jit, static_argnums=0)
def _judge(model, params, known, z):
    x = model.decode(params, z)
    back, _ = model.encode(params, x)
    return x, jnp.sqrt(jnp.mean((back - z) ** 2, axis=-1)), novelty(known, x)


@partial(jax.jit, static_argnums=1)
def _most_different(x: Float[Array, "m f"], num: int) -> Int[Array, " num"]:
    """Greedy farthest-point selection, from the row nearest to the mean."""

    def step(distance, _):
        pick = jnp.argmax(distance)
        return jnp.minimum(distance, jnp.sum((x - x[pick]) ** 2, axis=-1)), pick

    from_mean = jnp.sum((x - jnp.mean(x, axis=0)) ** 2, axis=-1)
    return lax.scan(step, 1.0 / (1.0 + from_mean) + 1e6, None, length=num)[1]
