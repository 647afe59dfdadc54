"""Independent references in plain numpy: slow, obvious, and sharing no code with the package."""

from itertools import product

import numpy as np


def pairs(structure, cutoff: float) -> list[tuple[int, int, tuple[int, int, int], np.ndarray]]:
    """All (i, j, shift, vector) with |vector| < cutoff, by a loop over images."""
    x, cell = np.asarray(structure.position, float), np.asarray(structure.cell, float)
    fractional = x @ np.linalg.inv(cell)
    widths = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    spread = np.ptp(fractional, axis=0)
    reach = np.where(structure.pbc, np.ceil(cutoff / widths + spread), 0).astype(int)
    out = []
    for image in product(*(range(-n, n + 1) for n in reach)):
        vector = x[None, :] + np.array(image) @ cell - x[:, None]
        near = np.linalg.norm(vector, axis=-1) < cutoff
        if image == (0, 0, 0):
            np.fill_diagonal(near, False)
        out += [(int(i), int(j), image, vector[i, j]) for i, j in zip(*np.nonzero(near))]  # noqa: B905
    return out


def chebyshev(structure, setting, weights: list[float]) -> np.ndarray:
    """aenet's fingerprints by a sum over pairs and triples, with T_n(x) = cos(n arccos x).

    `setting` is (radial cutoff, radial order, angular cutoff, angular order); `weights` holds one
    number per species.
    """
    radial_cutoff, radial_order, angular_cutoff, angular_order = setting
    vectors = [[] for _ in structure.position]
    for i, j, _, vector in pairs(structure, max(radial_cutoff, angular_cutoff)):
        vectors[i].append((vector, weights[structure.species[j]]))

    def polynomials(x, order):
        return np.cos(np.arange(order + 1) * np.arccos(np.clip(x, -1, 1)))

    def switch(r, cutoff):
        return 0.5 * (np.cos(np.pi * r / cutoff) + 1) if r < cutoff else 0.0

    rows = []
    for environment in vectors:
        columns = []
        for weighted in (False, True)[: 1 if len(weights) == 1 else 2]:
            radial, angular = np.zeros(radial_order + 1), np.zeros(angular_order + 1)
            terms = []
            for v, w in environment:
                r, w = np.linalg.norm(v), w if weighted else 1.0
                argument = 2 * r / radial_cutoff - 1
                radial += w * switch(r, radial_cutoff) * polynomials(argument, radial_order)
                terms.append((v / r, w * switch(r, angular_cutoff)))
            for k, (u, f) in enumerate(terms):
                for v, g in terms[:k]:
                    if f * g != 0:
                        angular += f * g * polynomials(u @ v, angular_order)
            columns += [radial, angular]
        rows.append(np.concatenate(columns))
    return np.array(rows)
