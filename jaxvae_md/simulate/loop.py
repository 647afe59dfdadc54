"""Simulations on the host: chunks of jitted steps with checks between them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float
from tqdm import tqdm

from jaxvae_md import errors
from jaxvae_md._typing import Array, Params
from jaxvae_md.errors import GeometryError, InputError, OptionError
from jaxvae_md.neighbors import NeighborList, allocate_systems, host_pairs
from jaxvae_md.potentials.evaluate import Neighbors
from jaxvae_md.simulate.advance import advance
from jaxvae_md.simulate.engine import Simulator, State, Trajectory
from jaxvae_md.simulate.rollout import record_of
from jaxvae_md.structure import Structure, check_species, unstack

_MAX_RETRIES = 8

_SAME_PLACE = 1e-2
"""angstrom; no force is of use below it"""


class Chunk(NamedTuple):
    """Some steps of a simulation on the host."""

    state: State
    """after the last step, to continue from; after a failure that before the first"""
    trajectory: Trajectory
    """the good frames, with the error bits"""


def run(
    simulator: Simulator,
    params: Params,
    structure: Structure,
    key: Array,
    num_steps: int,
    *,
    initial_temperature: float = 300.0,
    record_every: int = 10,
    chunk: int = 200,
    runaway: float = 1e5,
    progress: bool = False,
    label: str = "MD",
) -> Trajectory:
    """A whole simulation on the host: chunks of jitted steps with checks between them.

    An overflowing neighbor list is allocated again with more room and the chunk repeated from its
    start. When a position is not finite, or the temperature exceeds `runaway` (K), the run stops
    and the frames up to the last good one are returned with the error bit set: bad parameters
    must be seen, not raised.

    A structure with a leading axis is many systems of one shape, simulated side by side: the
    trajectory has that axis after the one of time. All of them stop where one fails.

    **Arguments:** `initial_temperature` in K of the velocities that are drawn; `num_steps` is
    rounded down to a multiple of `record_every`.

    ```python
    trajectory = run(simulator, params, structure, jax.random.key(0), num_steps=1000)
    ```
    """
    state = begin(simulator, params, structure, key, initial_temperature)
    options = {"record_every": record_every, "chunk": chunk, "runaway": runaway}
    parts: list[Trajectory] = []
    with tqdm(total=num_steps, desc=label, unit="step", disable=not progress) as bar:
        for _, part in chunks(simulator, params, state, num_steps, **options):
            parts.append(part)
            if not part.error:
                bar.update(record_every * len(part.temperature))
                bar.set_postfix(T=f"{np.mean(part.temperature[-1]):.0f} K")
    *fields, errors_of_parts = zip(*parts or [_no_frames(state)], strict=True)
    return Trajectory(*map(np.concatenate, fields), error=errors_of_parts[-1])


def begin(
    simulator: Simulator,
    params: Params,
    structure: Structure,
    key: Array,
    initial_temperature: float = 300.0,
    momentum: Float[Array, "n 3"] | None = None,
    extra: float = 1.15,
) -> State:
    """The state before the first step: allocates the neighbor list and computes the forces.

    **Arguments:** `initial_temperature` in K of the velocities that are drawn; `momentum` in
    sqrt(amu eV), as in `Trajectory` and in ASE, is taken instead where it is given; the list has
    room for `extra` times the neighbors that there are: `chunks` finds more by itself, `rollout`
    and `advance` cannot.
    **Raises:** `GeometryError` for arrays of the wrong shape, a singular cell, positions that are
    not finite, and two atoms at one place; `SpeciesError` for a species that the potential does
    not know; `OptionError` for momenta of another shape, or a structure of integers.

    ```python
    state = begin(simulator, params, structure, jax.random.key(0), 300.0)
    ```
    """
    check_start(simulator, structure, momentum)
    neighbors = allocate(simulator, structure, fast=simulator.pair_fns is not None, extra=extra)
    batched = np.ndim(structure.position) == 3
    keys = jax.random.split(key, len(structure.position)) if batched else key
    init = _jit_init(simulator, batched, momentum is not None)
    return init(keys, params, structure, neighbors, initial_temperature, momentum)


def chunks(
    simulator: Simulator,
    params: Params,
    state: State,
    num_steps: int,
    *,
    record_every: int = 10,
    chunk: int = 200,
    runaway: float = 1e5,
    volumes: tuple[float, float] = (0.0, np.inf),
) -> Iterator[Chunk]:
    """A simulation on the host, `chunk` steps at a time, checked after each as told in `run`.

    It also stops when the cell's volume (angstrom^3) is not between the two `volumes`. The error
    bits of a failure come with the last chunk. A simulation that is continued from the state of a
    chunk has the same frames, bit by bit, as one that never stopped, on the same machine and with
    the same options.

    ```python
    for state, trajectory in chunks(simulator, params, state, num_steps=1000):
        print(trajectory.temperature)
        errors.check(trajectory.error, "simulation")
    ```
    """
    chunk = record_every * max(1, chunk // record_every)
    done, retries = 0, 0
    while (size := min(chunk, num_steps - done) // record_every * record_every) > 0:
        after, frames = _jit_recorded(simulator, size, record_every)(params, state)
        frames = jax.tree.map(np.asarray, frames)
        # of all systems, where there are several
        bits = np.bitwise_or.reduce(frames.error.reshape(len(frames.error), -1), axis=1)
        hot = ~(frames.temperature < runaway)
        with np.errstate(invalid="ignore"):
            volume = np.abs(np.linalg.det(frames.cell))
        hot |= ~((volumes[0] < volume) & (volume < volumes[1]))
        wild = (bits & errors.NOT_FINITE != 0) | hot.reshape(len(hot), -1).any(axis=1)
        first_wild = _first(wild)
        first_overflow = _first(bits & errors.NEIGHBOR_OVERFLOW != 0)
        # what is not a number overflows every list, so it gets a single chance
        lost = bits[min(first_overflow, len(bits) - 1)] & errors.NOT_FINITE
        allowed = 1 if lost else _MAX_RETRIES
        if first_overflow <= first_wild and first_overflow < size and retries < allowed:
            retries += 1
            # a cell that shrank may have met more images of itself than the list searches
            moving = not np.array_equal(after.structure.cell, state.structure.cell)
            neighbors = allocate(
                simulator,
                state.structure,
                fast=not isinstance(state.neighbors, NeighborList),
                extra=1.15 * 1.3**retries,
                capacity=int(np.max(after.neighbors.most)),
                thinnest=0.9**retries if moving else 1.0,
            )
            state = state._replace(neighbors=neighbors)
            continue
        kept = min(first_wild, first_overflow, len(bits))
        good = Trajectory(*(field[:kept] for field in frames))
        if kept < len(bits):
            error = int(bits[kept]) | (errors.NOT_FINITE if wild[kept] else 0)
            yield Chunk(state, good._replace(error=np.array(error)))
            return
        state, done, retries = after, done + size, 0
        yield Chunk(state, good._replace(error=np.array(0)))


def check_start(simulator: Simulator, structure: Structure, momentum: Array | None) -> None:
    """What can be known to fail, before anything is compiled."""
    position = np.asarray(structure.position)
    num, batch = position.shape[-2] if position.ndim > 1 else 0, position.shape[:-2]
    expected = Structure((num, 3), (3, 3), (3,), (num,), (num,))  # pyright: ignore
    for name, array, shape in zip(Structure._fields, structure, expected, strict=True):
        if position.ndim not in (2, 3) or num == 0 or np.shape(array) != batch + tuple(shape):
            raise GeometryError(
                f"{name} has shape {np.shape(array)}, and position {position.shape}",
                remedy="give position [n, 3], cell [3, 3], pbc [3], species and mask [n], all of "
                "them with a leading axis for several systems",
            )
    if not np.issubdtype(position.dtype, np.floating):
        raise OptionError(
            f"positions are of type {position.dtype}", remedy="give float32 or float64"
        )
    if momentum is not None and np.shape(momentum) != position.shape:
        raise OptionError(
            f"momentum has shape {np.shape(momentum)}, and position {position.shape}",
            remedy="give one momentum for each atom",
        )
    for frame, system in enumerate(unstack(structure)):
        frame = frame if batch else None
        try:
            check_species(system, simulator.potential.species)
            i, j, _ = host_pairs(system, _SAME_PLACE)
        except InputError as error:
            raise error.at(frame=frame) from None
        if len(i):
            raise GeometryError(
                f"atoms {i[0]} and {j[0]} are less than {_SAME_PLACE} angstrom apart",
                frame=frame,
                atom=int(i[0]),
                remedy="remove one of them",
            )


def _first(flags: np.ndarray) -> int:
    """Index of the first flag that is set; beyond every index when none is."""
    return int(np.argmax(flags)) if flags.any() else np.iinfo(int).max


def allocate(
    simulator: Simulator,
    structure: Structure,
    *,
    fast: bool,
    extra: float = 1.15,
    capacity: int = 1,
    thinnest: float = 1.0,
) -> Neighbors:
    """A fresh list with room for `extra` times the neighbors that there are.

    It serves until the cell has shrunk to `thinnest` of its widths.
    """
    on_host = jax.tree.map(np.asarray, structure)
    room = max(1.05, extra / 1.1)
    if fast and simulator.pair_fns is not None:
        options = {"extra": room, "capacity": capacity, "thinnest": thinnest}
        pairs = simulator.pair_fns.allocate(on_host, **options)
        if pairs is not None:
            return pairs
    fns = simulator.neighbor_fns
    listed = allocate_systems(
        fns, on_host, extra=extra, grid_room=room, capacity=capacity, thinnest=thinnest
    )
    return jax.tree.map(jnp.asarray, listed)


def _no_frames(state: State) -> Trajectory:
    """A trajectory without frames, in the shapes and precision of the state."""
    position, cell = map(np.asarray, state.structure[:2])
    nothing = np.zeros((0, *position.shape[:-2]), position.dtype)
    return Trajectory(
        position=np.zeros((0, *position.shape), position.dtype),
        momentum=np.zeros((0, *position.shape), position.dtype),
        cell=np.zeros((0, *cell.shape), cell.dtype),
        potential_energy=nothing,
        temperature=nothing,
        error=np.array(0),
    )


@lru_cache(maxsize=32)
def _jit_init(simulator: Simulator, batched: bool, has_momentum: bool):
    axes = (0, None, 0, 0, None, 0 if has_momentum else None)
    return jax.jit(jax.vmap(simulator.init, axes) if batched else simulator.init)


@lru_cache(maxsize=32)
def _jit_recorded(simulator: Simulator, num_steps: int, record_every: int):
    def function(params: Params, state: State) -> tuple[State, Trajectory]:
        steps_fn = partial(advance, simulator, params)
        record = record_of(simulator, params, state, record_every, steps_fn)
        return lax.scan(record, state, length=num_steps // record_every)

    return jax.jit(function)
