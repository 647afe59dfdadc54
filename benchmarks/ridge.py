"""Ridge fits of energies and forces on descriptors, fast enough to be repeated by the hundred."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae_md.descriptors import Chebyshev, Standardizer
from jaxvae_md.generate.candidate import BATCH, whole_batches
from jaxvae_md.neighbors import NeighborList
from jaxvae_md.potentials import Potential, compose, lennard_jones
from jaxvae_md.potentials.potential import Atomic, energy_and_forces, potential
from jaxvae_md.structure import Structure, from_atoms

RIDGE = 1e-4
ATOMS = 24
"""of which padded sizes are multiples, since every shape is compiled"""


class Frame(NamedTuple):
    """What a fit needs of a frame."""

    x: np.ndarray
    derivative: np.ndarray
    """[n, f, k, 3], by the vectors to the neighbors"""
    neighbor: np.ndarray
    core: np.ndarray
    """energy per atom and forces of the repulsive core"""


class Ridge:
    """A model linear in descriptors and in products of their principal components.

    It is a potential of the package too: over a repulsive core, which keeps simulations stable.
    """

    def __init__(self, descriptor: Chebyshev, standardizer: Standardizer, nearest: float):
        self.descriptor, self.standardizer = descriptor, standardizer
        core = lennard_jones(descriptor.species, descriptor.cutoff, 0.75 * nearest, 0.05)
        self.core_params = core.init(jax.random.key(0))
        self.potential = compose(core=core, quadratic=quadratic(descriptor, standardizer))

        def prepare(structure, neighbors):
            energy, forces = energy_and_forces(core.energy, self.core_params, structure, neighbors)
            x, derivative = descriptor.linearise(structure, neighbors)
            return x, derivative, energy, forces

        self._prepare = jax.jit(lambda s, n: jax.lax.map(lambda frame: prepare(*frame), (s, n)))

    def frames(self, atoms: Sequence) -> list[Frame]:
        structures = [from_atoms(one, self.descriptor.species) for one in atoms]
        out: list[Any] = [None] * len(structures)
        for rows, structure, neighbors in chunks(structures, self.descriptor.cutoff):
            parts = [np.asarray(part) for part in self._prepare(structure, neighbors)]
            used = int(np.sum(neighbors.mask, axis=2).max())
            for slot, number in enumerate(rows):
                mask = structure.mask[slot]
                x, derivative, energy, forces = (part[slot] for part in parts)
                core = np.append(energy / mask.sum(), forces[mask].ravel())
                index = np.asarray(neighbors.index)[slot][mask]
                out[number] = Frame(x[mask], derivative[mask][:, :, :used], index[:, :used], core)
        return out

    def basis(self, frames: Sequence[Frame], num_products: int) -> np.ndarray:
        """Directions of which products are taken: principal components of a training set."""
        z = np.asarray(self.standardizer.apply(np.concatenate([one.x for one in frames])))
        _, size, axes = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)
        return axes[:num_products].T / (size[:num_products] / np.sqrt(len(z)))

    def matrix(self, frame: Frame, basis: np.ndarray) -> np.ndarray:
        """Rows: energy per atom, forces; columns: descriptors, products, one."""
        num, used = frame.neighbor.shape
        z = np.asarray(self.standardizer.apply(frame.x))
        by_vector = frame.derivative / np.asarray(self.standardizer.scale)[:, None, None]
        y = z @ basis
        of_y = np.einsum("nfkc,fp->npkc", by_vector, basis, optimize=True)
        # an atom is pulled by what its descriptor sees, and its neighbors the other way
        pulls = np.zeros((num, num * used))
        pulls[np.repeat(np.arange(num), used), np.arange(num * used)] = 1
        np.add.at(pulls, (frame.neighbor.ravel(), np.arange(num * used)), -1)
        forces = lambda each: (pulls @ np.moveaxis(each, 1, 3).reshape(num * used, -1)).reshape(
            3 * num, -1
        )
        i, j = np.triu_indices(basis.shape[1])
        columns = [forces(by_vector)]
        for first in range(basis.shape[1]):
            # with all others from itself on, a few at a time: all of them would be hundreds of MB
            of_products = (
                y[:, first, None, None, None] * of_y[:, first:]
                + y[:, first:, None, None] * of_y[:, first, None]
            )
            columns.append(forces(of_products))
        features = np.concatenate([z, y[:, i] * y[:, j]], axis=1)
        rows = np.concatenate([features.mean(axis=0)[None], np.concatenate(columns, axis=1)])
        return np.concatenate([rows, np.eye(len(rows), 1)], axis=1)

    def fit(self, frames: Sequence[Frame], labels: Sequence, num_products: int = 0) -> tuple:
        """(basis, coefficients); an energy per atom weighs as the root of its atoms."""
        basis = self.basis(frames, num_products)
        rows, values = [], []
        for frame, (energy, forces) in zip(frames, labels, strict=True):
            weight = np.ones(1 + forces.size)
            weight[0] = np.sqrt(len(forces))
            target = np.append(energy / len(forces), forces.ravel()) - frame.core
            rows.append(self.matrix(frame, basis) * weight[:, None])
            values.append(target * weight)
        a, b = np.concatenate(rows), np.concatenate(values)
        gram = a.T @ a
        scale = np.sqrt(np.diag(gram)) + 1e-9
        gram = gram / scale / scale[:, None] + RIDGE * np.eye(len(gram))
        return basis, np.linalg.solve(gram, a.T @ b / scale) / scale

    def force_rmse(self, model: tuple, frames: Sequence[Frame], labels: Sequence) -> float:
        basis, coefficients = model
        errors = [
            (self.matrix(frame, basis) @ coefficients + frame.core)[1:] - forces.ravel()
            for frame, (_, forces) in zip(frames, labels, strict=True)
        ]
        return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))

    def params(self, model: tuple) -> dict:
        """Of `potential`."""
        basis, coefficients = map(jnp.asarray, model)
        return {
            "core": self.core_params,
            "quadratic": {"basis": basis, "coefficients": coefficients},
        }


def quadratic(descriptor: Chebyshev, standardizer: Standardizer) -> Potential:
    """Parameters: {"basis" [f, p], "coefficients"}, of as many products as there are."""

    def atomic(params, x, of_species):
        z = standardizer.apply(x)
        y = z @ params["basis"]
        i, j = np.triu_indices(params["basis"].shape[1])
        features = jnp.concatenate([z, y[:, i] * y[:, j]], axis=1)
        return features @ params["coefficients"][:-1] + params["coefficients"][-1]

    def energy(params, structure, neighbors):
        return descriptor.total(atomic, params, structure, neighbors)

    num = descriptor.num_features
    init = lambda key: {"basis": jnp.zeros((num, 0)), "coefficients": jnp.zeros(num + 1)}
    return potential(
        descriptor.species, descriptor.cutoff, init, energy, atomic=Atomic(descriptor, atomic)
    )


def chunks(
    structures: Sequence[Structure], cutoff: float
) -> Iterator[tuple[range, Structure, NeighborList]]:
    """Batches of few shapes, and which structures they hold."""
    largest = max(len(one.position) for one in structures)
    for first, *batch in whole_batches(structures, cutoff, -ATOMS * (-largest // ATOMS)):
        yield range(first, min(first + BATCH, len(structures))), *batch
