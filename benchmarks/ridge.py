"""Ridge fits of energies and forces on descriptors, fast enough to be repeated by the hundred."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae_md.batching import batches
from jaxvae_md.descriptors import Chebyshev, Standardizer
from jaxvae_md.potentials import atomic_energy, chebyshev_nn, compose, lennard_jones
from jaxvae_md.potentials.potential import energy_and_forces
from jaxvae_md.structure import from_atoms

RIDGE = 1e-4
AT_A_TIME = 16


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

    Without products it is a potential of the package too: over a repulsive core, which keeps
    simulations stable.
    """

    def __init__(self, descriptor: Chebyshev, standardizer: Standardizer, nearest: float):
        self.descriptor, self.standardizer = descriptor, standardizer
        core = lennard_jones(descriptor.species, descriptor.cutoff, 0.75 * nearest, 0.05)
        network = chebyshev_nn(descriptor, standardizer, hidden=())
        reference = atomic_energy(descriptor.species)
        self.potential = compose(reference=reference, core=core, network=network)
        self.start = self.potential.init(jax.random.key(0))

        def prepare(structure, neighbors):
            energy, forces = energy_and_forces(
                core.energy, self.start["core"], structure, neighbors
            )
            x, derivative = descriptor.linearise(structure, neighbors)
            return x, derivative.astype(np.float32), energy, forces

        self._prepare = jax.jit(lambda s, n: jax.lax.map(lambda frame: prepare(*frame), (s, n)))

    def frames(self, atoms: Sequence) -> list[Frame]:
        structures = [from_atoms(one, self.descriptor.species) for one in atoms]
        out: list[Any] = [None] * len(structures)
        for batch in batches(structures, self.descriptor.cutoff):
            for first in range(0, len(batch.frame), AT_A_TIME):
                rows = np.resize(
                    np.arange(first, min(first + AT_A_TIME, len(batch.frame))), AT_A_TIME
                )
                some = jax.tree.map(lambda leaf, rows=rows: leaf[rows], batch[:2])
                found = [np.asarray(part) for part in self._prepare(*some)]
                for slot, number in enumerate(batch.frame[rows]):
                    mask = some[0].mask[slot]
                    x, derivative, energy, forces = (part[slot] for part in found)
                    core = np.append(energy / mask.sum(), forces[mask].ravel())
                    index = np.asarray(some[1].index)[slot][mask]
                    out[number] = Frame(x[mask], derivative[mask], index, core)
        return out

    def basis(self, frames: Sequence[Frame], num_products: int) -> np.ndarray:
        """Directions of which products are taken: principal components of a training set."""
        z = np.asarray(self.standardizer.apply(np.concatenate([one.x for one in frames])))
        _, size, axes = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)
        return axes[:num_products].T / (size[:num_products] / np.sqrt(len(z)))

    def matrix(self, frame: Frame, basis: np.ndarray) -> np.ndarray:
        """Rows: energy per atom, forces; columns: descriptors, products, one."""
        z = np.asarray(self.standardizer.apply(frame.x))
        by_vector = frame.derivative / np.asarray(self.standardizer.scale)[:, None, None]
        y = z @ basis
        of_y = np.einsum("nfkc,fp->npkc", by_vector, basis)
        i, j = np.triu_indices(basis.shape[1])
        products = y[:, i] * y[:, j]
        of_products = y[:, i, None, None] * of_y[:, j] + y[:, j, None, None] * of_y[:, i]
        features = np.concatenate([z, products], axis=1)
        each = np.moveaxis(np.concatenate([by_vector, of_products], axis=1), 1, 3)
        forces = each.sum(axis=1)
        np.add.at(forces, frame.neighbor, -each)
        rows = np.concatenate([features.mean(axis=0)[None], forces.reshape(3 * len(z), -1)])
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
        """Of `potential`, of a model without products."""
        basis, coefficients = model
        assert not basis.size
        (symbol,) = self.descriptor.species
        network = jax.tree.map(jnp.zeros_like, self.start["network"][symbol])
        network["linear"]["kernel"] = jnp.asarray(coefficients[:-1, None], jnp.float32)
        reference = {"energy": jnp.asarray(coefficients[-1:])}
        return {**self.start, "network": {symbol: network}, "reference": reference}
