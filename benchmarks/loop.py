"""The closed loop: `python benchmarks/loop.py [--full] [--seeds 0,1] [--oracle tersoff] ...`.

A potential of silicon starts with nine labelled frames of crystal. In four rounds ten structures
are chosen, labelled by the oracle and learned, with the current potential each time, and the force
error on frames of five kinds is taken after each round: the embedded set's frames, made with
another seed, which no arm ever sees, labelled by the oracle too. Three kinds more (amorphous, other
phases, interstitial) lie outside of everything.

The figure is the area under the curve of error against labels, from the first round on, over that
of random frames: below 1 is better. `loop-mean`: its mean over the five kinds, `loop-worst` the
kind with the largest, each a mean over seeds with its 95 % interval (t, of seeds alone: the test
frames are the same); `loop-from-start` counts the way to the first round too, and
`loop-without-surface` leaves out where chance is worst; `harmed` are kinds, of all eight, whose
interval lies above 1. Arms:

`ours`: `generate.acquire`, made and simulated candidates by coverage. `random`, `quests` and
`committee` choose from 24 frames of simulations with the current potential at 600 to 3000 K, as
those are made that `ours` sees beside its own: by chance; by the mean delta-H of the frame, one
after the other (PyPI quests, its defaults); by the largest spread of an atom's force among four
fits to frames drawn with replacement. `generated-random`, `-quests` and `-committee` choose from
what moves make in `ours`.

The potential is quadratic in principal components of 26 descriptors (cutoff 5 angstrom) over a
repulsive core: fitted in a second, always to the same minimum, and simulated as any of the package.
Scales of the descriptors are those of rattled crystal, for all arms.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.build import bulk
from scipy.stats import t as student

from jaxvae_md import datasets, generate, plot
from jaxvae_md.datasets.sampling import sampled
from jaxvae_md.descriptors import chebyshev, describe, fit_standardizer, perturbed
from jaxvae_md.generate.candidate import rng_of
from jaxvae_md.learn.config import label_of
from jaxvae_md.potentials import energy_and_forces, stillinger_weber, tersoff
from jaxvae_md.structure import Structure, from_atoms, to_atoms

# on the path for this import alone: numba, of quests, would find the benchmark coverage.py
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [HERE, *(path for path in sys.path if path != HERE)]
from ridge import Frame, Ridge, chunks  # noqa: E402

sys.path.remove(HERE)
jax.config.update("jax_enable_x64", True)

ORACLES: dict[str, Callable] = {"sw": stillinger_weber, "tersoff": lambda: tersoff(("Si",))}
SPECIES, LATTICE, NEAREST = ("Si",), 5.431, 2.35
NUM_ROUNDS, NUM_LABELS = 4, 10
NUM_TEST, NUM_PRODUCTS, NUM_MEMBERS = 12, 26, 4
PRIOR = (3.0, 300.0, 1e-9)
"""penalties of descriptors, products and the constant, in units of their size in rattled crystal"""
SOFT = 0.5
"""eV / angstrom: frames weigh less as their forces, beyond the core's, exceed it"""
OUTSIDE = ("amorphous", "phase", "interstitial")


