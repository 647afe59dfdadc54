from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import coverage, errors
from jaxvae_md.descriptors import chebyshev, describe, fit_standardizer
from jaxvae_md.generate.select import _greedy, _nearest, select
from jaxvae_md.structure import to_atoms
from tests import systems
from tests.asserts import assert_close

WIDTH = 4


def cloud(rng, centre, size=6, spread=0.3) -> np.ndarray:
    """A structure of atoms around a point."""
    return np.asarray(centre) + spread * rng.normal(size=(size, WIDTH))


def kinds(seed=0, counts=(6, 4, 3), sizes=(4, 6, 9)) -> list[np.ndarray]:
    """Structures of three kinds and several sizes, one kind after the other."""
    rng = np.random.default_rng(seed)
    centres = 4 * np.eye(WIDTH)
    return [
        cloud(rng, centres[kind] + 0.3 * rng.normal(size=WIDTH), sizes[i % len(sizes)])
        for kind, count in enumerate(counts)
        for i in range(count)
    ]


def covered_by(labelled, candidates, chosen) -> float:
    """The whole gain of some candidates, in plain numpy, every environment asking."""
    every, known = [*labelled, *candidates], len(labelled)

    def distances(u, structures):
        return np.array([np.linalg.norm(s - u, axis=1).min() for s in structures])

    def own(u, number):
        others = np.delete(distances(u, every), number)
        return np.mean(np.log(np.sort(others[others > 1e-3])[:3]))

    owns = [np.array([own(u, n) for u in points]) for n, points in enumerate(every)]
    g = 0.1 * np.exp(np.mean([o.mean() for o in owns]))
    total = 0.0
    for points in candidates:
        for u in points:
            d = distances(u, every)
            near = np.argsort(d)[:5]
            atom = [np.linalg.norm(every[n] - u, axis=1).argmin() for n in near]
            around = [owns[n][a] for n, a in zip(near, atom, strict=True)]
            length = np.exp(np.mean(np.log(np.exp(around) + g)))
            kappa = np.exp(-0.5 * (d / length) ** 2)
            before = 1 - np.prod(1 - kappa[:known])
            after = 1 - (1 - before) * np.prod(1 - kappa[known:][list(chosen)])
            lack = 1 / (1 + (2.25 / (d[:known] / length).min()) ** 16)
            total += lack * np.log((0.1 + after) / (0.1 + before)) / np.log(11) / len(points)
    return total


def test_picks_and_gains_are_those_of_the_formula():
    structures = kinds(counts=(3, 4, 2))
    labelled, candidates = structures[:2], structures[2:]
    found = select(labelled, candidates, 3)
    value = lambda chosen: covered_by(labelled, candidates, chosen)
    picks: list[int] = []
    for pick, gain in zip(found.order, found.gain, strict=True):
        gains = [
            value([*picks, c]) - value(picks) if c not in picks else -1
            for c in range(len(candidates))
        ]
        assert pick == np.argmax(gains)
        assert_close(gain, max(gains), 1e-6)
        picks.append(int(pick))
    # greedy is within 1 - 1/e of the best three, and here much closer
    best = max(value(chosen) for chosen in combinations(range(len(candidates)), 3))
    assert found.gain.sum() > 0.9 * best


def test_gains_never_rise_and_each_kind_that_lacks_comes_first():
    structures = kinds()
    found = select(structures[:3], structures[3:], 10)
    assert (np.diff(found.gain) < 1e-12).all()
    kind = np.array([0] * 3 + [1] * 4 + [2] * 3)[found.order]
    assert set(kind[:2]) == {1, 2}
    # what is left are frames of known kinds
    assert 2 <= found.num_taken < 10
    assert found.gain[found.num_taken :].max() < 0.1


def test_the_order_of_candidates_and_atoms_says_nothing():
    structures, rng = kinds(), np.random.default_rng(1)
    labelled, candidates = structures[:3], structures[3:]
    found = select(labelled, candidates, 10)
    order = rng.permutation(len(candidates))
    mixed = [rng.permutation(candidates[i]) for i in order]
    again = select([rng.permutation(s) for s in labelled[::-1]], mixed, 10)
    assert order[again.order[:4]].tolist() == found.order[:4].tolist()
    assert_close(again.gain, found.gain, 1e-9)


def test_nothing_labelled_yet():
    found = select([], kinds(), 5)
    kind = np.array([0] * 6 + [1] * 4 + [2] * 3)[found.order]
    assert set(kind[:3]) == {0, 1, 2}
    assert kind[0] == 0


