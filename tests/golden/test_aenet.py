"""Descriptors and their derivatives against aenet's Fortran (see aenet_golden.md)."""

from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.geometry import complete_cell

from jaxvae_md.descriptors import Chebyshev, chebyshev
from jaxvae_md.neighbors import NeighborList, neighbor_list
from jaxvae_md.structure import Structure, pad
from tests import systems
from tests.asserts import assert_close

GOLDEN = dict(np.load(Path(__file__).with_name("aenet_golden.npz")))
CASES = [(str(s), str(S)) for s in GOLDEN["structures"] for S in GOLDEN["settings"]]


class Case(NamedTuple):
    structure: Structure
    descriptor: Chebyshev
    neighbors: dict[str, NeighborList]
    reference: dict[str, np.ndarray]


def structure_of(name: str) -> tuple[Structure, list[str]]:
    types = [str(t) for t in GOLDEN[f"{name}__types"]]
    symbols = GOLDEN[f"{name}__symbols"]
    structure = Structure(
        position=GOLDEN[f"{name}__positions"],
        cell=complete_cell(GOLDEN[f"{name}__cell"]),
        pbc=GOLDEN[f"{name}__pbc"],
        species=np.array([types.index(s) for s in symbols], np.int32),
        mask=np.ones(len(symbols), bool),
    )
    return structure, types


@lru_cache
def shapes(num_types: int, cutoff: float) -> tuple[int, int, int]:
    """Atoms, capacity and images that suffice for all structures of so many elements.

    Padded to these, nine programs serve all cases; compiling is what this file spends its time on.
    """
    found = []
    for name in map(str, GOLDEN["structures"]):
        structure, types = structure_of(name)
        if len(types) == num_types:
            neighbors = neighbor_list(cutoff).allocate(structure)
            found.append([*neighbors.index.shape, len(neighbors.images)])
    return tuple(np.max(found, axis=0))


@lru_cache
def updater(cutoff: float):
    return jax.jit(neighbor_list(cutoff).update)


@lru_cache
def case(name: str, setting: str) -> Case:
    structure, types = structure_of(name)
    radial_cutoff, radial_order, angular_cutoff, angular_order = GOLDEN[f"settings__{setting}"]
    descriptor = chebyshev(
        types, radial_cutoff, int(radial_order), angular_cutoff, int(angular_order)
    )
    num, *rest = shapes(len(types), descriptor.cutoff)
    structure = pad(structure, num)
    allocated = neighbor_list(descriptor.cutoff).allocate(structure)
    allocated = systems.reshaped(allocated, *rest)
    updated = updater(descriptor.cutoff)(structure, systems.forgotten(allocated))
    start = f"{name}__{setting}__"
    reference = {k.removeprefix(start): v for k, v in GOLDEN.items() if k.startswith(start)}
    return Case(structure, descriptor, {"allocate": allocated, "update": updated}, reference)


# without optimisation, for the same reason
@partial(jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
def pulled_back(descriptor, structure, neighbors, cotangents):
    """Descriptors, and the derivative of each cotangent's scalar by position and deformation."""

    def values(position, deformation):
        strained = structure._replace(
            position=position @ deformation, cell=structure.cell @ deformation
        )
        return descriptor(strained, neighbors)

    x, pull = jax.vjp(values, structure.position, jnp.eye(3))
    return x, *jax.vmap(pull)(cotangents)


@lru_cache
def computed(name: str, setting: str, source: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values; derivatives of the sum weighted by w, and of every column of the chosen atoms."""
    structure, descriptor, neighbors, reference = case(name, setting)
    real, (num, columns) = structure.mask, (len(structure.mask), descriptor.num_features)
    single = np.zeros((2, columns, num, columns))
    for q, atom in enumerate(GOLDEN[f"{name}__jac_atoms"]):
        single[q, np.arange(columns), atom, np.arange(columns)] = 1
    weights = np.zeros((1, num, columns))
    weights[0, real] = reference["w"]
    cotangents = np.concatenate([weights, single.reshape(-1, num, columns)])
    result = pulled_back(descriptor, structure, neighbors[source], cotangents)
    values, position, strain = jax.tree.map(np.asarray, result)
    assert (values[~real] == 0).all()
    assert (position[:, ~real] == 0).all()
    return values[real], position[:, real], strain


@pytest.mark.parametrize("source", ["allocate", "update"])
@pytest.mark.parametrize(("name", "setting"), CASES)
def test_values_and_gradients_equal_aenet(name, setting, source):
    reference = case(name, setting).reference
    values, position, strain = computed(name, setting, source)
    assert_close(values, reference["values"], 1e-12, np.abs(reference["values"]).max(axis=0))
    assert_close(position[0], reference["posgrad"], 1e-11)
    assert_close(strain[0], reference["straingrad"], 1e-11)
    assert_close(position[1:].reshape(reference["jac"].shape), reference["jac"], 1e-11)


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_number_of_neighbors_equals_aenet(name, setting):
    structure, _, neighbors, reference = case(name, setting)
    for source, built in neighbors.items():
        count = np.asarray(built.mask).sum(axis=1)
        np.testing.assert_array_equal(count[structure.mask], reference["nneigh"], source)
        assert not built.overflow


@pytest.mark.parametrize(("name", "setting"), [("si8", "C"), ("si32tri", "C"), ("sio2", "B")])
def test_derivatives_by_displacement_equal_aenet(name, setting):
    structure, descriptor, neighbors, reference = case(name, setting)
    built = neighbors["allocate"]
    values, derivative = map(np.asarray, jax.jit(descriptor.linearise)(structure, built))
    scale = np.abs(reference["values"]).max(axis=0)
    assert_close(values[structure.mask], reference["values"], 1e-12, scale)
    for q, atom in enumerate(GOLDEN[f"{name}__jac_atoms"]):
        mask = built.mask[atom]
        slots = {
            (int(built.index[atom, k]), *built.shift[atom, k].tolist()): k
            for k in np.nonzero(mask)[0]
        }
        keys = np.column_stack([reference[f"nb{q}_j"], reference[f"nb{q}_S"]]).tolist()
        order = [slots[tuple(key)] for key in keys]
        mine = derivative[atom][:, order].swapaxes(0, 1)
        assert_close(mine, reference[f"nb{q}_dcdD"], 1e-11)
        assert (derivative[atom][:, ~mask] == 0).all()


def test_atoms_without_neighbors_have_zero_rows():
    values, _, _ = computed("sicluster5", "C", "allocate")
    assert (values[4] == 0).all()
    assert (values[:4] != 0).any(axis=1).all()


def test_default_weights_are_those_of_aenet():
    for name in GOLDEN["structures"]:
        types = GOLDEN[f"{name}__types"]
        if len(types) > 1:
            weights = chebyshev(types, 4.0, 2, 4.0, 2).weights
            np.testing.assert_array_equal(weights, GOLDEN[f"{name}__typespin"])