class Loop:
    """What all arms share."""

    def __init__(self, oracle: str):
        descriptor = chebyshev(SPECIES, 5.0, 12, 5.0, 12)
        self.crystal = bulk("Si", cubic=True, a=LATTICE) * (2, 2, 2)
        rattled = [
            atoms
            for noise in (0.05, 0.15, 0.3)
            for atoms in perturbed([self.crystal] * 4, 1, rattle=noise, seed=1)
        ]
        standardizer = fit_standardizer(np.concatenate(describe(rattled, descriptor)))
        self.ridge = Ridge(descriptor, standardizer, NEAREST)
        some = self.ridge.frames(rattled)
        self.basis = self.ridge.basis(some, NUM_PRODUCTS)
        matrices = [self.ridge.matrix(frame, self.basis) for frame in some]
        self.scale = np.sqrt(np.mean(np.concatenate(matrices) ** 2, axis=0))
        self.scale[-1] = 1.0
        self.oracle = ORACLES[oracle]()
        of = self.oracle.init(jax.random.key(0))
        self._label = jax.jit(
            lambda s, n: jax.lax.map(
                lambda a: energy_and_forces(self.oracle.energy, of, *a), (s, n)
            )
        )
        members = lambda params, a: jax.vmap(
            lambda p: energy_and_forces(self.ridge.potential.energy, p, *a)[1]
        )(params)
        self._forces = jax.jit(
            lambda params, s, n: jax.lax.map(lambda a: members(params, a), (s, n))
        )

    def start(self, seed: int) -> list[Structure]:
        """Crystal of three temperatures, and of the seed."""
        rng = np.random.default_rng([1000, seed])
        frames = [
            a for kelvin in (300.0, 600.0, 900.0) for a in sampled(self.crystal, kelvin, 3, rng)
        ]
        return [from_atoms(atoms, SPECIES) for atoms in frames]

    @cached_property
    def test(self) -> dict[str, list]:
        """Equations of the frames of every kind."""
        kinds: dict[str, list] = {}
        for atoms in [*datasets.silicon(), *datasets.silicon_dft_held_out()]:
            kinds.setdefault(label_of(atoms), []).append(from_atoms(atoms, SPECIES))
        rng = np.random.default_rng(5)
        some = {k: [every[i] for i in rng.permutation(len(every))[:NUM_TEST]]
                for k, every in kinds.items()}  # fmt: skip
        return {kind: self.equations(structures) for kind, structures in some.items()}

    def equations(self, structures: Sequence[Structure]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each structure the matrix and what the oracle says beyond the core."""
        if not structures:
            return []
        frames = self.ridge.frames([to_atoms(one, SPECIES) for one in structures])
        labels: list[np.ndarray] = []
        for rows, batch, neighbors in chunks(structures, self.oracle.cutoff):
            energy, forces = map(np.asarray, self._label(batch, neighbors))
            for slot in range(len(rows)):
                mask = batch.mask[slot]
                labels.append(np.append(energy[slot] / mask.sum(), forces[slot][mask].ravel()))
        return [self._equation(*pair) for pair in zip(frames, labels, strict=True)]

    def _equation(self, frame: Frame, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.ridge.matrix(frame, self.basis), label - frame.core

    def fit(self, known: Sequence, draws: np.ndarray | None = None) -> dict:
        """Parameters by ridge regression; a whole energy (eV) weighs as a force (eV / angstrom)."""
        gram, right, _ = self.normal_equations(known, draws)
        solution = np.linalg.solve(gram + np.diag(self.penalty), right)
        return self.ridge.params((self.basis, solution / self.scale))

    def normal_equations(
        self, known: Sequence, draws: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """A^T A, A^T y and y^T y, of scaled coefficients."""
        gram, right, rest = 0.0, 0.0, 0.0
        times_each = np.ones(len(known)) if draws is None else draws
        for (a, y), times in zip(known, times_each, strict=True):
            weight = np.full(len(y), np.sqrt(times * SOFT / (SOFT**2 + np.mean(y[1:] ** 2))))
            weight[0] *= (len(y) - 1) / 3
            a, y = a / self.scale * weight[:, None], y * weight
            gram, right, rest = gram + a.T @ a, right + a.T @ y, rest + y @ y
        return np.asarray(gram), np.asarray(right), float(rest)

    @cached_property
    def penalty(self) -> np.ndarray:
        num = self.ridge.descriptor.num_features
        return np.repeat(PRIOR, [num, len(self.scale) - num - 1, 1])

    def errors(self, params: dict) -> dict[str, tuple[float, float]]:
        """Mean absolute errors of forces (eV / angstrom) and energies per atom (eV)."""
        coefficients, out = np.asarray(params["quadratic"]["coefficients"]), {}
        for kind, known in self.test.items():
            wrong = [np.abs(a @ coefficients - y) for a, y in known]
            forces, energies = np.concatenate([w[1:] for w in wrong]), [w[0] for w in wrong]
            out[kind] = float(np.mean(forces)), float(np.mean(energies))
        return out

    def setting(self, params: dict, labelled: Sequence[Structure], seed: int) -> generate.Setting:
        ridge, frames = self.ridge, [to_atoms(one, SPECIES) for one in labelled]
        return generate.setting(
            frames, ridge.descriptor, ridge.potential, params, NEAREST, 600.0, seed,
            ridge.standardizer,
        )  # fmt: skip

    def spread(self, members: Sequence[dict], structures: Sequence[Structure]) -> np.ndarray:
        """The largest deviation of a force among the members, of each structure."""
        params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
        out = []
        for rows, batch, neighbors in chunks(structures, self.ridge.descriptor.cutoff):
            forces = np.asarray(self._forces(params, batch, neighbors))
            deviation = np.sqrt(np.sum(np.var(forces, axis=1, ddof=1), axis=-1))
            out += [deviation[i][batch.mask[i]].max() for i in range(len(rows))]
        return np.array(out)


# rules: (loop, equations, labelled, pool, num, rng) -> positions in the pool


def at_random(loop, known, labelled, pool, num: int, rng) -> Sequence[int]:
    return rng.permutation(len(pool))[:num]


def by_quests(loop, known, labelled, pool, num: int, rng) -> Sequence[int]:
    from quests.descriptor import get_descriptors
    from quests.entropy import delta_entropy

    describe = lambda some: [get_descriptors([to_atoms(one, SPECIES)]) for one in some]
    seen, y = np.concatenate(describe(labelled)), describe(pool)
    picks: list[int] = []
    while len(picks) < min(num, len(pool)):
        lack = [
            -np.inf if i in picks else np.mean(delta_entropy(y[i], seen)) for i in range(len(y))
        ]
        picks.append(int(np.argmax(lack)))
        seen = np.concatenate([seen, y[picks[-1]]])
    return picks


def by_committee(loop, known, labelled, pool, num: int, rng) -> Sequence[int]:
    draws = rng.multinomial(len(known), np.full(len(known), 1 / len(known)), NUM_MEMBERS)
    members = [loop.fit(known, times) for times in draws]
    return np.argsort(-loop.spread(members, pool))[:num]


RULES = {"random": at_random, "quests": by_quests, "committee": by_committee}
PEERS = tuple(RULES)
ARMS = ("ours", *PEERS, *(f"generated-{rule}" for rule in RULES))


def chosen(arm: str, loop: Loop, known, params, labelled, seed: int, key) -> list[Structure]:
    """The structures that an arm has labelled next."""
    setting = loop.setting(params, labelled, seed)
    if arm == "ours":
        found = generate.acquire(setting, key, NUM_LABELS)
        return [one.structure for one in found if not one.error][:NUM_LABELS]
    made, _, rule = arm.rpartition("-")
    if made:
        pool = generate.candidates(setting, key, NUM_LABELS)
        pool = [one for one in pool if one.route != "simulate" and not one.error]
    else:
        pool = generate.simulated(setting, key)
    structures = [one.structure for one in pool]
    picks = RULES[rule](loop, known, labelled, structures, NUM_LABELS, rng_of(key))
    return [structures[i] for i in picks]


def rounds(arm: str, loop: Loop, seed: int) -> Iterator[tuple[int, dict, list]]:
    """Number of labels, the potential's parameters and the equations of its labels, each round."""
    labelled = loop.start(seed)
    num_start, known = len(labelled), loop.equations(labelled)
    for number in range(NUM_ROUNDS + 1):
        params = loop.fit(known)
        yield len(labelled) - num_start, params, known
        if number < NUM_ROUNDS:
            key = jax.random.fold_in(jax.random.key(seed), number)
            more = chosen(arm, loop, known, params, labelled, seed, key)
            labelled, known = [*labelled, *more], [*known, *loop.equations(more)]


def learned(arm: str, loop: Loop, seed: int) -> tuple[dict, list]:
    """Parameters and equations of the last round."""
    *_, (_, params, known) = rounds(arm, loop, seed)
    return params, known


def curve(arm: str, seed: int, oracle: str) -> dict[str, Any]:
    """Errors of one arm and seed by kind, after each round."""
    began = time.perf_counter()
    loop = _loop(oracle)
    num, errors = [], []
    for labels, params, _ in rounds(arm, loop, seed):
        num.append(labels)
        errors.append(loop.errors(params))
    return {
        "arm": arm,
        "seed": seed,
        "oracle": oracle,
        "num": num,
        "errors": errors,
        "seconds": time.perf_counter() - began,
    }


@lru_cache(maxsize=1)
def _loop(oracle: str) -> Loop:
    return Loop(oracle)


def area(one: dict[str, Any], kind: str, column: int, first: int = NUM_LABELS) -> float:
    """Under the curve from `first` labels on, a label; on one grid for all arms."""
    grid = np.arange(first, NUM_ROUNDS * NUM_LABELS + 1)
    errors = [e[kind][column] for e in one["errors"]]
    return float(np.trapezoid(np.interp(grid, one["num"], errors), grid) / (grid[-1] - first))


def interval(values: Sequence[float]) -> dict[str, Any]:
    mean, num = float(np.mean(values)), len(values)
    if num == 1:
        return {"value": mean, "seeds": 1}
    half = float(student.ppf(0.975, num - 1) * np.std(values, ddof=1) / np.sqrt(num))
    return {"value": mean, "from": mean - half, "to": mean + half, "seeds": num}


def figures(curves: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    by_seed: dict[int, dict[str, dict]] = {}
    for one in curves:
        by_seed.setdefault(one["seed"], {})[one["arm"]] = one
    paired = [arms for arms in by_seed.values() if "random" in arms]
    for arm in ARMS:
        pairs = [(arms[arm], arms["random"]) for arms in paired if arm in arms]
        if arm == "random" or not pairs:
            continue
        suffix = "" if arm == "ours" else f"-{arm}"
        kinds = list(pairs[0][0]["errors"][0])
        five = [kind for kind in kinds if kind not in OUTSIDE]
        for column, infix in ((0, ""), (1, "energy-")):
            ratio = {
                kind: [area(one, kind, column) / area(other, kind, column) for one, other in pairs]
                for kind in kinds
            }
            found = {kind: interval(values) for kind, values in ratio.items()}
            means = lambda names, ratio=ratio: np.mean([ratio[k] for k in names], axis=0)
            yield {"name": f"loop-{infix}mean{suffix}", "unit": "1", **interval(means(five))}
            worst = max(five, key=lambda kind: found[kind]["value"])
            harmed = [kind for kind in kinds if found[kind].get("from", 0) > 1]
            yield {"name": f"loop-{infix}worst{suffix}", "unit": "1", **found[worst],
                   "kind": worst, "harmed": harmed}  # fmt: skip
            yield {"name": f"loop-{infix}outside{suffix}", "unit": "1", **interval(means(OUTSIDE))}
            rest = [kind for kind in five if kind != "surface"]
            yield {"name": f"loop-{infix}without-surface{suffix}", "unit": "1",
                   **interval(means(rest))}  # fmt: skip
            whole = [
                np.mean([area(one, k, column, 0) / area(other, k, column, 0) for k in five])
                for one, other in pairs
            ]
            yield {"name": f"loop-{infix}from-start{suffix}", "unit": "1", **interval(whole)}
            for kind in kinds:
                yield {"name": f"loop-{infix}{kind}{suffix}", "unit": "1", **found[kind]}
    seconds = [sum(one["seconds"] for one in arms.values()) for arms in by_seed.values()]
    yield {"name": "loop-seconds-of-a-core", "value": float(np.mean(seconds)), "unit": "s"}


def picture(curves: Sequence[dict[str, Any]], path: str) -> None:
    """Force errors against labels by kind."""
    by_arm = {arm: [one for one in curves if one["arm"] == arm] for arm in ARMS}
    by_arm = {arm: some for arm, some in by_arm.items() if some}
    errors = {
        kind + (" (outside)" if kind in OUTSIDE else ""): {
            arm: np.array([[1e3 * e[kind][0] for e in one["errors"]] for one in some])
            for arm, some in by_arm.items()
        }
        for kind in curves[0]["errors"][0]
    }
    num = {arm: np.mean([one["num"] for one in some], axis=0) for arm, some in by_arm.items()}
    plot.learning_curves(errors, num).savefig(path)


def _keep_to_a_core(cores) -> None:
    """Threads of one process would only wait for the other."""
    os.sched_setaffinity(0, {cores.get()})


def all_curves(arms, seeds, oracle: str, out: str | None) -> list[dict[str, Any]]:
    """A process on each of two cores; what `out` has is not computed again."""
    done: list[dict[str, Any]] = []
    if out is not None and Path(out).exists():
        every = [json.loads(line) for line in Path(out).read_text().splitlines()]
        done = [one for one in every if one["oracle"] == oracle and one["seed"] in seeds]
    have = {(one["seed"], one["arm"]) for one in done}
    tasks = [(seed, arm) for seed in seeds for arm in arms if (seed, arm) not in have]
    context, some = get_context("spawn"), sorted(os.sched_getaffinity(0))[:2]
    cores = context.Queue()
    for core in some:
        cores.put(core)
    with ProcessPoolExecutor(len(some), context, _keep_to_a_core, (cores,)) as pool:
        for future in as_completed([pool.submit(curve, arm, seed, oracle) for seed, arm in tasks]):
            one = future.result()
            done.append(one)
            if out is not None:
                with open(out, "a") as file:
                    file.write(json.dumps(one) + "\n")
            print(f"{one['arm']}, seed {one['seed']}: {one['seconds']:.0f} s", file=sys.stderr)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--full", action="store_true", help="ten seeds, and rules on generated candidates"
    )
    parser.add_argument("--seeds", help="numbers with commas; by default 0")
    parser.add_argument("--arms", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--oracle", choices=ORACLES, default="sw")
    parser.add_argument("--out", help="file of curves: a run that was stopped goes on from it")
    parser.add_argument("--figure", help="PNG of error against labels")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seeds = [int(s) for s in options.seeds.split(",")] if options.seeds else range(
        10 if options.full else 1)  # fmt: skip
    arms = options.arms.split(",") if options.arms else (
        ARMS if options.full else ("ours", *PEERS))  # fmt: skip
    if unknown := set(arms) - set(ARMS):
        raise SystemExit(f"no such arm: {', '.join(unknown)}; give some of {', '.join(ARMS)}")
    head: dict[str, Any] = {"oracle": options.oracle, "cores": len(os.sched_getaffinity(0))}
    for name in ("jax", "jaxvae_md", "quests"):
        try:
            head[name] = version(name)
        except PackageNotFoundError:
            head[name] = None
    if head["quests"] is None:
        arms = [arm for arm in arms if not arm.endswith("quests")]
    print(json.dumps(head), flush=True)
    curves = all_curves(arms, seeds, options.oracle, options.out)
    for result in figures(curves):
        rest = {k: v for k, v in result.items() if k not in ("name", "value", "unit")}
        line = f"{result['name']:40} {result['value']:8.3f} {result['unit']:3} {rest or ''}"
        print(json.dumps(result) if options.json else line, flush=True)
    if options.figure:
        picture(curves, options.figure)


if __name__ == "__main__":
    main()
