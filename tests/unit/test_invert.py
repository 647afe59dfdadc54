"""Atoms of a cell from their descriptors."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import errors
from jaxvae_md.descriptors import Standardizer, chebyshev, fit_standardizer
from jaxvae_md.errors import GeometryError, InputError, OptionError, SpeciesError
from jaxvae_md.generate.invert import invert
from jaxvae_md.generate.jacobian import jacobian
from jaxvae_md.generate.levenberg import solve
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.structure import pad, stack
from tests import systems
from tests.asserts import assert_close

module = importlib.import_module("jaxvae_md.generate.invert")

DESCRIPTOR = chebyshev(("Si",), 4.0, 6, 4.0, 6)
FEW = {"num_steps": 40, "num_restarts": 1}


def described(structure, descriptor=DESCRIPTOR):
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure)
    return np.asarray(descriptor(structure, neighbors))


X = np.concatenate([described(systems.si8(rattle)) for rattle in (0.05, 0.1, 0.2)])
SCALE = fit_standardizer(X)


def moved(structure, noise: float, seed: int = 1):
    """Without a common translation, which descriptors do not see."""
    step = noise * np.random.default_rng(seed).normal(size=structure.position.shape)
    step = np.where(structure.mask[:, None], step, 0)
    step = np.where(structure.mask[:, None], step - step.sum(0) / structure.mask.sum(), 0)
    return structure._replace(position=structure.position + step)


def request(structure):
    return np.asarray(SCALE.apply(described(structure)))


PADDED = pad(systems.si8(), 11)
CELLS = {
    "images": (systems.si8(), chebyshev(("Si",), 4.0, 6, 4.5, 5)),
    "two species": (systems.sio2(), chebyshev(("O", "Si"), 4.5, 5, 4.0, 6)),
    "surface": (systems.slab(), chebyshev(("Si",), 4.0, 3, 4.0, 1)),
    "cluster": (systems.cluster(), chebyshev(("Si",), 5.0, 0, 5.0, 0)),
    "padding": (PADDED, DESCRIPTOR),
    "chunks": (systems.repeated(systems.si8(), (3, 1, 1)), DESCRIPTOR),
}


@pytest.mark.parametrize(("structure", "descriptor"), CELLS.values(), ids=CELLS)
def test_jacobian_is_the_derivative(structure, descriptor):
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure)
    value = jax.jit(lambda position: descriptor(structure._replace(position=position), neighbors))
    x, slope = jax.jit(jacobian, static_argnums=0)(descriptor, structure, neighbors)
    assert_close(x, value(structure.position), 1e-12)
    exact = np.swapaxes(jax.jit(jax.jacrev(value))(structure.position), -1, -2)
    assert_close(slope, exact, 1e-11)
    direction = np.random.default_rng(0).normal(size=structure.position.shape)
    direction[~structure.mask] = 0
    up, down = (value(structure.position + h * direction) for h in (1e-5, -1e-5))
    along = np.einsum("ifdj,jd->if", slope, direction)
    assert_close(along, (up - down) / 2e-5, 1e-7, scale=np.abs(along).max())


def test_a_rattled_cell_is_found_exactly():
    cell = systems.si8(rattle=0.15)
    start = moved(cell, 0.2)
    result = invert(DESCRIPTOR, request(cell), start, SCALE, **FEW)
    assert result.error == 0 and result.residual < 1e-12
    np.testing.assert_allclose(result.structure.position, cell.position, atol=1e-6)
    np.testing.assert_array_equal(result.structure.cell, cell.cell)
    assert 0 < result.num_steps < 60 and result.attempt == 0
    # told by what the package computes itself
    again = np.asarray(SCALE.apply(described(result.structure)))
    assert np.mean((again - request(cell)) ** 2) < 1e-12


def test_a_batch_is_its_cells_one_by_one_and_pads_what_is_smaller():
    one = systems.si8(rattle=0.15)
    # with two atoms less, in the same cell
    other = systems.make(one.position[:6], one.cell)
    cells = stack([one, other])
    starts = stack([moved(one, 0.2), moved(other, 0.1)])
    targets = np.stack([request(one), pad_rows(request(other), 8)])
    # of padding nothing is asked
    targets[1, 6:] = np.nan
    batch = invert(DESCRIPTOR, targets, starts, SCALE, **FEW)
    assert batch.residual.shape == batch.error.shape == batch.num_steps.shape == (2,)
    assert not batch.error.any()
    assert np.abs(batch.structure.position - cells.position).max() < 1e-6
    alone = invert(DESCRIPTOR, targets[0], moved(one, 0.2), SCALE, **FEW)
    assert_close(alone.structure.position, batch.structure.position[0], 1e-12)
    assert alone.num_steps == batch.num_steps[0]


def pad_rows(x, num: int):
    return np.concatenate([x, np.zeros((num - len(x), x.shape[1]))])


def test_a_second_call_does_not_compile():
    cell = systems.si8(rattle=0.15)
    invert(DESCRIPTOR, request(cell), moved(cell, 0.2), SCALE, **FEW)
    before = solve._cache_size()
    for seed in (2, 3):
        start = moved(cell, 0.2, seed)
        key = jax.random.key(seed)
        invert(DESCRIPTOR, request(cell), start, SCALE, key=key, **FEW)
    assert solve._cache_size() == before


def test_atoms_at_the_same_place_begin_again():
    cell = systems.si8(rattle=0.15)
    start = moved(cell, 0.05)
    start.position[1] = start.position[0]
    result = invert(DESCRIPTOR, request(cell), start, SCALE, num_steps=40, num_restarts=0)
    assert result.error & errors.NOT_FINITE and result.error & errors.NOT_CONVERGED
    with pytest.raises(errors.RunError, match="not finite"):
        errors.check(result.error)
    start = moved(cell, 0.05)
    start.position[1] = start.position[0] = 0.5 * (start.position[0] + start.position[1])
    result = invert(DESCRIPTOR, request(cell), start, SCALE, num_steps=40, num_restarts=3)
    assert result.attempt > 0 or result.error & errors.NOT_CONVERGED
    assert np.isfinite(result.residual)
    shift = result.structure.position - start.position
    assert np.abs(shift.mean(axis=0)).max() < 1e-12


def test_a_target_that_no_cell_has_is_said_not_to_converge():
    cell = systems.si8(rattle=0.15)
    result = invert(DESCRIPTOR, request(cell) + 3.0, moved(cell, 0.1), SCALE, **FEW)
    assert result.error == errors.NOT_CONVERGED
    assert np.isfinite(result.structure.position).all() and result.residual > 1e-3


def test_a_list_that_becomes_too_small_is_allocated_again(monkeypatch):
    cell = systems.si8(rattle=0.15)
    lists = []

    def overflows_once(descriptor, options, target, start, neighbors, *rest):
        lists.append(neighbors.index.shape[1])
        if len(lists) == 1:
            neighbors = neighbors._replace(overflow=np.array(True))
        return solve(descriptor, options, target, start, neighbors, *rest)

    monkeypatch.setattr(module, "solve", overflows_once)
    result = invert(DESCRIPTOR, request(cell), moved(cell, 0.2), SCALE, **FEW)
    assert len(lists) == 2 and lists[1] > lists[0]
    assert result.error == 0
    # and said where that does not help
    lists.clear()
    always = lambda *a: solve(*a[:4], a[4]._replace(overflow=np.array(True)), *a[5:])
    monkeypatch.setattr(module, "solve", always)
    monkeypatch.setattr(module, "_MAX_ALLOCATIONS", 1)
    result = invert(DESCRIPTOR, request(cell), moved(cell, 0.2), SCALE, **FEW)
    assert result.error & errors.NEIGHBOR_OVERFLOW and result.num_steps == 0


def test_bad_input_is_a_typed_error():
    cell = systems.si8()
    target = request(cell)

    def refused(error, match, target=target, start=cell, scale=SCALE, **options):
        with pytest.raises(error, match=match):
            invert(DESCRIPTOR, target, start, scale, **options)

    refused(InputError, "8 atoms and 14 columns", target=target[:, :-1])
    refused(InputError, "8 atoms and 14 columns", target=target[:-1])
    refused(InputError, "positions of shape", start=stack([cell, cell, cell]))
    none = jax.tree.map(lambda leaf: leaf[:0], stack([cell]))
    refused(InputError, "positions of shape", start=none, target=target[None, :0])
    bad = target.copy()
    bad[3, 2] = np.nan
    refused(InputError, "atom 3: the target is not finite", target=bad)
    both = {"target": np.stack([target, bad]), "start": stack([cell, cell])}
    refused(InputError, "frame 1, atom 3: the target", **both)
    other = cell._replace(species=np.array([0, 0, 1, 0, 0, 0, 0, 0], np.int32))
    refused(SpeciesError, "atom 2: species 1", start=other)
    flat = cell._replace(cell=np.diag([5.43, 5.43, 0.0]))
    refused(GeometryError, "singular", start=flat)
    lost = moved(cell, 0.0)
    lost.position[5] = np.inf
    refused(GeometryError, "atom 5: the position", start=lost)
    small = cell._replace(cell=0.1 * cell.cell, position=0.1 * cell.position)
    refused(GeometryError, "too small", start=small)
    nobody = cell._replace(mask=np.zeros(8, bool))
    refused(GeometryError, "no atoms", start=nobody)
    refused(InputError, "columns", scale=Standardizer(SCALE.mean[1:], SCALE.scale[1:]))
    refused(InputError, "not positive", scale=SCALE._replace(scale=0 * SCALE.scale))
    refused(OptionError, "num_steps is 0", num_steps=0)
    refused(OptionError, "num_restarts is 1.5", num_restarts=1.5)
    refused(OptionError, "noise is nan", noise=np.nan)
    refused(OptionError, "tolerance is -1", tolerance=-1.0)


def test_restarts_are_reproducible_and_depend_on_the_key():
    cell = systems.si8(rattle=0.15)
    target, start = request(cell) + 1.0, moved(cell, 0.1)
    options = {"num_steps": 4, "num_restarts": 1}
    keys = [jax.random.key(seed) for seed in (0, 0, 1)]
    found = [invert(DESCRIPTOR, target, start, SCALE, key=key, **options) for key in keys]
    np.testing.assert_array_equal(found[0].structure.position, found[1].structure.position)
    assert jnp.all(jnp.asarray([one.num_steps for one in found]) > 4)
