import sys
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvae_md import fit
from jaxvae_md.batching import batches
from jaxvae_md.descriptors import Standardizer, chebyshev
from jaxvae_md.errors import InputError, OptionError, RunError
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import chebyshev_nn, compose, energy_and_forces, lennard_jones, stress
from jaxvae_md.simulate import nve, rollout
from tests import systems
from tests.argon import ARGON, CUTOFF, EPSILON, PARAMS, SIGMA, crystal
from tests.asserts import assert_close

KEY = jax.random.key(0)
BEGIN = {"sigma": jnp.full((1, 1), 3.2), "epsilon": jnp.full((1, 1), 0.02)}
TIMES = [(1, 1, 1), (2, 1, 1), (1, 1, 1), (2, 1, 1), (1, 1, 1)]


@cache
def frames():
    """Distorted crystals of 4 and 8 atoms."""
    out = []
    for seed, times in enumerate(TIMES):
        structure = crystal(times)
        scale = 1 + 0.01 * seed
        noise = np.random.default_rng(seed).normal(0, 0.15, structure.position.shape)
        position, cell = scale * structure.position + noise, scale * structure.cell
        out.append(systems.make(position, cell))
    return out


def labels(potential, params):
    """Energies and forces, frame by frame."""
    allocate = neighbor_list(potential.cutoff).allocate
    one = jax.jit(lambda *frame: energy_and_forces(potential.energy, params, *frame))
    lists = [allocate(s) for s in frames()]
    lists = [systems.reshaped(n, 60, len(n.images)) for n in lists]
    found = [one(*frame) for frame in zip(frames(), lists, strict=True)]
    return np.array([float(e) for e, _ in found]), [np.asarray(f) for _, f in found]


@cache
def data(num_batches=3, potential=ARGON):
    parts = batches(frames(), potential.cutoff, num_batches)
    return fit.prepare(potential, parts, *labels(ARGON, PARAMS))


def reference_loss(params, energy_weight=3.0) -> np.ndarray:
    """The loss of every frame, as the docstring of `force_matching` has it."""
    energy, forces = labels(ARGON, PARAMS)
    mine = labels(ARGON, params)
    sizes = np.array([len(f) for f in forces])
    rms = np.sqrt(np.mean(np.concatenate(forces) ** 2))
    spread = np.std(energy / sizes)
    force = [np.mean((a - b) ** 2) / rms**2 for a, b in zip(mine[1], forces, strict=True)]
    return np.array(force) + energy_weight * ((mine[0] - energy) / sizes / spread) ** 2


def test_force_matching_finds_sigma_and_epsilon():
    result = fit.force_matching(ARGON, BEGIN, data(), key=KEY, num_steps=2000, learning_rate=2e-2)
    assert_close(result.params["sigma"], [[SIGMA]], 1e-3)
    assert_close(result.params["epsilon"], [[EPSILON]], 1e-3)
    assert result.history[-1] < 1e-4 * result.history[0]


@pytest.mark.parametrize("num_batches", [1, 3])
def test_the_loss_of_a_batch_is_that_of_its_frames_one_by_one(num_batches):
    # no step of finite size is taken: every frame is met once with the parameters of the start
    result = fit.force_matching(
        ARGON,
        BEGIN,
        data(num_batches),
        key=KEY,
        num_steps=1,
        batch_size=len(TIMES),
        learning_rate=1e-12,
    )
    assert_close(result.history[0], reference_loss(BEGIN).mean(), 1e-9)


def test_the_loss_does_not_depend_on_how_many_frames_an_update_sees():
    # more frames are asked for than there are
    losses = [
        fit.force_matching(
            ARGON,
            BEGIN,
            data(),
            key=KEY,
            num_steps=1,
            batch_size=size,
            learning_rate=1e-12,
            energy_weight=0.5,
        ).history[0]
        for size in (len(TIMES), 4 * len(TIMES))
    ]
    assert_close(losses, np.full(2, reference_loss(BEGIN, 0.5).mean()), 1e-9)


@cache
def tensions():
    """Stress of every frame with the true parameters."""
    allocate = neighbor_list(CUTOFF).allocate
    one = jax.jit(lambda *frame: stress(ARGON.energy, PARAMS, *frame))
    return np.array([np.asarray(one(s, allocate(s))) for s in frames()])


def once(data, **options):
    """The loss of all frames at the start."""
    options = {
        "key": KEY,
        "num_steps": 1,
        "batch_size": len(TIMES),
        "learning_rate": 1e-12,
    } | options
    return fit.force_matching(ARGON, BEGIN, data, **options).history[0]