def test_copies_of_labelled_and_of_chosen_structures_gain_nothing():
    structures = kinds()
    labelled = structures[:3]
    copies = [np.tile(s, (8, 1)) for s in labelled]
    twins = [structures[6], structures[6], np.tile(structures[6], (2, 1))]
    found = select(labelled, [*twins, *copies], 6)
    assert found.num_taken == 1 and found.order[0] in (0, 1, 2)
    assert np.isfinite(found.gain).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_pool_of_one_structure_many_times(dtype):
    one = kinds()[0].astype(dtype)
    assert select([one], [one] * 3, 3).num_taken == 0
    found = select([], [one] * 4, 4)
    assert found.num_taken == 1
    assert found.gain.dtype == dtype
    assert_close(found.gain, [4, 0, 0, 0], 1e-5)


def test_single_precision_chooses_the_same():
    structures = kinds()
    single = [s.astype(np.float32) for s in structures]
    double, found = (select(s[:3], s[3:], 10) for s in (structures, single))
    assert found.order[:4].tolist() == double.order[:4].tolist()
    assert found.gain.dtype == np.float32
    assert_close(found.gain, double.gain, 1e-4)


@pytest.fixture(scope="module")
def silicon() -> dict[str, list[np.ndarray]]:
    """Regions of crystals, of their supercells, and of large cells without one atom."""
    rng = np.random.default_rng(0)
    cells = [to_atoms(systems.repeated(systems.si8(0), (2, 2, 2)), systems.SI) for _ in range(5)]
    for atoms in cells:
        atoms.set_cell(atoms.cell * rng.uniform(0.99, 1.01), scale_atoms=True)
        atoms.rattle(0.04, rng=rng)
    large = [cells[0].repeat(2)]
    holes = [atoms.copy() for atoms in large]
    for atoms in holes:
        del atoms[int(rng.integers(len(atoms)))]
    frames = [*cells, *large, *holes]
    descriptor = chebyshev(systems.SI, 6.0, 12, 6.0, 12)
    scale = fit_standardizer(np.concatenate(describe(frames, descriptor)))
    region = [y.region for y in coverage.surroundings(frames, descriptor, scale, 2.35)]
    return {"small": region[:5], "large": region[5:6], "hole": region[6:]}


def test_a_supercell_of_what_is_labelled_gains_nothing(silicon):
    found = select(silicon["small"][:4], silicon["large"], 1)
    assert found.num_taken == 0
    assert found.gain.max() < 1e-9
    found = select(silicon["large"], silicon["small"][:1], 1)
    assert found.gain.max() < 1e-9


def test_a_vacancy_in_a_large_cell_is_not_covered_by_the_crystal(silicon):
    candidates = [*silicon["small"][4:], *silicon["large"], *silicon["hole"]]
    found = select(silicon["small"][:4], candidates, 3)
    assert found.order[0] == 2
    assert found.gain[0] > 0.1
    assert found.num_taken >= 1


def test_the_stop_rule():
    structures = kinds()
    by_default = select(structures[:3], structures[3:], 10)
    everything = select(structures[:3], structures[3:], 10, min_gain=0)
    assert everything.order.tolist() == by_default.order.tolist()
    assert everything.num_taken >= by_default.num_taken
    assert select(structures[:3], structures[3:], 10, min_gain=100).num_taken == 0
    # more than there are
    assert len(select(structures[:3], structures[3:], 99).order) == len(structures) - 3


def test_bad_input_names_the_frame():
    good = kinds()[:3]
    broken = good[1].copy()
    broken[2, 1] = np.nan
    for bad, what in (
        (broken, "not finite"),
        (good[1][:0], "without atoms"),
        (good[1][:, :2], "columns"),
        (good[1][0], "columns"),
    ):
        with pytest.raises(errors.InputError, match=f"frame 1.*candidate.*{what}"):
            select(good, [good[0], bad], 1)
        with pytest.raises(errors.InputError, match=f"frame 1.*labelled structure.*{what}"):
            select([good[0], bad], good, 1)
    with pytest.raises(errors.InputError, match="atom 2"):
        select(good, [broken], 1)
    with pytest.raises(errors.InputError, match="no candidates"):
        select(good, [], 1)


@pytest.mark.parametrize(
    "options",
    [{"num": 0}, {"num": 2.5}, {"num_environments": 0}, {"min_gain": -1}, {"min_gain": np.nan}],
)
def test_bad_options(options):
    with pytest.raises(errors.OptionError):
        select(kinds()[:3], kinds()[3:], **{"num": 2, **options})


def test_the_same_shapes_are_compiled_once():
    structures = kinds()
    select(structures[:3], structures[3:], 10)
    before = _greedy._cache_size(), _nearest._cache_size()
    moved = [s + 0.1 for s in kinds(seed=5)]
    select(moved[:3], moved[3:], 10)
    assert (_greedy._cache_size(), _nearest._cache_size()) == before


def test_numbers_of_jax_are_taken_as_well():
    structures = [jnp.asarray(s) for s in kinds()]
    found = select(structures[:3], structures[3:], 10)
    assert isinstance(found.order, np.ndarray)
    assert jax.tree.map(np.ndim, found) == (1, 1, 0)
