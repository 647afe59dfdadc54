"""What to label: `python benchmarks/selection.py DATA.extxyz [--full] [--json] [--only PART]`.

DATA holds frames with energies, forces and `info["label"]`. One label at a time is held out: the
start is two frames of each other label; the pool is 70 % of the frames of every label without the
start; the others are the test. From the pool N = 5 and 10 frames are taken by a rule, a model is
fitted to them and the start, and judged by its force MAE on the held-out label's test frames. The
figure is that MAE over the mean of random picks from the same pool, geometric mean over N, so that
below 1 is better: `mean` over labels and seeds, `worst` the label with the largest mean over seeds,
`others` the same for test frames of the four labels of the start, `others-worst` its largest.

`linear`: ridge on descriptors (26 columns: cutoff 2.55 nearest-neighbor distances, orders 12 + 12)
summed over atoms, with energies per atom and forces in eV and angstrom, unweighted. `network`: the
package's own network on the same descriptors. Rules beside ours: `frames`, the log-coverage of
whole frames by sums of kernels; `farthest` points; `novelty`, the frames farthest from the start;
`kmeans`; and `told`, random frames of the held-out label alone, which no rule can know of.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

from jaxvae_md import coverage, fit, read_frames
from jaxvae_md.batching import batches
from jaxvae_md.descriptors import chebyshev, fit_standardizer
from jaxvae_md.errors import InputError
from jaxvae_md.generate.select import select
from jaxvae_md.learn.config import label_of, nearest_distance
from jaxvae_md.potentials import atomic_energy, chebyshev_nn, compose, fit_atomic_energy
from jaxvae_md.structure import from_atoms, species_table

jax.config.update("jax_enable_x64", True)
# one that imports coverage.py would find the benchmark of this name
sys.path.remove(os.path.dirname(os.path.abspath(__file__)))

NUM_START = 2
NUM_PICKS = (5, 10)
TEST_SHARE = 0.3
RIDGE = 1e-6


class Data:
    """Frames with labels, descriptors, and what of the positions a linear model needs."""

    def __init__(self, path: str):
        self.frames = read_frames(path)
        self.labels = np.array([label_of(atoms) for atoms in self.frames])
        self.names = sorted(set(self.labels.tolist()))
        fewest = min(int(np.sum(self.labels == name)) for name in self.names)
        if len(self.names) < 2 or fewest < 2 * NUM_START + 2:
            raise SystemExit(
                f"{path}: give frames of several labels, {2 * NUM_START + 2} of each at least"
            )
        self.nearest = nearest_distance(self.frames)
        cutoff = round(2.55 * self.nearest, 1)
        self.descriptor = chebyshev(species_table(self.frames), cutoff, 12, cutoff, 12)
        self.structures = [from_atoms(atoms, self.descriptor.species) for atoms in self.frames]
        self.energy = np.array([atoms.get_potential_energy() for atoms in self.frames])
        self.forces = [atoms.get_forces() for atoms in self.frames]
        self.sizes = np.array([len(atoms) for atoms in self.frames])
        self.x, self.slope = self.linearised()

    def linearised(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Descriptors [n, f], and minus the derivatives [n, 3, f] of their sum by positions."""

        def one(frame):
            structure, neighbors = frame
            x, derivative = self.descriptor.linearise(structure, neighbors)
            pair = jnp.moveaxis(derivative, 1, 3)
            return x, jnp.sum(pair, axis=1).at[neighbors.index].add(-pair)

        some = jax.jit(lambda *frames: lax.map(one, frames))
        x, slope = [np.empty(0)] * len(self.frames), [np.empty(0)] * len(self.frames)
        for batch in batches(self.structures, self.descriptor.cutoff):
            found = some(batch.structure, batch.neighbors)
            parts = zip(batch.frame, batch.structure.mask, *map(np.asarray, found), strict=True)
            for frame, mask, values, by_position in parts:
                x[frame], slope[frame] = values[mask], by_position[mask]
        return x, slope

    def counts(self, rows) -> np.ndarray:
        num = len(self.descriptor.species)
        return np.stack([np.bincount(self.structures[i].species, minlength=num) for i in rows])