def test_the_loss_counts_stress_where_it_is_known():
    known = tensions().copy()
    known[1] = np.nan
    parts = batches(frames(), CUTOFF)
    labelled = fit.prepare(ARGON, parts, *labels(ARGON, PARAMS), known)
    allocate = neighbor_list(CUTOFF).allocate
    mine = [stress(ARGON.energy, BEGIN, s, allocate(s)) for s in frames()]
    off = [np.mean((a - b) ** 2) for a, b in zip(mine, tensions(), strict=True)]
    off[1] = 0.0
    size = np.nanmean(known**2)
    expected = reference_loss(BEGIN).mean() + 0.7 * np.mean(off) / size
    assert_close(once(labelled, stress_weight=0.7), expected, 1e-9)
    assert_close(once(labelled, stress_weight=0.0), reference_loss(BEGIN).mean(), 1e-9)


def test_the_loss_of_a_frame_counts_by_its_weight():
    weight = np.array([0.0, 2.0, 0.5, 3.0, 1.0])
    labelled = fit.prepare(ARGON, batches(frames(), CUTOFF), *labels(ARGON, PARAMS), None, weight)
    assert_close(once(labelled), np.mean(weight * reference_loss(BEGIN)), 1e-9)


@pytest.mark.slow
def test_an_optimiser_of_optax_that_searches_along_lines_fits_in_few_updates():
    labelled = fit.prepare(
        ARGON, batches(frames(), CUTOFF), *labels(ARGON, PARAMS), tensions(), np.full(5, 2.0)
    )
    options = {"key": KEY, "num_steps": 40, "batch_size": len(TIMES)}
    searching = fit.force_matching(
        ARGON, BEGIN, labelled, optimiser=fit.relative(optax.lbfgs()), **options
    )
    assert_close(searching.params["sigma"], [[SIGMA]], 1e-6)
    assert_close(searching.params["epsilon"], [[EPSILON]], 1e-6)


def test_labels_that_are_not_as_many_as_the_frames_are_refused():
    energy, forces = labels(ARGON, PARAMS)
    parts = batches(frames(), CUTOFF)
    with pytest.raises(InputError, match="4 energies for 5 frames"):
        fit.prepare(ARGON, parts, energy[:4], forces)
    with pytest.raises(InputError, match="2 stresses"):
        fit.prepare(ARGON, parts, energy, forces, tensions()[:2])


def test_steps_of_a_relative_optimiser_are_in_units_of_the_parameters():
    params = {"a": jnp.array([100.0, -2.0]), "b": jnp.array(0.0)}
    gradient = {"a": jnp.array([1.0, 1.0]), "b": jnp.array(2.0)}
    optimiser = fit.relative(optax.chain(optax.sgd(0.1), optax.add_decayed_weights(-0.01)))
    change, _ = optimiser.update(gradient, optimiser.init(params), params)
    assert_close(change["a"], np.array([-0.1 * 100**2 - 1.0, -0.1 * 2**2 + 0.02]), 1e-12)
    assert_close(change["b"], -0.2, 1e-12)


def test_the_loss_vanishes_at_the_truth():
    result = fit.force_matching(ARGON, PARAMS, data(), key=KEY, num_steps=1, learning_rate=1e-12)
    assert result.history[0] < 1e-20


@pytest.mark.slow
def test_a_fit_follows_from_its_key():
    run = lambda seed: fit.force_matching(
        ARGON, BEGIN, data(), key=jax.random.key(seed), num_steps=20, batch_size=2
    )
    assert np.array_equal(run(0).params["sigma"], run(0).params["sigma"])
    assert np.array_equal(run(0).history, run(0).history)
    assert not np.array_equal(run(0).params["sigma"], run(1).params["sigma"])


def test_parameters_stay_where_they_make_sense():
    start = {"sigma": jnp.full((1, 1), 3.4), "epsilon": jnp.full((1, 1), 1e-4)}
    forces = [-f for f in labels(ARGON, PARAMS)[1]]
    opposite = fit.prepare(ARGON, batches(frames(), CUTOFF), labels(ARGON, PARAMS)[0], forces)
    result = fit.force_matching(
        ARGON, start, opposite, key=KEY, num_steps=200, learning_rate=0.1, energy_weight=0.0
    )
    assert float(result.params["epsilon"].min()) > 0
    assert float(result.params["sigma"].min()) > 0


def test_a_fit_that_is_not_finite_is_an_error():
    # atoms deep in each other's core
    wild = {"sigma": jnp.full((1, 1), 1e40), "epsilon": jnp.full((1, 1), 1e200)}
    free = ARGON._replace(project=lambda params: params)
    with pytest.raises(RunError, match="not finite"):
        fit.force_matching(free, wild, data(), key=KEY, num_steps=20)


