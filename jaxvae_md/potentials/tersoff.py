"""The Tersoff bond-order potential of several elements, and the files of its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxvae_md.cutoffs import cosine
from jaxvae_md.errors import FileError, OptionError, SpeciesError
from jaxvae_md.neighbors import FAR, by_fewest_slots, displacements, neighbor_species
from jaxvae_md.potentials.potential import (
    Potential,
    chosen_by_species,
    potential,
    sum_over_atoms,
)
from jaxvae_md.structure import checked_species

Entries = Mapping[tuple[str, str, str], Mapping[str, float]]
"""The parameters of a bond from the first element to the second beside the third, by the names
of LAMMPS: A and B in eV, lambda1, lambda2 and lambda3 in 1 / angstrom, R and D in angstrom; gamma,
c, d, cos_theta, n, beta and m (1 or 3) are dimensionless."""

_COLUMNS = (
    *("m", "gamma", "lambda3", "c", "d", "cos_theta"),
    *("n", "beta", "lambda2", "B", "R", "D", "lambda1", "A"),
)
_OF_PAIRS = ("A", "B", "lambda1", "lambda2", "n", "beta")
_OF_TRIPLES = ("gamma", "lambda3", "c", "d", "cos_theta", "R", "D")

_LARGEST_EXPONENT = 69.0776
"""exp of it is 1e30; the same bound as LAMMPS's"""


def _entries(elements, pairs) -> Entries:
    """For all triples, from what each element decides, and each pair."""
    return {
        (i, j, k): {"m": 3.0, "gamma": 1.0, "lambda3": 0.0}
        | elements[i]
        | pairs["".join(sorted((i, j)))]
        | {name: pairs["".join(sorted((i, k)))][name] for name in ("R", "D")}
        for i, j, k in product(elements, repeat=3)
    }


def _pair(A, B, lambda1, lambda2, R, D):
    return {"A": A, "B": B, "lambda1": lambda1, "lambda2": lambda2, "R": R, "D": D}


MUNETOH = _entries(
    {
        "Si": {"c": 1.0039e5, "d": 16.217, "cos_theta": -0.59825, "n": 0.78734, "beta": 1.1e-6},
        "O": {
            "c": 6.46921e4,
            "d": 4.11127,
            "cos_theta": -0.845922,
            "n": 1.04968,
            "beta": 1.1632e-7,
        },
    },
    {
        "SiSi": _pair(1830.8, 471.18, 2.4799, 1.73222, 2.65, 0.15),
        "OSi": _pair(1856.495, 378.690, 3.32549, 2.04456, 2.215, 0.155),
        "OO": _pair(1882.55, 218.787, 4.17108, 2.35692, 1.85, 0.15),
    },
)
"""Silicon and oxygen. Source: Munetoh, Motooka, Moriguchi and Shintani, Comput. Mater. Sci. 39,
334 (2007), table 1; the pair of both elements mixed by the rules there (equations 6 to 9, chi
1.17945) and rounded as LAMMPS distributes it."""