class Problem(NamedTuple):
    """One label held out, one split."""

    start: np.ndarray
    pool: np.ndarray
    test: np.ndarray
    held: np.ndarray
    """which of all frames are of the held-out label"""
    region: list[np.ndarray]
    """of the start, then of the pool"""
    frame: np.ndarray
    """[mean, std] of x, of the same"""
    seed: int


def problem(data: Data, held: str, seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    start, pool, test = [], [], []
    for name in data.names:
        members = rng.permutation(np.nonzero(data.labels == name)[0])
        num = round(TEST_SHARE * len(members))
        first = num + (NUM_START if name != held else 0)
        test.append(members[:num])
        start.append(members[num:first])
        pool.append(members[first:])
    start, pool, test = map(np.concatenate, (start, pool, test))
    rows = np.concatenate([start, pool])
    standardizer = fit_standardizer(np.concatenate([data.x[i] for i in rows]))
    frames = [data.frames[i] for i in rows]
    y = coverage.surroundings(frames, data.descriptor, standardizer, data.nearest)
    whole = np.stack([np.concatenate([p.own.mean(axis=0), p.own.std(axis=0)]) for p in y])
    return Problem(start, pool, test, data.labels == held, [p.region for p in y], whole, seed)


# rules: frames of the pool, as positions in it


def ours(given: Problem, num: int) -> np.ndarray:
    known = len(given.start)
    return select(given.region[:known], given.region[known:], num).order


def frames(given: Problem, num: int) -> np.ndarray:
    """The log of a sum of kernels between whole frames."""
    known = len(given.start)
    distance = np.sqrt(cdist(given.frame, given.frame) ** 2 + 1e-10)
    log = np.log(distance) + np.diag(np.full(len(distance), np.inf))
    own = np.exp(np.sort(log, axis=1)[:, :3].mean(axis=1))
    floored = np.log(own + 0.1 * np.exp(np.log(own).mean()))
    length = np.exp(floored[np.argsort(distance, axis=1)[:, :5]].mean(axis=1))
    kernel = np.exp(-0.5 * (distance / length[:, None]) ** 2)[known:]
    rho, picks = 0.1 + kernel[:, :known].sum(axis=1), []
    for _ in range(num):
        gain = np.log1p(kernel[:, known:] / rho[:, None]).sum(axis=0)
        gain[picks] = -1
        picks.append(int(gain.argmax()))
        rho += kernel[:, known + picks[-1]]
    return np.array(picks)


def farthest(given: Problem, num: int) -> np.ndarray:
    known = len(given.start)
    distance = cdist(given.frame[known:], given.frame)
    nearest, picks = distance[:, :known].min(axis=1), []
    for _ in range(num):
        picks.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, distance[:, known + picks[-1]])
    return np.array(picks)


def novelty(given: Problem, num: int) -> np.ndarray:
    known = len(given.start)
    return np.argsort(-cdist(given.frame[known:], given.frame[:known]).min(axis=1))[:num]


def kmeans(given: Problem, num: int) -> np.ndarray:
    points = given.frame[len(given.start) :]
    centre, _ = kmeans2(points, num, minit="++", seed=given.seed)
    distance, picks = cdist(centre, points), []
    for row in distance:
        row[picks] = np.inf
        picks.append(int(row.argmin()))
    return np.array(picks)


def at_random(given: Problem, num: int, draw: int) -> np.ndarray:
    return np.random.default_rng([given.seed, draw]).permutation(len(given.pool))[:num]


def told(given: Problem, num: int) -> np.ndarray:
    """Others too once the label has no more."""
    order = at_random(given, len(given.pool), 1000)
    return order[np.argsort(~given.held[given.pool[order]], kind="stable")][:num]


RULES: dict[str, Callable[[Problem, int], np.ndarray]] = {
    "": ours,
    "frames": frames,
    "farthest": farthest,
    "novelty": novelty,
    "kmeans": kmeans,
    "told": told,
}


