"""An energy function of jax_md as a potential of the package, right in cells of any size."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxvae_md._typing import Array, Params
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import NeighborList, neighbor_list
from jaxvae_md.potentials.potential import Potential, potential, sum_over_atoms
from jaxvae_md.structure import Structure, checked_species

if TYPE_CHECKING:
    from jax_md import partition

_LIST_VARIANT = (
    "give the energy function of a factory with a neighbor list, "
    "the second of what lennard_jones_neighbor_list returns, say"
)


class _Rows(NamedTuple):
    """The atoms that jax_md sees: the structure's own, their images, and two far away.

    The last two are further than the cutoff from everything. jax_md reads padded neighbors at the
    last row: there they have no derivative that is not finite.
    """

    position: Float[Array, "r 3"]
    species: Int[Array, " r"]
    slot: Int[Array, "n k"]
    """the row of each neighbor; r where there is none"""
    enough: Bool[Array, ""]


def from_jax_md(
    species: Sequence[str],
    cutoff: float,
    energy_fn: Callable[..., Float[Array, ""]],
    params: Mapping[str, Any] | None = None,
    format: partition.NeighborListFormat | None = None,
    mask_self: bool = True,
    num_ghosts: int | None = None,
    project: Callable[[Params], Params] | None = None,
) -> Potential:
    """A jax_md energy function with a neighbor list, `energy_fn(R, neighbor=..., **params)`.

    Build it with the displacement of `jax_md.space.free()`, in eV and angstrom. It is given the
    atoms and, as further atoms without neighbors, the periodic images that they meet, so an atom
    may be its own neighbor and stress is a plain gradient. What it returns for an isolated atom
    counts for real atoms only. An energy for each row is summed over the real atoms.

    It must vanish from `cutoff` on, and must not look at the neighbors of neighbors:
    message-passing networks (`graph_network`, `nequip`) are refused. So are functions without a
    list (`lennard_jones_pair`), which would let images meet each other. With more than one
    species it gets the keyword `species`; those it was built with must not matter, nor may any
    other property of single atoms (jax_md's pair functions heed the keyword, its
    `behler_parrinello` and `bks_silica` do not). This is tried on four atoms here, which finds
    most of what does not fit, but not a wrong displacement.

    Padded slots hold atoms far away, where gradients are finite by the parameters as well; in
    jax_md itself those of `energy.lennard_jones` are not. Its `lennard_jones` and `morse` make 0
    of an energy that is not a number: of two atoms at the same place, so do not trust them there.
    A position or parameter that is NaN gives NaN here.

    **Arguments:** cutoff in angstrom; `params` are the keyword arguments that `init` returns, by
    which the energy is differentiable; `format` of the list (Dense by default, which all of
    jax_md's functions know; pair functions are faster with Sparse or OrderedSparse);
    `mask_self=False` makes every atom its own neighbor at distance 0, as jax_md does for
    `eam_neighbor_list`. Dense functions work on a row for each neighbor of each atom, unless
    `num_ghosts` says for how many different images there is room (about
    n ((L + 2 cutoff)^3 / L^3 - 1)); energy and forces are NaN where it is too small. `project` as
    in `Potential`. **Raises:** `OptionError`.

    ```python
    displacement, _ = jax_md.space.free()
    _, energy_fn = jax_md.energy.morse_neighbor_list(displacement, 1.0, r_onset=4.0, r_cutoff=5.0)
    start = {"sigma": 2.35, "epsilon": 2.3, "alpha": 1.5}
    morse = from_jax_md(("Si",), 5.0, energy_fn, start, format=jax_md.partition.Sparse)
    atoms.calc = PotentialCalculator(morse, morse.init(jax.random.key(0)))
    ```
    """
    from jax_md import partition

    species = checked_species(species)
    kind = partition.Dense if format is None else format
    if not 0 < cutoff < np.inf:
        raise OptionError(f"cutoff is {cutoff}", remedy="give a positive length in angstrom")
    if not isinstance(kind, partition.NeighborListFormat):
        raise OptionError(f"format is {format!r}", remedy="give jax_md.partition.Sparse, say")
    if num_ghosts is not None and num_ghosts < 1:
        raise OptionError(f"num_ghosts is {num_ghosts}", remedy="give a number of atoms, or None")
    start = dict(params or {})

    def evaluate(params, rows: _Rows):
        known = {"species": rows.species} if len(species) > 1 else {}
        neighbor = _jax_md_list(rows.position, rows.slot, kind)
        value = jnp.asarray(energy_fn(rows.position, neighbor=neighbor, **known, **params))
        if value.shape not in ((), (len(rows.position),)):
            raise OptionError(
                f"energy_fn returns an array of shape {value.shape}",
                remedy="return one energy, or one for each row of R",
            )
        return value

    def alone(params, number, dtype):
        """The energy of an atom without neighbors."""
        position = 2 * cutoff * jnp.eye(3, dtype=dtype)
        nobody = jnp.full((1, 1), 3, jnp.int32)
        rows = _Rows(position, jnp.full(3, number, jnp.int32), nobody, jnp.array(True))
        return evaluate(params, rows) / 3

    def energy(params, structure, neighbors):
        num = len(structure.mask)
        rows = _rows(structure, neighbors, cutoff, num_ghosts)
        if kind is partition.OrderedSparse:
            kept = _each_pair_once(neighbors)
            rows = rows._replace(slot=jnp.where(kept, rows.slot, len(rows.position)))
        elif not mask_self:
            own = jnp.where(structure.mask, jnp.arange(num, dtype=jnp.int32), len(rows.position))
            rows = rows._replace(slot=jnp.column_stack([own, rows.slot]))
        total = evaluate(params, rows)
        if total.ndim:
            total = sum_over_atoms(total[:num], structure)
        else:
            of_species = jax.vmap(lambda number: alone(params, number, rows.position.dtype))(
                jnp.arange(len(species))
            )
            real = jnp.zeros(len(rows.position), bool).at[:num].set(structure.mask)
            total = total - jnp.sum(jnp.where(real, 0, of_species[rows.species]))
        # jax_md's pair functions make 0 of NaN; a factor, for the gradient to be NaN as well
        lost = [jnp.any(jnp.isnan(leaf)) for leaf in jax.tree.leaves((rows.position, params))]
        sound = rows.enough & ~jnp.any(jnp.stack(lost))
        return total * jnp.where(sound, 1, jnp.nan).astype(total.dtype)

    def init(key):
        del key
        return jax.tree.map(jnp.asarray, start)

    try:
        inspect.signature(energy_fn).bind(None, neighbor=None, **start)
    except TypeError as error:
        raise OptionError(
            f"energy_fn cannot be called as energy_fn(R, neighbor=..., **params) ({error})",
            remedy=_LIST_VARIANT,
        ) from None
    made = potential(species, float(cutoff), init, energy, project=project)
    _try_on_four_atoms(made)
    return made


def _rows(
    structure: Structure, neighbors: NeighborList, cutoff: float, num_ghosts: int | None
) -> _Rows:
    position, cell, species = map(
        jnp.asarray, (structure.position, structure.cell, structure.species)
    )
    index = jnp.asarray(neighbors.index, jnp.int32)
    shift, mask = jnp.asarray(neighbors.shift, jnp.int32), jnp.asarray(neighbors.mask)
    num, crossing = len(position), mask & jnp.any(shift != 0, axis=-1)
    image = jnp.column_stack([index.reshape(-1), shift.reshape(-1, 3)])
    used, number, enough = crossing.reshape(-1), jnp.arange(index.size), jnp.array(True)
    if num_ghosts is not None:
        image, used, number, enough = _distinct(image, used, num_ghosts)
    far = lax.stop_gradient(jnp.max(position, initial=0)) + 3 * cutoff
    last = jnp.full(3, far, position.dtype)
    before = last.at[0].add(2 * cutoff)
    ghost = position[image[:, 0]] + image[:, 1:].astype(position.dtype) @ cell
    ghost = jnp.where(used[:, None], ghost, before)
    row = jnp.where(crossing, num + number.reshape(index.shape).astype(jnp.int32), index)
    return _Rows(
        position=jnp.concatenate([position, ghost, before[None], last[None]]),
        species=jnp.concatenate([species, species[image[:, 0]], jnp.zeros(2, species.dtype)]),
        slot=jnp.where(mask, row, num + len(image) + 2),
        enough=enough,
    )


def _distinct(
    key: Int[Array, "p 4"], chosen: Bool[Array, " p"], room: int
) -> tuple[Int[Array, "room 4"], Bool[Array, " room"], Int[Array, " p"], Bool[Array, ""]]:
    """The different ones of the chosen keys, which of them there are, and the number of each."""
    order = jnp.lexsort((*key.T, ~chosen))
    key, chosen = key[order], chosen[order]
    new = chosen & jnp.append(True, jnp.any(key[1:] != key[:-1], axis=1))
    number = jnp.cumsum(new, dtype=key.dtype) - 1
    image = jnp.zeros((room, 4), key.dtype)
    image = image.at[jnp.where(new, number, room)].set(key, mode="drop")
    count = jnp.sum(new)
    return image, jnp.arange(room) < count, number[jnp.argsort(order)], count <= room


def _each_pair_once(neighbors: NeighborList) -> Bool[Array, "n k"]:
    """Of i -> j + shift and j -> i - shift, the one that goes up; an atom's own images too."""
    index = jnp.asarray(neighbors.index)
    x, y, z = jnp.moveaxis(jnp.asarray(neighbors.shift), -1, 0)
    up = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    own = jnp.arange(len(index))[:, None]
    return (index > own) | ((index == own) & up)


def _jax_md_list(
    position: Float[Array, "r 3"], slot: Int[Array, "n k"], kind: partition.NeighborListFormat
) -> partition.NeighborList:
    """A list of jax_md's in which the first n rows have neighbors."""
    from jax_md import partition

    num = len(position)
    if kind is partition.Dense:
        # the last row, where padded neighbors are read, must not be its own
        idx = jnp.full((num, slot.shape[1]), num, jnp.int32).at[: len(slot)].set(slot)
        idx = idx.at[-1].set(num - 2)
    else:
        there = slot < num
        center = jnp.where(there, jnp.arange(len(slot), dtype=jnp.int32)[:, None], num)
        idx = jnp.stack([center, jnp.where(there, slot, num - 2)]).reshape(2, -1)
    # jax_md's own decorators hide the arguments from pyright
    error = partition.PartitionError(jnp.zeros((), jnp.uint8))  # pyright: ignore[reportCallIssue]
    fields = idx, position, error, None, idx.shape[-1], kind, None, None, None
    return partition.NeighborList(*fields)  # pyright: ignore[reportCallIssue]


def _try_on_four_atoms(made: Potential) -> None:
    """Raises `OptionError` where the energy depends on what it must not depend on."""
    compiled, params = jax.jit(made.energy), made.init(jax.random.key(0))
    box = 20 * made.cutoff * np.eye(3)
    turns = np.array([[0, 0, 0], [1, 0, 0], [0, -1, 0], [1, 0, 1]])
    corners = np.array([[0, 0, 0], [1, 0, 0], [0.4, 0.9, 0], [0.5, 0.2, 0.8]])
    plain, crossed, lonely = [], [], []
    for distance in (0.35 * made.cutoff, 0.6 * made.cutoff, 0.85 * made.cutoff):
        structure = Structure(
            position=distance * corners,
            cell=box,
            pbc=np.ones(3, bool),
            species=np.arange(4, dtype=np.int32) % len(made.species),
            mask=np.ones(4, bool),
        )
        moved = structure._replace(position=structure.position + turns @ box)
        fns = neighbor_list(made.cutoff)
        neighbors, across = fns.allocate(structure, capacity=3), fns.allocate(moved, capacity=3)
        empty = neighbors._replace(mask=np.zeros_like(neighbors.mask))
        plain.append(compiled(params, structure, neighbors))
        crossed.append(compiled(params, moved, across))
        lonely.append(compiled(params, structure, empty))
    none = compiled(params, structure._replace(mask=np.zeros(4, bool)), empty)
    near = partial(np.allclose, rtol=1e-4, atol=1e-4 * np.abs(lonely[0]), equal_nan=True)
    if not near(lonely, lonely[0]):
        raise OptionError("energy_fn does not keep to its neighbor list", remedy=_LIST_VARIANT)
    if not near(crossed, plain):
        raise OptionError(
            f"the energy of four atoms changes from {np.array(plain).tolist()} to "
            f"{np.array(crossed).tolist()} eV where they meet across the boundary of a cell",
            remedy="neither a message-passing network nor a function without a neighbor list can "
            "be used; give energy_fn no species or other properties of atoms when it is built",
        )
    if not near(none, 0):
        raise OptionError(
            f"energy_fn returns {float(none)} eV that belong to no atom",
            remedy="give energy_fn no species when it is built, let it vanish from the cutoff on, "
            "and add constants by atomic_energy",
        )