def tersoff(species: Sequence[str], entries: Entries = MUNETOH) -> Potential:
    """The Tersoff potential; by default of Si and O.

        E    = 1/2 sum_i sum_j fC(r_ij) [A exp(-lambda1 r_ij) - b_ij B exp(-lambda2 r_ij)]
        b_ij = (1 + (beta zeta_ij)^n)^(-1 / 2n)
        zeta_ij = sum_k fC(r_ik) g(theta_ijk) exp((lambda3 (r_ij - r_ik))^m)
        g    = gamma (1 + c^2 / d^2 - c^2 / (d^2 + (cos_theta - cos theta_ijk)^2))
        fC   = 1 below R - D, 1/2 - 1/2 sin(pi / 2 (r - R) / D) up to R + D, 0 beyond

    Parameters are tables by the elements: A, B, lambda1, lambda2, n and beta `[s, s]` of the bond;
    gamma, c, d and cos_theta `[s]` of the atom, and R and D `[s, s]` of the distance, where
    `entries` have them so, and else, as lambda3, `[s, s, s]`. lambda3 is none where it is zero
    throughout. All are differentiable; m stays. The neighbor list reaches to the largest R + D of
    `entries` and does not move with them: give it a skin when they are fitted.

    **Raises:** `SpeciesError` where `entries` do not cover the species, `OptionError` for values
    that make no potential. **Source:** Tersoff, Phys. Rev. B 39, 5566 (1989); the form with m and
    gamma as in LAMMPS, pair_style tersoff.

    ```python
    silica = tersoff(("Si", "O"))
    neighbors = neighbor_list(silica.cutoff).allocate(structure)
    energy = silica.energy(silica.init(jax.random.key(0)), structure, neighbors)
    ```
    """
    species = checked_species(species)
    tables = _tables(species, entries)
    cutoff = float(np.max(tables["R"] + tables["D"]))
    cubic = jnp.asarray(tables.pop("m") == 3)
    bent = bool(np.any(tables["lambda3"]))
    if not bent:
        del tables["lambda3"]

    def init(key):
        del key
        return {name: jnp.asarray(table, float) for name, table in tables.items()}

    def energy(params, structure, neighbors):
        of = lambda neighbors: of_bonds(params, structure, neighbors)
        return by_fewest_slots(of, neighbors, _within_reach(params, structure, neighbors))

    def of_bonds(params, structure, neighbors):
        # atoms last: what is computed are rows of all of them
        vector = displacements(structure, neighbors).T
        r = jnp.sqrt(jnp.sum(vector**2, axis=0))
        direction = vector / r
        own, other = jnp.asarray(structure.species), neighbor_species(structure, neighbors).T
        of = {name: _by_species(params[name], own, other) for name in params}

        if params["R"].ndim == 3:
            reach = (_by_species(_diagonal(params[name]), own, other) for name in ("R", "D"))
        else:
            reach = of["R"], of["D"]
        fade = _fade(r, *reach)
        # [bond, third atom, atom]
        fade_of_third = _fade(r, of["R"], of["D"]) if params["R"].ndim == 3 else fade
        cos_theta = jnp.einsum("cjn,ckn->jkn", direction, direction)
        square = of["d"] ** 2
        angle = 1 / square - 1 / (square + (of["cos_theta"] - cos_theta) ** 2)
        weight = fade_of_third * of["gamma"] * (1 + of["c"] ** 2 * angle)
        if bent:
            x = of["lambda3"] * (r[:, None] - r)
            exponent = jnp.where(_by_species(cubic, own, other), x**3, x)
            weight = weight * jnp.exp(jnp.minimum(exponent, _LARGEST_EXPONENT))
        others = ~jnp.eye(len(r), dtype=bool)[..., None]
        zeta = jnp.sum(jnp.where(others, weight, 0), axis=1)

        repulsion = of["A"] * jnp.exp(-of["lambda1"] * r)
        attraction = of["B"] * jnp.exp(-of["lambda2"] * r)
        order = _bond_order(of["beta"] * zeta, of["n"])
        bond = fade * (repulsion - order * attraction)
        return sum_over_atoms(0.5 * jnp.sum(bond, axis=0), structure)

    def project(params):
        smallest = {"beta": 0.0, "n": 1e-3, "d": 1e-6, "D": 1e-3}
        return {name: jnp.maximum(x, smallest.get(name, -np.inf)) for name, x in params.items()}

    return potential(species, cutoff, init, energy, project=project)


def read_tersoff(path: str | Path) -> Entries:
    """The entries of a LAMMPS file for pair_style tersoff, all elements that it has.

    **Raises:** `FileError`, which names the line, for a file that is none, and for three elements
    that come twice.

    ```python
    silica = tersoff(("Si", "O"), read_tersoff("SiO.tersoff"))
    ```
    """
    remedy = "give a file for LAMMPS's pair_style tersoff: 3 elements and 14 numbers an entry"
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise FileError(f"cannot be read ({error.strerror})", file=path, remedy=remedy) from None
    words = [
        (number, word)
        for number, line in enumerate(lines, 1)
        for word in line.split("#")[0].split()
    ]
    entries, size = {}, 3 + len(_COLUMNS)
    for start in range(0, len(words), size):
        line = words[start][0]
        elements, values = (
            [word for _, word in words[start + a : start + b]] for a, b in ((0, 3), (3, size))
        )
        try:
            numbers = [float(value) for value in values]
            if len(numbers) < len(_COLUMNS):
                raise ValueError(f"{len(elements) + len(numbers)} words of {size}")
            if any(element.replace(".", "").lstrip("+-").isdigit() for element in elements):
                raise ValueError(f"{' '.join(elements)} are not three elements")
            if tuple(elements) in entries:
                raise ValueError(f"{' '.join(elements)} come twice")
        except ValueError as error:
            raise FileError(
                f"line {line}: no entry of three elements: {error}", file=path, remedy=remedy
            ) from None
        entries[tuple(elements)] = dict(zip(_COLUMNS, numbers, strict=True))
    if not entries:
        raise FileError("holds no entry", file=path, remedy=remedy)
    return entries