@cache
def full_model():
    """A network beside a core, whose fit uses prepared descriptors in single precision."""
    descriptor = chebyshev(("Ar",), CUTOFF, 4, CUTOFF, 4)
    scale = Standardizer(np.zeros(10), np.full(10, 5.0))
    return compose(
        core=lennard_jones(("Ar",), CUTOFF, SIGMA, EPSILON),
        network=chebyshev_nn(descriptor, scale, hidden=(8,)),
    )


def test_prediction_is_energy_and_forces_of_every_frame_in_order():
    potential = full_model()
    params = potential.init(KEY)
    predicted = fit.predict(potential, params, batches(frames(), potential.cutoff))
    energy, forces = labels(potential, params)
    assert_close(predicted.energy, energy, 1e-9)
    assert [f.shape for f in predicted.forces] == [f.shape for f in forces]
    for mine, expected in zip(predicted.forces, forces, strict=True):
        assert_close(mine, expected, 1e-9)


@pytest.mark.slow
def test_the_prepared_prediction_is_the_direct_one():
    potential = full_model()
    params = potential.init(KEY)
    energy, forces = labels(potential, params)
    parts = batches(frames(), potential.cutoff)
    for part, batch in zip(data(potential=potential), parts, strict=True):
        e, f, _ = jax.vmap(potential.predict, in_axes=(None, 0))(params, part.features)
        assert_close(e, energy[batch.frame], 1e-5)
        for row, frame in enumerate(batch.frame):
            assert_close(f[row][np.asarray(part.mask[row])], forces[frame], 1e-5)


def test_prepared_labels_belong_to_their_frames():
    energy, forces = labels(ARGON, PARAMS)
    for part, batch in zip(data(), batches(frames(), CUTOFF), strict=True):
        assert_close(part.energy, energy[batch.frame], 0)
        for row, frame in enumerate(batch.frame):
            mask = np.asarray(part.mask[row])
            assert_close(np.asarray(part.forces[row])[mask], forces[frame], 0)
            assert (np.asarray(part.forces[row])[~mask] == 0).all()


def trajectory_loss():
    """Positions after a short simulation against those of the true parameters; error bits."""
    simulator, structure = nve(ARGON, dt=5.0), crystal((1, 1, 1), rattle=0.2)
    neighbors = simulator.neighbor_fns.allocate(structure, extra=1.5)

    def final(params, key):
        state = simulator.init(key, params, structure, neighbors, 60.0)
        after, trajectory = rollout(simulator, params, state, 30)
        return after.structure.position, trajectory.error

    target, _ = jax.jit(final)(PARAMS, KEY)

    def loss(params, key):
        position, error = final(params, key)
        return jnp.sum((position - target) ** 2), error

    return loss


def plain(loss_fn):
    """A loss without a simulation, whose error bits are always 0."""
    return lambda params, key: (loss_fn(params["a"]), jnp.zeros((), int))


@pytest.mark.slow
def test_a_fit_through_a_trajectory_lowers_its_loss_and_returns_the_best():
    loss = trajectory_loss()
    start = {"sigma": jnp.full((1, 1), 3.35), "epsilon": jnp.full((1, 1), EPSILON)}
    result = fit.through_trajectory(loss, start, key=KEY, num_updates=12, learning_rate=1e-2)
    assert len(result.history) == 13
    assert_close(result.history[0], loss(start, KEY)[0], 1e-9)
    assert result.history.min() < 0.1 * result.history[0]
    assert_close(loss(result.params, KEY)[0], result.history.min(), 1e-6)


def test_the_best_parameters_are_returned_even_when_later_ones_are_worse():
    result = fit.through_trajectory(
        plain(jnp.abs), {"a": jnp.asarray(1.0)}, key=KEY, num_updates=30, learning_rate=0.3
    )
    assert result.history[-1] > result.history.min()
    assert_close(abs(result.params["a"]), result.history.min(), 1e-12)


def test_a_fit_through_a_trajectory_keeps_to_what_makes_sense():
    project = lambda params: {"a": jnp.maximum(params["a"], 0.5)}
    result = fit.through_trajectory(
        plain(jnp.square),
        {"a": jnp.asarray(1.0)},
        key=KEY,
        num_updates=30,
        learning_rate=0.1,
        project=project,
    )
    assert float(result.params["a"]) == 0.5


def test_a_fit_through_a_trajectory_ends_before_it_is_not_finite():
    loss = plain(lambda a: jnp.where(a < 0.75, jnp.nan, 1.0) * a)
    result = fit.through_trajectory(
        loss, {"a": jnp.asarray(1.0)}, key=KEY, num_updates=10, learning_rate=0.1
    )
    assert 1 < len(result.history) < 11
    assert np.isfinite(result.history).all()
    assert_close(result.params["a"], result.history[-1], 1e-12)


