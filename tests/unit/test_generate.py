"""Structures for what the data lack: moves, guard, routes, and one function before them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import coverage, errors, generate
from jaxvae_md.descriptors import chebyshev
from jaxvae_md.errors import InputError, OptionError, SpeciesError
from jaxvae_md.generate import moves
from jaxvae_md.generate.candidate import (
    ENERGY_TOO_HIGH,
    KNOWN,
    REQUEST_MISSED,
    TOO_FAR,
    Candidate,
    closest_pair,
)
from jaxvae_md.generate.decode import Targets, realise_all, requests
from jaxvae_md.neighbors import displacements, neighbor_list
from jaxvae_md.potentials import lennard_jones, stillinger_weber
from jaxvae_md.structure import Structure, to_atoms
from jaxvae_md.vae import train, vae
from tests import systems
from tests.asserts import assert_close

NEAREST = 2.35
MIX, BAND = {"explore": 0.75, "decode": 0.25}, (1.5, 30.0)
"""a cell of eight atoms is far from the data with one change"""


@pytest.fixture(scope="module")
def setting() -> generate.Setting:
    """Crystals of eight atoms, Stillinger-Weber as the current potential, and a small VAE."""
    descriptor = chebyshev(systems.SI, 4.5, 4, 4.5, 4)
    training = [
        systems.si8(rattle=0.0)._replace(position=systems.si8(0.0).position + noise)
        for noise in np.random.default_rng(0).normal(0, 0.08, (8, 8, 3))
    ]
    frames = [to_atoms(structure, systems.SI) for structure in training]
    potential = stillinger_weber()
    params = potential.init(jax.random.key(0))
    made = generate.setting(frames, descriptor, potential, params, NEAREST, 600.0)
    model = vae(descriptor.num_features, 3, hidden=(16,))
    model_params, _ = train(
        model, made.x_train, key=jax.random.key(0), num_steps=800, x_test=made.x_train
    )
    return made._replace(
        guard=made.guard._replace(ceiling=made.guard.ceiling + 0.5),
        model=model,
        model_params=model_params,
    )


def bonds(structure: Structure, place: int = 0) -> np.ndarray:
    """Distances from an atom to its nearest images, in order."""
    neighbors = neighbor_list(4.0).allocate(structure)
    vector = np.asarray(displacements(structure, neighbors))[place]
    return np.sort(np.linalg.norm(vector, axis=-1))


def crystal() -> Structure:
    return systems.repeated(systems.si8(rattle=0.0), (2, 2, 2))


@pytest.mark.parametrize("seed", range(4))
def test_removing_takes_one_to_four_atoms_that_are_neighbors(seed):
    whole = crystal()
    left = moves.remove(whole, NEAREST, np.random.default_rng(seed))
    kept = {tuple(row) for row in np.round(left.position, 6)}
    gone = np.array([row for row in whole.position if tuple(np.round(row, 6)) not in kept])
    assert 1 <= len(gone) <= 4
    assert len(left.position) == len(left.species) == len(left.mask) == 64 - len(gone)
    hole = whole._replace(
        position=gone, species=np.zeros(len(gone), np.int32), mask=np.ones(len(gone), bool)
    )
    # each lies within two bonds of the first
    assert (moves._distances_from(hole, gone[0]) < 2 * NEAREST).all()


def test_inserting_adds_an_atom_where_there_is_room():
    more = moves.insert(crystal(), NEAREST, np.random.default_rng(0))
    assert len(more.position) == 65
    assert bonds(more, 64)[0] > 0.75 * NEAREST


def test_rotating_keeps_a_bond_and_turns_it_by_a_right_angle():
    whole = crystal()
    turned = moves.rotate(whole, NEAREST, np.random.default_rng(0))
    moved = np.nonzero(np.abs(turned.position - whole.position).max(axis=1) > 1e-9)[0]
    assert len(moved) == 2
    side = np.diag(whole.cell)
    bond = lambda s: (v := s.position[moved[1]] - s.position[moved[0]]) - side * np.round(v / side)
    assert_close(np.linalg.norm(bond(turned)), np.linalg.norm(bond(whole)), 1e-9)
    assert abs(bond(turned) @ bond(whole)) < 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_cleaving_makes_room_and_breaks_no_more_than_a_plane(seed):
    whole = crystal()
    rng = np.random.default_rng(seed)
    cut = moves.cleave(whole, NEAREST, rng)
    longer = np.linalg.norm(cut.cell, axis=1) - np.linalg.norm(whole.cell, axis=1)
    (axis,) = np.nonzero(longer > 1e-9)[0]
    assert NEAREST <= longer[axis] <= 3 * NEAREST
    assert closest_pair(cut, generate.Guard(np.full((1, 1), NEAREST - 0.01), 0.0, 0.0)) >= 1
    # no atom has crossed: distances across the gap grew, all others are as they were
    assert min(len(bonds(cut, i)[bonds(cut, i) < 2.4]) for i in range(64)) >= 1


@pytest.mark.parametrize("kind", moves.KINDS)
@pytest.mark.parametrize("make", [systems.cluster, systems.slab])
def test_moves_keep_what_is_not_periodic_together(make, kind):
    whole = make()
    for seed in range(5):
        moved = moves.KINDS[kind](whole, NEAREST, np.random.default_rng(seed))
        assert np.isfinite(moved.position).all()
        open_ = ~whole.pbc
        assert np.ptp(moved.position, axis=0)[open_].max() < 9
        assert_close(moved.cell[open_], whole.cell[open_], 1e-12)
        assert (moved.pbc == whole.pbc).all()


def test_a_guard_knows_the_shortest_pair_and_the_range_of_the_energy():
    whole = systems.si8(rattle=0.0)
    hot = systems.si8(rattle=0.1)
    potential = stillinger_weber()
    params = potential.init(jax.random.key(0))
    guard = generate.fit_guard([whole, whole], potential, params, NEAREST)
    assert_close(guard.min_distance[0, 0], 0.95 * 5.43 * 3**0.5 / 4, 1e-9)
    assert_close(closest_pair(whole, guard), 1 / 0.95, 1e-9)
    of = neighbor_list(potential.cutoff)
    low, high = (float(potential.energy(params, s, of.allocate(s))) / 8 for s in (whole, hot))
    assert_close([guard.floor, guard.ceiling], [low - 0.05, low + 0.05], 1e-9)
    both = generate.fit_guard([whole, hot], potential, params, NEAREST)
    more = 0.5 * (high - low) + 0.05
    assert_close([both.floor, both.ceiling], [low - more, high + more], 1e-9)


def test_pairs_that_the_data_never_show_are_limited_by_their_radii():
    potential = lennard_jones(("O", "Si"), 6.0, 2.0, 0.1)
    silicon = systems.si8(0.0)._replace(species=np.ones(8, np.int32))
    guard = generate.fit_guard([silicon], potential, potential.init(jax.random.key(0)), NEAREST)
    assert_close(guard.min_distance, guard.min_distance.T, 1e-12)
    assert_close(guard.min_distance[0, 1], 0.7 * (0.66 + 1.11), 1e-9)


def test_soft_novelty_is_near_the_novelty_and_has_its_gradient(setting):
    z = jnp.asarray(np.random.default_rng(1).normal(0, 2, setting.descriptor.num_features))
    plain = float(coverage.novelty(setting.known, z[None])[0])
    soft = generate.soft_novelty(setting.known, z)
    assert plain <= float(soft) <= plain + 0.1
    slope = np.asarray(jax.grad(generate.soft_novelty, argnums=1)(setting.known, z))
    nearest = np.asarray(setting.known.reference)
    away = np.asarray(z) - nearest[np.argmin(np.sum((nearest - np.asarray(z)) ** 2, axis=1))]
    assert slope @ away / np.linalg.norm(slope) / np.linalg.norm(away) > 0.95


def test_a_quench_lowers_the_energy_and_every_structure_keeps_its_size(setting):
    rng = np.random.default_rng(0)
    frames = [setting.training[0], moves.remove(setting.training[1], NEAREST, rng)]
    settled = generate.settle(
        setting.potential, setting.params, frames, np.array([300.0, 600.0]), jax.random.key(0)
    )
    fns = neighbor_list(setting.potential.cutoff)
    energy = lambda s: float(setting.potential.energy(setting.params, s, fns.allocate(s)))
    assert not settled.error.any()
    quenched, moved = settled.stages[-2:]
    for frame, low, hot in zip(frames, quenched, moved, strict=True):
        assert low.position.shape == hot.position.shape == frame.position.shape
        assert low.position.dtype == np.float64
        assert energy(low) < energy(frame)
    assert energy(quenched[0]) < energy(moved[0])


def test_a_structure_that_flies_apart_does_not_stop_the_others(setting):
    lost = setting.training[0]._replace(position=setting.training[0].position.copy())
    lost.position[0] = lost.position[1] + 0.02
    both = [setting.training[1], lost]
    alone = generate.settle(
        setting.potential, setting.params, both[:1], np.array([300.0]), jax.random.key(0)
    )
    beside = generate.settle(
        setting.potential, setting.params, both, np.array([300.0, 300.0]), jax.random.key(0)
    )
    assert not beside.error[:, 0].any()
    assert_close(beside.stages[-2][0].position, alone.stages[-2][0].position, 1e-3)


def candidate(structure, **more) -> Candidate:
    return Candidate(structure, -1, 0, "explore", "strain", None)._replace(**more)


def measured(setting, one: Candidate, band=(0.0, 1e9)) -> Candidate:
    (out,), _ = generate.measure(setting, [one], band, 0.3)
    return out


def test_what_is_wrong_with_a_candidate_is_found_and_said(setting):
    known = setting.training[0]
    assert measured(setting, candidate(known)).error == 0
    assert measured(setting, candidate(known), (1.5, 4.5)).error == KNOWN
    near = known._replace(position=known.position.copy())
    near.position[0] = near.position[1] + 0.5
    bits = measured(setting, candidate(near), (0.0, 0.1)).error
    assert bits & TOO_FAR
    assert bits & errors.TOO_CLOSE
    assert bits & ENERGY_TOO_HIGH
    assert "atoms too close" in generate.rejection(bits)
    lost = known._replace(position=np.full_like(known.position, np.nan))
    assert measured(setting, candidate(lost)).error & errors.NOT_FINITE
    far = np.full(3, 9.0)
    assert measured(setting, candidate(known, request=far)).error == REQUEST_MISSED


def test_an_energy_that_is_not_a_number_is_a_rejection(setting):
    potential = setting.potential
    nan = potential._replace(energy=lambda params, structure, neighbors: jnp.asarray(np.nan))
    one = measured(setting._replace(potential=nan), candidate(setting.training[0]))
    assert one.error & errors.NOT_FINITE
    assert "not finite" in generate.rejection(one.error)


@pytest.fixture(scope="module")
def made(setting):
    return generate.generate(setting, jax.random.key(0), 4, MIX, band=BAND)


def test_what_is_generated_is_new_sound_and_not_made_twice(setting, made):
    accepted = [one for one in made if not one.error]
    assert len(accepted) == 4
    assert all(one.error == 0 for one in made[:4]), "the accepted ones come first"
    fns = neighbor_list(setting.descriptor.cutoff)
    centers, clouds = [], []
    for one in accepted:
        z = setting.standardizer.apply(
            setting.descriptor(one.structure, fns.allocate(one.structure))
        )
        centers.append(np.asarray(z)[one.center])
        clouds.append(np.asarray(z))
        novelty = float(coverage.novelty(setting.known, z[one.center][None])[0])
        assert_close(one.novelty, novelty, 1e-6)
        assert one.novelty >= 1.5
        assert one.closest >= 1
        assert one.energy < setting.guard.ceiling
        assert one.latent.shape == (3,)
    for i, center in enumerate(centers):
        for cloud in clouds[:i]:
            apart = np.linalg.norm(cloud - center, axis=1).min() / float(setting.known.d95)
            assert apart >= 1.5
    rejected = made[4:]
    assert all(generate.rejection(one.error) for one in rejected)


def test_the_same_key_makes_the_same_structures(setting, made):
    again = generate.generate(setting, jax.random.key(0), 4, MIX, band=BAND)
    assert [one.reason for one in again] == [one.reason for one in made]
    assert_close(again[0].structure.position, made[0].structure.position, 1e-12)


def test_ascent_makes_an_atom_novel_within_the_band(setting):
    made = generate.generate(setting, jax.random.key(1), 2, {"ascent": 1.0}, band=(1.2, 3.0))
    raised = [one for one in made if one.route == "ascent" and not one.error & ~(1 << 13)]
    assert raised, "nothing was raised"
    for one in raised:
        assert 1.2 <= one.novelty <= 3.0


@pytest.mark.parametrize("mix", [{}, {"explore": -1.0}, {"dream": 1.0}, {"explore": np.nan}])
def test_a_mix_that_is_none_is_refused(setting, mix):
    with pytest.raises(OptionError, match="mix"):
        generate.generate(setting, jax.random.key(0), 2, mix)


def test_nothing_can_be_decoded_without_a_vae(setting):
    with pytest.raises(OptionError, match="ascent, explore"):
        generate.generate(setting._replace(model=None), jax.random.key(0), 2, {"decode": 1.0})


def test_bad_input_is_refused_before_anything_is_made(setting):
    def refused(error, match, num=1, band=BAND, **change):
        with pytest.raises(error, match=match):
            generate.generate(setting._replace(**change), jax.random.key(0), num, MIX, band=band)

    one, *others = setting.training
    refused(OptionError, "num", num=-1)
    refused(OptionError, "band", band=(2.0, 1.0))
    refused(OptionError, "guard", guard=setting.guard._replace(ceiling=np.nan))
    strange = one._replace(species=one.species + (np.arange(8) == 3).astype(np.int32))
    refused(errors.SpeciesError, "frame 1, atom 3", training=[one, strange, *others])
    flat = one._replace(cell=np.zeros((3, 3)))
    refused(errors.GeometryError, "frame 0.*singular", training=[flat, *others])


def test_a_latent_point_out_of_reach_is_refused_by_name(setting):
    inside, _ = setting.model.encode(setting.model_params, setting.x_train[:1].astype(np.float32))
    z = np.concatenate([np.asarray(inside), np.full((1, 3), 40.0)])
    assert isinstance(requests(setting, z[:1], max_cycle=1.0), Targets)
    with pytest.raises(InputError, match="latent point 1"):
        requests(setting, z, max_cycle=1.0)
    with pytest.raises(InputError, match="shape"):
        requests(setting, z[:, :2])


def test_a_known_environment_is_realised_to_the_request(setting):
    inside, _ = setting.model.encode(setting.model_params, setting.x_train[:2].astype(np.float32))
    targets = requests(setting, np.asarray(inside), max_cycle=5.0)
    for one in realise_all(setting, targets):
        assert measured(setting, one).residual < 0.1


def test_a_setting_needs_one_table_of_species():
    frames = [to_atoms(systems.si8(), systems.SI)] * 2
    descriptor, potential = chebyshev(("Ge",), 4.0, 2, 4.0, 2), stillinger_weber()
    with pytest.raises(SpeciesError, match="Ge"):
        generate.setting(frames, descriptor, potential, potential.init(None), NEAREST, 600.0)


HEATING = generate.Heating((300.0, 1500.0), num_starts=3, num_frames=2, num_steps=20)


@pytest.fixture(scope="module")
def acquired(setting):
    return generate.acquire(setting, jax.random.key(0), 5, HEATING)


def test_what_is_acquired_is_sound_and_made_in_several_ways(setting, acquired):
    chosen = [one for one in acquired if not one.error]
    assert len(chosen) == 5
    assert acquired[:5] == chosen
    pool = generate.candidates(setting, jax.random.key(0), 5, HEATING)
    routes = {one.route for one in pool if not one.error}
    assert routes == {"explore", "decode", "simulate"}
    places = [np.concatenate([np.ravel(one.structure.position)]).tobytes() for one in chosen]
    assert len(set(places)) == 5
    for one in chosen:
        assert np.isfinite([one.novelty, one.energy]).all()


def test_the_guard_gives_way_to_what_the_data_do_not_span(setting):
    narrow = setting._replace(guard=setting.guard._replace(ceiling=setting.guard.floor + 0.01))
    pool = generate.candidates(narrow, jax.random.key(0), 5, HEATING)
    assert any(not one.error for one in pool)
    assert all(one.energy < setting.guard.floor + 1.5 for one in pool if not one.error)


def test_what_is_labelled_anyhow_is_not_acquired_again(setting, acquired):
    first = acquired[0].structure
    again = generate.acquire(setting, jax.random.key(0), 5, HEATING, beside=[first])
    assert all(not np.array_equal(one.structure.position, first.position) for one in again[:5])


def test_the_same_key_acquires_the_same(setting, acquired):
    again = generate.acquire(setting, jax.random.key(0), 5, HEATING)
    for one, other in zip(acquired[:5], again[:5], strict=True):
        assert np.array_equal(one.structure.position, other.structure.position)
    assert generate.acquire(setting, jax.random.key(0), 0) == []


def test_a_simulation_ends_where_the_potential_lets_atoms_meet(setting):
    frames = generate.simulated(setting, jax.random.key(1), HEATING)
    assert len(frames) == 6
    assert {one.route for one in frames} == {"simulate"}
    # hotter ones move farther, also in the mean over each simulation's start
    moved = lambda one: np.sqrt(
        np.mean((one.structure.position - setting.training[one.start].position) ** 2)
    )
    assert moved(frames[2]) > moved(frames[0])
    nothing = lennard_jones(systems.SI, 4.5, 0.1, 1e-6)
    free = setting._replace(potential=nothing, params=nothing.init(jax.random.key(0)))
    hot = generate.Heating((2e4, 2e4), num_starts=4, num_frames=4, num_steps=100)
    gas = generate.simulated(free, jax.random.key(1), hot)
    assert len(gas) < 16
    limit = generate.Guard(np.full((1, 1), 0.72 * NEAREST), 0.0, 0.0)
    assert all(closest_pair(one.structure, limit) >= 1 for one in gas)


def test_a_bad_setting_is_refused_before_anything_is_acquired(setting):
    with pytest.raises(OptionError, match="num is -1"):
        generate.acquire(setting, jax.random.key(0), -1)
    nan = setting._replace(guard=setting.guard._replace(ceiling=np.nan))
    with pytest.raises(OptionError, match="the guard is"):
        generate.acquire(nan, jax.random.key(0), 1)