def _tables(species, entries: Entries) -> dict[str, np.ndarray]:
    """By as few elements as the entries need; m is `[s, s, s]`."""
    triples = list(product(species, repeat=3))
    missing = [" ".join(triple) for triple in triples if triple not in entries]
    if missing:
        raise SpeciesError(
            f"the parameters have no entry for {missing[0]}",
            remedy=f"give a table that covers {', '.join(species)}",
        )
    shape = (len(species),) * 3
    tables = {
        name: np.array([entries[triple][name] for triple in triples], float).reshape(shape)
        for name in _COLUMNS
    }
    for name, table in tables.items():
        if not np.isfinite(table).all():
            raise OptionError(f"{name} is not finite", remedy="give numbers")
    tables |= {name: _diagonal(tables[name]) for name in _OF_PAIRS}
    checks = (
        (np.isin(tables["m"], (1, 3)).all(), "m", "1 or 3"),
        ((tables["D"] > 0).all(), "D", "positive lengths"),
        ((tables["R"] >= tables["D"]).all(), "R", "lengths of D or more"),
        ((tables["R"] + tables["D"] < FAR / 2).all(), "R", "lengths in angstrom"),
        ((tables["n"] > 0).all(), "n", "positive numbers for every bond"),
        ((tables["d"] != 0).all(), "d", "numbers that are not 0"),
        ((tables["beta"] >= 0).all(), "beta", "numbers that are 0 or more"),
    )
    for right, name, wanted in checks:
        if not right:
            raise OptionError(f"{name} is {tables[name].tolist()}", remedy=f"give {wanted}")
    for name in ("gamma", "c", "d", "cos_theta", "R", "D"):
        table = tables[name]
        simple = table[:, :1] if name in "RD" else table[:, :1, :1]
        if np.all(table == simple):
            tables[name] = simple[:, 0] if name in "RD" else simple[:, 0, 0]
    if tables["R"].ndim != tables["D"].ndim:
        raise OptionError(
            "R and D depend on different elements", remedy="let both be those of a distance"
        )
    return tables


def _within_reach(params, structure, neighbors):
    """Which neighbors `[n, k]` fC does not let vanish."""
    square = jnp.sum(displacements(structure, neighbors) ** 2, axis=-1)
    reach = params["R"] + params["D"]
    reach = _diagonal(reach) if reach.ndim == 3 else reach
    reach = _by_species(reach, structure.species, neighbor_species(structure, neighbors).T).T
    # what is not a number counts, and shows
    return ~(square >= reach**2)


def _diagonal(table):
    """That of (i, j, j)."""
    number = np.arange(len(table))
    return table[:, number, number]


def _by_species(table, own, other):
    """The entries of a table `[s]` as `[n]`, `[s, s]` as `[k, n]`, `[s, s, s]` as `[j, k, n]`.

    By choices, which are faster than lookups; one number where there is one element.
    """
    num = len(table)
    if num == 1:
        return table.reshape(())
    rows = table[own]
    if table.ndim == 1:
        return rows
    at_third = lambda b: rows[:, b] if table.ndim == 2 else chosen_by_species(other, rows[:, b].T)
    parts = [at_third(b) for b in range(num)]
    if table.ndim == 3:
        parts, other = [part[None] for part in parts], other[:, None]
    return chosen_by_species(other, parts)


def _fade(r, middle, half_width):
    """fC: 1/2 - 1/2 sin(x) is the square of cos((x + pi / 2) / 2)."""
    return cosine(jnp.maximum(r - (middle - half_width), 0), 2 * half_width)


def _bond_order(x, n):
    """(1 + x^n)^(-1 / 2n), which is 1 to rounding, and taken as flat, where x^n is below 1e-16."""
    tiny = x <= (2e-16 * n) ** (1 / n)
    power = jnp.exp(n * jnp.log(jnp.where(tiny, 1.0, x)))
    return jnp.where(tiny, 1.0, jnp.exp(-jnp.log1p(power) / (2 * n)))