class Linear:
    """Ridge on descriptors summed over atoms."""

    rules = tuple(RULES)
    num_draws = 20

    def __init__(self, data: Data):
        self.data = data
        scale = fit_standardizer(np.concatenate(data.x))
        counts = data.counts(range(len(data.frames))) / data.sizes[:, None]
        self.energies = [
            np.concatenate([scale.apply(x).mean(axis=0), count])
            for x, count in zip(data.x, counts, strict=True)
        ]
        self.forces = [
            np.pad(
                (slope / scale.scale).reshape(-1, slope.shape[-1]), ((0, 0), (0, counts.shape[1]))
            )
            for slope in data.slope
        ]
        per_atom = data.energy / data.sizes
        self.gram = np.stack(
            [f.T @ f + np.outer(e, e) for f, e in zip(self.forces, self.energies, strict=True)]
        )
        self.right = np.stack(
            [
                f.T @ target.reshape(-1) + e * energy
                for f, e, target, energy in zip(
                    self.forces, self.energies, data.forces, per_atom, strict=True
                )
            ]
        )

    def errors(self, given: Problem, rows: np.ndarray, seed: int) -> np.ndarray:
        """Mean absolute force error (eV / angstrom) of the test frames' components."""
        penalty = RIDGE * 3 * self.data.sizes[rows].sum() * np.eye(len(self.right[0]))
        weights = np.linalg.solve(
            self.gram[rows].sum(axis=0) + penalty, self.right[rows].sum(axis=0)
        )
        error = lambda i: np.abs(self.forces[i] @ weights - self.data.forces[i].reshape(-1))
        return judged(given, error)


class Network:
    """The package's network and atomic energies, 450 updates of four frames."""

    rules = ("", "farthest")
    num_draws = 3
    num_steps = 450

    def __init__(self, data: Data):
        self.data = data

    @cached_property
    def prepared(self):
        """The network with the standardisation of all frames, and every frame prepared."""
        data = self.data
        scale = fit_standardizer(np.concatenate(data.x))
        model = compose(
            reference=atomic_energy(data.descriptor.species),
            network=chebyshev_nn(data.descriptor, scale),
        )
        whole = batches(data.structures, model.cutoff, num_batches=1)
        (labelled,) = fit.prepare(model, whole, data.energy, data.forces)
        # in the order of the data again
        order = np.argsort(whole[0].frame)
        return model, jax.tree.map(lambda leaf: leaf[order], labelled)

    @cached_property
    def fitted(self):
        model, _ = self.prepared
        schedule = optax.warmup_cosine_decay_schedule(0.0, 5e-3, 50, self.num_steps, 5e-6)
        adam = optax.chain(
            optax.clip_by_global_norm(10.0), optax.adamw(schedule, weight_decay=1e-6)
        )

        @jax.jit
        def fitted(params, some, terms, key):
            def loss(network, frames):
                of_frame = partial(fit.residuals, model, {**params, "network": network})
                return jnp.mean(jax.vmap(lambda f: jnp.sum(of_frame(f, terms) ** 2))(frames))

            def update(carry, key):
                network, state = carry
                rows = jax.random.choice(key, len(some.energy), (4,), replace=False)
                slope = jax.grad(loss)(network, jax.tree.map(lambda leaf: leaf[rows], some))
                change, state = adam.update(slope, state, network)
                return (optax.apply_updates(network, change), state), None

            first = params["network"]
            keys = jax.random.split(key, self.num_steps)
            (network, _), _ = lax.scan(update, (first, adam.init(first)), keys)
            return {**params, "network": network}

        return fitted

    @cached_property
    def predicted(self):
        model, _ = self.prepared
        return jax.jit(lambda params, features: lax.map(partial(model.predict, params), features))

    def errors(self, given: Problem, rows: np.ndarray, seed: int) -> np.ndarray:
        model, everything = self.prepared
        key = jax.random.key(seed)
        params = model.init(key)
        counts = self.data.counts(rows)
        params["reference"]["energy"] = jnp.asarray(
            fit_atomic_energy(counts, self.data.energy[rows])
        )
        some = jax.tree.map(lambda leaf: leaf[rows], everything)
        params = self.fitted(params, some, fit.terms_of([some], 3.0, 0.0), key)
        tested = jax.tree.map(lambda leaf: leaf[given.test], everything)
        forces = np.asarray(self.predicted(params, tested.features).forces)
        place = {frame: row for row, frame in enumerate(given.test)}
        error = lambda i: np.abs(forces[place[i], : self.data.sizes[i]] - self.data.forces[i])
        return judged(given, error)