def test_a_fit_through_a_trajectory_ends_at_an_error_bit():
    loss = lambda params, key: (params["a"], jnp.where(params["a"] < 0.75, 1, 0))
    result = fit.through_trajectory(
        loss, {"a": jnp.asarray(1.0)}, key=KEY, num_updates=10, learning_rate=0.1
    )
    assert 1 < len(result.history) < 11
    assert float(result.params["a"]) >= 0.75


def test_a_fit_that_is_never_finite_gives_back_its_start():
    loss = plain(lambda a: jnp.nan * a)
    result = fit.through_trajectory(loss, {"a": jnp.asarray(1.0)}, key=KEY)
    assert len(result.history) == 0
    assert float(result.params["a"]) == 1.0


def test_weights_may_be_schedules_of_the_share_that_is_done():
    options = {
        "data": fit.prepare(ARGON, batches(frames(), CUTOFF), *labels(ARGON, PARAMS), tensions())
    }
    for name in ("energy_weight", "stress_weight"):
        # one epoch: the whole of it is done at its end
        scheduled = once(**options, **{name: lambda done: 0.25 + done})
        assert_close(scheduled, once(**options, **{name: 1.25}), 1e-9)


def network():
    """A small network, and the prepared frames of a Lennard-Jones crystal."""
    descriptor = chebyshev(("Ar",), CUTOFF, 3, CUTOFF, 3)
    potential = chebyshev_nn(descriptor, Standardizer(np.zeros(8), np.ones(8)), hidden=(8,))
    return potential, data(potential=potential)


def test_held_out_frames_decide_which_epoch_is_returned_and_when_to_stop():
    wrong = fit.prepare(
        ARGON,
        batches(frames(), CUTOFF),
        *labels(ARGON, {**PARAMS, "sigma": 1.01 * PARAMS["sigma"]}),
    )
    options = {"key": KEY, "num_steps": 200, "batch_size": 5, "learning_rate": 2e-2}
    whole = fit.force_matching(ARGON, BEGIN, data(), **options)
    result = fit.force_matching(ARGON, BEGIN, data(), held_out=wrong, patience=0.1, **options)
    best = int(np.argmin(result.held_out))
    assert len(result.history) == best + 1 + 20 + 1 < len(whole.history)
    assert whole.held_out is None
    terms = fit.terms_of(data(), 3.0, 0.0)
    of_frame = lambda frame: jnp.sum(fit.residuals(ARGON, result.params, frame, terms) ** 2)
    each = jnp.concatenate([jax.vmap(of_frame)(part) for part in wrong])
    assert_close(result.held_out[best], jnp.mean(each), 1e-9)


def test_an_interrupted_fit_ends_with_the_same_bits(tmp_path):
    potential, prepared = network()
    start = potential.init(KEY)
    options = {"key": KEY, "num_steps": 60, "batch_size": 5, "held_out": prepared[:1]}
    whole = fit.force_matching(potential, start, prepared, **options)

    place = tmp_path / "fit"
    module = sys.modules["jaxvae_md.fit.forces"]
    looked, loss = [], module._loss

    def counted(*args):
        looked.append(1)
        if len(looked) == 33:
            raise KeyboardInterrupt
        return loss(*args)

    again = partial(fit.force_matching, potential, start, checkpoint=place, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_loss", counted)
        with pytest.raises(KeyboardInterrupt):
            again(prepared)
    assert place.is_dir()
    with pytest.raises(OptionError, match="another training"):
        again([part._replace(energy=part.energy + 1) for part in prepared])
    resumed = again(prepared)
    assert len(looked) == 33
    flat = lambda result: np.concatenate([np.ravel(x) for x in jax.tree.leaves(result)])
    assert np.array_equal(flat(resumed), flat(whole))
    assert not place.exists()


def test_held_out_frames_that_are_not_finite_end_the_fit(tmp_path):
    wrong = [part._replace(energy=part.energy.at[0].set(jnp.nan)) for part in data()]
    options = {"key": KEY, "num_steps": 200, "batch_size": 5, "checkpoint": tmp_path / "fit"}
    with pytest.raises(RunError, match="not finite after epoch 0"):
        fit.force_matching(ARGON, BEGIN, data(), held_out=wrong, **options)
    assert not (tmp_path / "fit").exists()


def test_what_a_kill_left_of_a_removal_is_no_checkpoint(tmp_path):
    place = tmp_path / "fit"
    place.mkdir()
    (place / "something").write_text("left")
    options = {"key": KEY, "num_steps": 12, "batch_size": 5}
    result = fit.force_matching(ARGON, BEGIN, data(), checkpoint=place, **options)
    whole = fit.force_matching(ARGON, BEGIN, data(), **options)
    assert np.array_equal(result.history, whole.history)
    assert not place.exists()
