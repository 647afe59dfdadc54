"""The embedded atom method by tables: setfl files, as LAMMPS's pair_style eam/alloy reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from jaxvae_md._typing import Array
from jaxvae_md.cutoffs import within
from jaxvae_md.errors import FileError, SpeciesError
from jaxvae_md.neighbors import FAR, displacements, neighbor_species
from jaxvae_md.potentials.potential import (
    Embedding,
    Potential,
    Radial,
    potential,
    sum_over_atoms,
)
from jaxvae_md.structure import checked_species

_REMEDY = "give a setfl file, as for LAMMPS's pair_style eam/alloy"


class Setfl(NamedTuple):
    """What a setfl file holds."""

    elements: tuple[str, ...]
    cutoff: float
    """angstrom"""
    embedding: Float[np.ndarray, "e p"]
    """F (eV) at densities 0, drho, 2 drho, ..."""
    drho: float
    density: Float[np.ndarray, "e m"]
    """what an atom of the element contributes at distances 0, dr, 2 dr, ..."""
    pair: Float[np.ndarray, "e e m"]
    """r phi (eV angstrom) at the same distances"""
    dr: float
    """angstrom"""
    lattice: tuple[tuple[float, str], ...]
    """lattice constant (angstrom) and structure of each element, as the file says"""


def eam(setfl: Setfl, species: Sequence[str] | None = None) -> Potential:
    """The embedded atom potential of a setfl file, by its tables.

        E = sum_i F(rho_i) + 1/2 sum_ij phi(r_ij),   rho_i = sum_j f_j(r_ij)

    Between the points of a table cubic polynomials with the slopes of five points, as LAMMPS has
    it; beyond the last density F goes on as a straight line. The parameters are the tables,
    {"embedding": [s, p], "density": [s, m], "pair": [s, s, m]}, the last read symmetrically; all
    are differentiable.

    **Arguments:** `species` of the file, by default all. **Raises:** `SpeciesError`. **Source:**
    Daw and Baskes, Phys. Rev. B 29, 6443 (1984); Foiles, Baskes and Daw, Phys. Rev. B 33, 7983
    (1986).

    ```python
    tungsten = eam(read_setfl("W_zhou.eam.alloy"))
    neighbors = neighbor_list(tungsten.cutoff).allocate(structure)
    energy = tungsten.energy(tungsten.init(jax.random.key(0)), structure, neighbors)
    ```
    """
    species = setfl.elements if species is None else checked_species(species)
    missing = [symbol for symbol in species if symbol not in setfl.elements]
    if missing:
        raise SpeciesError(
            f"no tables for {missing[0]}", remedy=f"the file has {', '.join(setfl.elements)}"
        )
    rows = np.array([setfl.elements.index(symbol) for symbol in species])
    start = {
        "embedding": setfl.embedding[rows],
        "density": setfl.density[rows],
        "pair": setfl.pair[np.ix_(rows, rows)],
    }
    size = setfl.pair.shape[-1]

    def init(key):
        del key
        return {name: jnp.asarray(value, float) for name, value in start.items()}

    def at(table, rows, r):
        """Value and slope by r in the rows of a table."""
        value, slope = _interpolate(table, rows, r * (1 / setfl.dr))
        return value, slope * (1 / setfl.dr)

    def embed(params, rho, species):
        x = rho / setfl.drho
        value, slope = _interpolate(params["embedding"], species, x)
        beyond = jnp.maximum(x - (setfl.embedding.shape[1] - 1), 0)
        return value + beyond * slope

    def energy(params, structure, neighbors):
        square = jnp.sum(displacements(structure, neighbors) ** 2, axis=-1)
        inside, square = within(square, setfl.cutoff)
        r = jnp.sqrt(square)
        own, other = structure.species[:, None], neighbor_species(structure, neighbors)
        both = own * len(species) + other
        phi = at(_symmetric(params["pair"]).reshape(-1, size), both, r)[0] / r
        rho, _ = at(params["density"], other, r)
        phi, rho = (jnp.sum(jnp.where(inside, x, 0), axis=-1) for x in (phi, rho))
        return sum_over_atoms(0.5 * phi + embed(params, rho, structure.species), structure)

    def tables(params):
        return {"pair": params["pair"], "density": params["density"][None]}

    def pair(square, chosen):
        inverse = jnp.sqrt(1 / square)
        value, slope = at(chosen["pair"][None], 0, square * inverse)
        phi = value * inverse
        return phi, (phi - slope) * inverse * inverse

    def density(square, chosen):
        inverse = jnp.sqrt(1 / square)
        value, slope = at(chosen["density"][None], 0, square * inverse)
        return value, -slope * inverse, -slope * inverse

    # the fast path chooses numbers by species, and not tables
    radial = Radial(tables, pair, embedding=Embedding(density, embed))
    return potential(
        species, setfl.cutoff, init, energy, radial=radial if len(species) == 1 else None
    )


def _symmetric(table):
    return 0.5 * (table + jnp.swapaxes(table, 0, 1))


def _interpolate(table: Float[Array, "e m"], rows, x):
    """Value and slope at x, in units of the points' distance; the end's beyond the table."""
    size = table.shape[1]
    x = jnp.minimum(x, size - 1)
    number = jnp.minimum(_whole(lax.stop_gradient(x)), size - 2)
    p = x - number
    places = rows * (size - 1) + number
    bounded = {"mode": "promise_in_bounds", "wrap_negative_indices": False}
    at = lambda flat: jnp.asarray(flat).at[places].get(**bounded)
    a, b, c, d = map(at, _cubics(table))
    return a + p * (b + p * (c + p * d)), b + p * (2 * c + 3 * p * d)


def _whole(x: Float[Array, " n"]) -> Int[Array, " n"]:
    """The whole part of numbers that are small, or one less where it is all; 0 for negative ones.

    From the bits of a sum whose last digit is one: a conversion, which asks for infinite values
    and others that do not fit, takes twice as long as the gathers after it.
    """
    form = jnp.finfo(x.dtype)
    bits = lax.bitcast_convert_type(jnp.maximum(x - 0.5, 0) + 2.0**form.nmant, f"int{form.bits}")
    return (bits & (2**form.nmant - 1)).astype(jnp.int32)


def _cubics(table: Float[Array, "e m"]):
    """The coefficients of the polynomial between each point and the next, all rows in one."""
    slopes, rise = _slopes(table), jnp.diff(table, axis=1)
    first, last = slopes[:, :-1], slopes[:, 1:]
    each = table[:, :-1], first, 3 * rise - 2 * first - last, first + last - 2 * rise
    return [coefficients.reshape(-1) for coefficients in each]


def _slopes(table: Float[Array, "e m"]) -> Float[Array, "e m"]:
    """By five points, three or two at the ends; times the distance of the points."""
    step = jnp.diff(table, axis=1)
    two = 0.5 * (table[:, 2:] - table[:, :-2])
    five = (8 * (table[:, 3:-1] - table[:, 1:-3]) - (table[:, 4:] - table[:, :-4])) / 12
    parts = (step[:, :1], two[:, :1], five, two[:, -1:], step[:, -1:])
    return jnp.concatenate(parts, axis=1)


def read_setfl(path: str | Path) -> Setfl:
    """A setfl file (LAMMPS's pair_style eam/alloy).

    **Raises:** `FileError`, which names the line, for a file that is none or that ends early.

    ```python
    tungsten = eam(read_setfl("W_zhou.eam.alloy"))
    ```
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise FileError(f"cannot be read ({error.strerror})", file=path, remedy=_REMEDY) from None
    words = _Words(text)
    try:
        num = words.next(int, "the number of elements")
        if not 1 <= num <= 200:
            raise ValueError(f"the number of elements is {num}")
        elements = tuple(words.next(str, "the elements") for _ in range(num))
        num_rho = words.next(int, "the number of densities")
        drho = words.next(float, "the distance of densities")
        num_r = words.next(int, "the number of distances")
        dr, cutoff = (words.next(float, name) for name in ("dr", "the cutoff"))
        if min(num_rho, num_r) < 5 or not min(drho, dr, cutoff) > 0:
            raise ValueError("tables need five points and positive distances of them")
        if len(set(elements)) != num:
            raise ValueError(f"an element comes twice in {' '.join(elements)}")
        if not cutoff < FAR / 2:
            raise ValueError(f"the cutoff is {cutoff}")
        embedding, density, lattice = [], [], []
        for symbol in elements:
            _, _, constant = (words.next(float, f"what {symbol} is") for _ in range(3))
            lattice.append((constant, words.next(str, f"the lattice of {symbol}")))
            embedding.append(words.table(num_rho, f"the embedding energy of {symbol}"))
            density.append(words.table(num_r, f"the density of {symbol}"))
        pair = np.zeros((num, num, num_r))
        for i in range(num):
            for j in range(i + 1):
                name = f"the pair function of {elements[i]} and {elements[j]}"
                pair[i, j] = pair[j, i] = words.table(num_r, name)
    except ValueError as error:
        raise FileError(f"line {words.line}: {error}", file=path, remedy=_REMEDY) from None
    return Setfl(
        elements=elements,
        cutoff=cutoff,
        embedding=np.array(embedding),
        drho=drho,
        density=np.array(density),
        pair=pair,
        dr=dr,
        lattice=tuple(lattice),
    )


class _Words:
    """The words of a file after its three lines of comment, with the line they are on."""

    def __init__(self, text: str) -> None:
        lines = list(enumerate(text.splitlines(), 1))[3:]
        self._words = [(number, word) for number, line in lines for word in line.split()]
        self._at = 0

    @property
    def line(self) -> int:
        """Where the last word is that was asked for."""
        return self._words[min(self._at, len(self._words)) - 1][0] if self._words else 1

    def next(self, kind, what: str):
        """The next word, as a `kind`."""
        self._at += 1
        if self._at > len(self._words):
            raise ValueError(f"the file ends before {what}")
        word = self._words[self._at - 1][1]
        try:
            return kind(word)
        except ValueError:
            raise ValueError(f"{word!r} is not {what}") from None

    def table(self, num: int, what: str) -> Float[np.ndarray, " m"]:
        """The next `num` numbers, all finite."""
        values = np.array([self.next(float, what) for _ in range(num)])
        if not np.isfinite(values).all():
            raise ValueError(f"{what} is not finite")
        return values