def judged(given: Problem, error: Callable[[int], np.ndarray]) -> np.ndarray:
    """Of the held-out label's test frames, and of the others'."""
    groups = (given.test[given.held[given.test]], given.test[~given.held[given.test]])
    return np.array([np.mean(np.concatenate([error(i).reshape(-1) for i in g])) for g in groups])


class Outcome(NamedTuple):
    """Of one rule, label and seed."""

    held: float
    others: float
    share: float
    """of the picks that are of the held-out label"""


def outcomes(model, given: Problem) -> dict[str, Outcome]:
    ratios: dict[str, list[np.ndarray]] = {name: [] for name in model.rules}
    share = {}
    fit_to = lambda picks, seed: model.errors(
        given, np.concatenate([given.start, given.pool[picks]]), seed
    )
    for num in NUM_PICKS:
        draws = [fit_to(at_random(given, num, d), d) for d in range(model.num_draws)]
        for name in model.rules:
            picks = RULES[name](given, num)
            ratios[name].append(fit_to(picks, 0) / np.mean(draws, axis=0))
            share[name] = float(np.mean(given.held[given.pool[picks]]))
    areas = {name: np.exp(np.mean(np.log(r), axis=0)) for name, r in ratios.items()}
    return {name: Outcome(*map(float, area), share[name]) for name, area in areas.items()}


def measured(data: Data, part: str, num_seeds: int) -> Iterator[dict[str, Any]]:
    model = {"linear": Linear, "network": Network}[part](data)
    found: dict[str, dict[str, list[Outcome]]] = {}
    for held in data.names:
        for seed in range(num_seeds):
            for name, outcome in outcomes(model, problem(data, held, seed)).items():
                found.setdefault(name, {}).setdefault(held, []).append(outcome)
    prefix = "selection" if part == "linear" else "selection-network"
    for rule, by_label in found.items():
        suffix = f"-{rule}" if rule else ""
        mean = {
            label: Outcome(*map(statistics.fmean, zip(*every, strict=True)))
            for label, every in by_label.items()
        }
        held = [outcome.held for outcome in mean.values()]
        others = [outcome.others for outcome in mean.values()]
        cells = [outcome.held for every in by_label.values() for outcome in every]
        figures = {
            "mean": statistics.fmean(held),
            "worst": max(held),
            "others": statistics.fmean(others),
            "others-worst": max(others),
            "below-1": statistics.fmean(value < 1 for value in cells),
            "share": statistics.fmean(outcome.share for outcome in mean.values()),
            **{label: outcome.held for label, outcome in mean.items()},
        }
        for name, value in figures.items():
            yield {"name": f"{prefix}-{name}{suffix}", "value": value, "unit": "1"}


NUM_SEEDS = {"linear": (3, 10), "network": (1, 3)}
"""by default, and with --full"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", metavar="DATA.extxyz")
    parser.add_argument("--full", action="store_true", help="ten seeds instead of three")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=NUM_SEEDS)
    options = parser.parse_args()
    head = {"data": options.data, "cores": len(os.sched_getaffinity(0))}
    print(
        json.dumps({**head, **{name: version(name) for name in ("jax", "jaxvae_md")}}), flush=True
    )
    try:
        data = Data(options.data)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    for part in [options.only] if options.only else NUM_SEEDS:
        for result in measured(data, part, NUM_SEEDS[part][options.full]):
            line = f"{result['name']:40} {result['value']:8.3f}"
            print(json.dumps(result) if options.json else line, flush=True)


if __name__ == "__main__":
    main()
