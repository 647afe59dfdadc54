"""What is generated: `python benchmarks/generation.py DATA.extxyz [--full] [--json] [--only PART]`.

DATA holds labelled frames (`info["label"]`).

`inversion`: cells of the label `melt`, as many atoms as its largest has, found again from their
standardised descriptors (cutoff 6.0, orders 12 + 12, scale of all frames) after Gaussian noise of
0.3 to 0.6 angstrom, which is the standard deviation of each coordinate: atoms are displaced by
sqrt(3) times as much (root mean square). Exact means a mean square of the standardised
descriptors' difference below 1e-6 and atoms within 0.05 angstrom (root mean square, without a
common translation). Different frames first, then the same with other noise. `value` is the share
that is exact, `first` the share without a restart; seconds are those of a cell, compiled, and
`worst` those of the noise that takes longest.

`novelty`: training sets S1 (labels crystal, strained, melt) and S2 (crystal), cells of the most
common size and one atom less. The current potential is a ridge on descriptors, fitted to the
frames' own labels. `value` counts failures: structures whose center is novel by 1.5 d95, and those
that another description (16 sorted distances, sorted cosines between the nearest eight) confirms
as novel by 1, over the structures asked for; the smaller of both splits. `rattle`, `strain` and
`md`: frames rattled, strained and simulated, simulated, at the mean energy of the generated ones.
`quench`: the share of the accepted still novel by 1.5 after a quench. `groups`: centers that
differ by 1 d95 or more (single linkage). `held-out`: the share within d95 of an environment of the
labels left out.

`useful`: 10 structures, labelled by Stillinger-Weber and added to 20 training frames; force RMSE
of a ridge with products of 12 principal components (`linear`: without) on vacancy, hot vacancy
(simulated at 1200 K) and surface frames, over that with frames of a simulation at the same energy
(or strained and simulated); geometric mean over kinds, the larger of both splits; 95 % intervals
over seeds. `worst` is the largest ratio of any kind, melt, crystal and strained included.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ridge import Ridge

from jaxvae_md import coverage, generate, read_frames
from jaxvae_md.descriptors import chebyshev, describe, fit_standardizer, perturbed
from jaxvae_md.errors import InputError
from jaxvae_md.generate.candidate import closest_pair
from jaxvae_md.generate.guard import guarded
from jaxvae_md.generate.invert import invert
from jaxvae_md.generate.moves import strained
from jaxvae_md.label import get_labeller
from jaxvae_md.learn.config import label_of, nearest_distance
from jaxvae_md.neighbors import host_pairs
from jaxvae_md.potentials import stillinger_weber
from jaxvae_md.simulate import nvt_langevin, run
from jaxvae_md.structure import from_atoms, species_table, stack, to_atoms
from jaxvae_md.units import BOLTZMANN
from jaxvae_md.vae import train, vae

jax.config.update("jax_enable_x64", True)
# one that imports coverage.py would find the benchmark of this name
sys.path.remove(os.path.dirname(os.path.abspath(__file__)))

NOISE = (0.3, 0.4, 0.5, 0.6)
"""standard deviation of each coordinate, in angstrom"""
RESIDUAL, DISTANCE = 1e-6, 0.05
"""what exact means; the second in angstrom"""


def inversion(path: str, full: bool) -> Iterator[dict[str, Any]]:
    frames = read_frames(path, labelled=False)
    descriptor = chebyshev(species_table(frames), 6.0, 12, 6.0, 12)
    x = describe(frames, descriptor)
    standardizer = fit_standardizer(np.concatenate(x))
    melt = [i for i, atoms in enumerate(frames) if label_of(atoms) == "melt"]
    if not melt:
        raise SystemExit(f"{path}: no frame has the label 'melt'")
    size = max(len(frames[i]) for i in melt)
    melt = [i for i in melt if len(frames[i]) == size]
    num = max(54, len(melt)) if full else 12
    # from the whole run, and not its first part
    order = np.random.default_rng(0).permutation(melt)
    rows = [int(order[k % len(order)]) for k in range(num)]
    cells = stack([from_atoms(frames[i], descriptor.species) for i in rows])
    target = np.stack([np.asarray(standardizer.apply(x[i])) for i in rows])
    seconds = []
    for noise in NOISE:
        rng = np.random.default_rng(round(100 * noise))
        start = cells.position + noise * rng.standard_normal(cells.position.shape)
        starts = cells._replace(position=start)
        # compiles for the sizes of this batch
        invert(descriptor, target, starts, standardizer, num_steps=1, num_restarts=0)
        began = time.perf_counter()
        result = invert(descriptor, target, starts, standardizer)
        taken = (time.perf_counter() - began) / num
        distance = rms_distance(result.structure.position, cells.position)
        exact = (result.residual < RESIDUAL) & (distance < DISTANCE)
        # error bits tell the same: nothing else may be taken for a solution
        wrong = int(np.sum((result.error == 0) & ~exact))
        seconds.append(taken)
        yield {
            "name": f"inversion-{noise}",
            "value": float(np.mean(exact)),
            "unit": "1",
            "num": num,
            "frames": len(set(rows)),
            "first": float(np.mean(exact & (result.attempt == 0))),
            "steps": float(np.mean(result.num_steps)),
            "seconds": taken,
            "wrong": wrong,
        }
    targets = seconds[: NOISE.index(0.5) + 1]
    yield {
        "name": "inversion-seconds",
        "value": float(np.mean(targets)),
        "unit": "s",
        "num": num,
        "worst": max(seconds),
    }


def rms_distance(position, reference) -> np.ndarray:
    """Of the atoms of each cell, in angstrom, without a common translation."""
    apart = position - reference
    apart = apart - apart.mean(axis=1, keepdims=True)
    return np.sqrt(np.mean(np.sum(apart**2, axis=-1), axis=-1))


SPLITS = {"S1": ("crystal", "strained", "melt"), "S2": ("crystal",)}
NOVEL, CONFIRMED = 1.5, 1.0
TEMPERATURE = 600.0
NUM_PRODUCTS = 12
BATCH = 16


class Data:
    """Frames with labels, and descriptors that scale with the material."""

    def __init__(self, path: str):
        self.path = path
        self.frames = read_frames(path)
        self.labels = np.array([label_of(atoms) for atoms in self.frames])
        self.nearest = nearest_distance(self.frames)
        cutoff = round(2.55 * self.nearest, 1)
        self.descriptor = chebyshev(species_table(self.frames), cutoff, 12, cutoff, 12)
        if len(self.descriptor.species) > 1:
            raise SystemExit(f"{path}: the force models here are for one element")
        self.x = describe(self.frames, self.descriptor)
        standardizer = fit_standardizer(np.concatenate(self.x))
        self.ridge = Ridge(self.descriptor, standardizer, self.nearest)
        sizes = [len(atoms) for atoms in self.frames]
        self.size = max(set(sizes), key=sizes.count)

    def rows(self, names: Sequence[str], whole: bool = True) -> np.ndarray:
        """Frames of some labels; with `whole` only cells of the common size, or one atom less."""
        fits = [not whole or len(a) in (self.size, self.size - 1) for a in self.frames]
        rows = np.nonzero(np.isin(self.labels, names) & fits)[0]
        if not len(rows):
            raise SystemExit(f"{self.path}: no frame has a label of {', '.join(names)}")
        return rows

    def setting(self, rows: Sequence[int], labels: Sequence, seed: int, with_vae: bool):
        """What generation knows when these frames are the training data."""
        frames = [self.frames[i] for i in rows]
        x = [self.x[i] for i in rows]
        standardizer = fit_standardizer(np.concatenate(x))
        z = [np.asarray(standardizer.apply(one)) for one in x]
        structures = [from_atoms(atoms, self.descriptor.species) for atoms in frames]
        some = np.random.default_rng(seed).permutation(len(rows))[:60]
        fitted = self.ridge.fit(
            self.ridge.frames([frames[i] for i in some]), [labels[i] for i in some]
        )
        params = self.ridge.params(fitted)
        potential = self.ridge.potential
        setting = generate.Setting(
            self.descriptor, standardizer, structures, coverage.fit_novelty(z, seed=seed),
            potential, params, generate.fit_guard(structures, potential, params, self.nearest),
            self.nearest, TEMPERATURE, x_train=np.concatenate(z),
        )  # fmt: skip
        if not with_vae:
            return setting
        more = perturbed(frames, 3, rattle=0.08 * self.nearest, seed=seed)
        copies = np.asarray(standardizer.apply(np.concatenate(describe(more, self.descriptor))))
        model = vae(self.descriptor.num_features, 8)
        x_train = np.concatenate([*z, copies]).astype(np.float32)
        model_params, _ = train(
            model, x_train, key=jax.random.key(seed), x_test=x_train[::10], num_steps=3000
        )
        return setting._replace(model=model, model_params=model_params)


def around(atoms, center: int, nearest: float) -> np.ndarray:
    """Another description: 16 sorted distances, and sorted cosines between the nearest eight."""
    structure = from_atoms(atoms, species_table([atoms]))
    reach = 3.5 * nearest
    i, j, shift = host_pairs(structure, reach)
    own = i == center
    vector = structure.position[j[own]] + shift[own] @ structure.cell - structure.position[center]
    distance = np.linalg.norm(vector, axis=1)
    order = np.argsort(distance)[:16]
    lengths = np.full(16, reach)
    lengths[: len(order)] = distance[order]
    direction = vector[order[:8]] / distance[order[:8], None]
    cosine = np.ones((8, 8))
    cosine[: len(direction), : len(direction)] = direction @ direction.T
    return np.append(lengths, np.sort(cosine[np.triu_indices(8, 1)]))


class Confirmation:
    """Novelty of centers in the other description."""

    def __init__(self, data: Data, rows: Sequence[int], seed: int):
        rng = np.random.default_rng(seed)
        self.nearest = data.nearest
        known = [
            np.stack([around(data.frames[i], int(k), self.nearest) for k in
                      rng.permutation(len(data.frames[i]))[:24]])
            for i in rows
        ]  # fmt: skip
        self.standardizer = fit_standardizer(np.concatenate(known), floor=1e-3)
        self.known = coverage.fit_novelty(
            [np.asarray(self.standardizer.apply(one)) for one in known], seed=seed
        )

    def __call__(self, atoms, center: int) -> float:
        q = self.standardizer.apply(around(atoms, center, self.nearest)[None])
        return float(coverage.novelty(self.known, jnp.asarray(q))[0])


def most_novel(data: Data, setting, frames: Sequence) -> list[tuple[float, int]]:
    """Novelty of the most novel atom of each frame, and which it is."""
    out = []
    for x in describe(frames, data.descriptor):
        n = np.asarray(coverage.novelty(setting.known, setting.standardizer.apply(jnp.asarray(x))))
        out.append((float(n.max()), int(n.argmax())))
    return out


def settled(setting, structures: Sequence, temperature: float, seed: int, **steps):
    """The same short quench and simulation that exploring makes, of any number of structures."""
    potential = guarded(setting.potential)
    params = {
        "current": setting.params,
        "repulsion": {"distance": setting.guard.min_distance},
    }
    size = 1 + max(len(s.position) for s in [*setting.training, *structures])
    quenched, moved = [], []
    for first in range(0, len(structures), BATCH):
        some = structures[first : first + BATCH]
        rows = np.resize(np.arange(len(some)), BATCH)
        out = generate.settle(
            potential, params, [some[i] for i in rows], np.full(BATCH, temperature),
            jax.random.key(seed + first), num_atoms=size, **steps,
        )  # fmt: skip
        quenched += out.stages[-2][: len(some)]
        moved += out.stages[-1][: len(some)]
    return quenched, moved


def controls(data: Data, setting, energy: float, num: int, seed: int) -> dict[str, list]:
    """Frames of the same mean energy by the usual ways, as ASE Atoms."""
    rng = np.random.default_rng(seed)
    start = [setting.training[i] for i in rng.integers(len(setting.training), size=num)]
    per_atom = lambda structures: np.mean(energies(setting, structures))
    low, _ = settled(setting, start, 0.0, seed, quench_steps=(200,), md_steps=0)
    excess = max(energy - per_atom(low), 1e-3)
    kelvin = excess / (1.5 * BOLTZMANN)
    _, simulated = settled(setting, start, kelvin, seed, quench_steps=(10,), md_steps=120)
    strain = []
    for one in start:
        tensor = rng.normal(0, 0.06, (3, 3))
        strain.append(strained(one, (tensor + tensor.T) / 2))
    _, strain = settled(setting, strain, TEMPERATURE, seed, quench_steps=(10,), md_steps=120)
    # displacements of which harmonic springs would make the same energy
    amplitude = 0.05
    for _ in range(6):
        noise = [rng.normal(0, amplitude, s.position.shape) for s in low]
        rattled = [s._replace(position=s.position + u) for s, u in zip(low, noise, strict=True)]
        amplitude *= np.sqrt(excess / max(per_atom(rattled) - per_atom(low), 1e-4))
        amplitude = min(amplitude, 0.2 * data.nearest)
    groups = {"rattle": rattled, "strain": strain, "md": simulated}
    return {
        name: [to_atoms(s, data.descriptor.species) for s in some if np.isfinite(s.position).all()]
        for name, some in groups.items()
    }


def energies(setting, structures) -> np.ndarray:
    """eV per atom by the current potential."""
    made = [generate.Candidate(s, -1, 0, "", "", None) for s in structures]
    measured, _ = generate.measure(setting, made, (0.0, np.inf), np.inf)
    return np.array([one.energy for one in measured])


def novelty(path: str, full: bool) -> Iterator[dict[str, Any]]:
    data = Data(path)
    num = 50 if full else 6
    given = [(a.get_potential_energy(), a.get_forces()) for a in data.frames]
    found: dict[str, list[float]] = {}
    for split, names in SPLITS.items():
        rows = data.rows(names)
        setting = data.setting(rows, [given[i] for i in rows], 0, with_vae=True)
        confirm = Confirmation(data, rows, 0)
        others = [i for i in range(len(data.frames)) if data.labels[i] not in names]
        report = {"split": split}
        for name, mix in {"": generate.MIX, "-decode": {"decode": 1.0}}.items():
            began = time.perf_counter()
            made = [
                one for one in generate.generate(setting, jax.random.key(0), num, mix)
                if not one.error
            ]  # fmt: skip
            seconds = (time.perf_counter() - began) / num
            frames = [to_atoms(one.structure, data.descriptor.species) for one in made]
            novel = [one.novelty >= NOVEL for one in made]
            sure = [
                q and confirm(atoms, one.center) > CONFIRMED
                for q, atoms, one in zip(novel, frames, made, strict=True)
            ]
            close = [closest_pair(one.structure, setting.guard) < 1 for one in made]
            high = [not one.energy < setting.guard.ceiling for one in made]
            result = {
                **report,
                "made": len(made),
                "novel": sum(novel) / num,
                "confirmed": sum(sure) / num,
                "unsound": sum(close) + sum(high),
                "shortest": min(
                    float(np.min(a.get_all_distances(mic=True)[~np.eye(len(a), dtype=bool)]))
                    for a in frames
                ) if frames else None,
                "seconds": seconds,
            }  # fmt: skip
            if name:
                residual = [one.residual for one in made]
                result["residual"] = max(residual, default=None)
            else:
                quenched, _ = settled(
                    setting,
                    [one.structure for one in made],
                    0.0,
                    0,
                    quench_steps=(400,),
                    md_steps=0,
                )
                after = [to_atoms(s, data.descriptor.species) for s in quenched]
                still = [n >= NOVEL for n, _ in most_novel(data, setting, after)]
                result["after-quench"] = sum(still) / num
                result["by"] = dict(Counter(one.reason for one in made))
                z = [
                    setting.standardizer.apply(x)[one.center]
                    for x, one in zip(describe(frames, data.descriptor), made, strict=True)
                ]
                result["groups"] = groups(np.array(z) / float(setting.known.d95))
                z_others = setting.standardizer.apply(np.concatenate([data.x[i] for i in others]))
                near = [
                    np.linalg.norm(np.asarray(z_others) - one, axis=1).min()
                    < float(setting.known.d95) for one in z
                ]  # fmt: skip
                result["held-out"] = sum(near) / num
                mean_energy = float(np.mean([one.energy for one in made]))
            for key in ("novel", "confirmed", "after-quench"):
                if key in result:
                    found.setdefault(f"generation-{key}{name}", []).append(result[key])
            yield {
                "name": f"generation-split{name}",
                "value": result["novel"],
                "unit": "1",
                **result,
            }
        for name, frames in controls(data, setting, mean_energy, num, 0).items():
            most = most_novel(data, setting, frames)
            sure = [
                n >= NOVEL and confirm(atoms, k) > CONFIRMED
                for (n, k), atoms in zip(most, frames, strict=True)
            ]
            found.setdefault(f"generation-novel-{name}", []).append(
                sum(n >= NOVEL for n, _ in most) / num
            )
            found.setdefault(f"generation-confirmed-{name}", []).append(sum(sure) / num)
    for name, values in found.items():
        least = max if name.endswith(("rattle", "strain", "md")) else min
        yield {"name": name, "value": least(values), "unit": "1", "num": num,
               **dict(zip(SPLITS, values, strict=True))}  # fmt: skip


def groups(points: np.ndarray) -> int:
    """How many there are when points nearer than 1 belong together."""
    group = np.arange(len(points))
    near = np.linalg.norm(points[:, None] - points, axis=-1) < 1
    for i, j in np.argwhere(np.triu(near, 1)):
        group[group == group[j]] = group[i]
    return len(set(group.tolist()))


def useful(path: str, full: bool) -> Iterator[dict[str, Any]]:
    data = Data(path)
    if data.descriptor.species != ("Si",):
        yield {"name": "generation-useful", "value": np.nan, "unit": "1",
               "skipped": "the reference is Stillinger-Weber, of silicon"}  # fmt: skip
        return
    labeller = get_labeller("sw")
    assert labeller is not None
    every = data.ridge.frames(data.frames)
    labels = [labeller(atoms) for atoms in data.frames]
    hot = hot_vacancies(data)
    hot = data.ridge.frames(hot), [labeller(atoms) for atoms in hot]
    rng = np.random.default_rng(0)
    ratios: dict[str, list] = {}
    for seed in range(10 if full else 1):
        for split, names in SPLITS.items():
            rows = np.random.default_rng(seed).permutation(data.rows(names))[:20]
            setting = data.setting(rows, [labels[i] for i in rows], seed, with_vae=True)
            test = {"hot vacancy": hot}
            for name in ("vacancy", "surface", "melt", "crystal", "strained"):
                left = np.setdiff1d(data.rows([name], whole=False), rows)
                left = rng.permutation(left)[:20]
                test[name] = [every[i] for i in left], [labels[i] for i in left]
            made = generate.generate(setting, jax.random.key(seed), 10)
            made = [one for one in made if not one.error]
            energy = float(np.mean([one.energy for one in made]))
            sets = controls(data, setting, energy, 10, seed)
            sets["ours"] = [to_atoms(one.structure, data.descriptor.species) for one in made]
            for num_products, model in ((NUM_PRODUCTS, ""), (0, "-linear")):
                error = {}
                for name, frames in {**sets, "none": []}.items():
                    if name == "rattle":
                        continue
                    more = data.ridge.frames(frames) if frames else []
                    fitted = data.ridge.fit(
                        [every[i] for i in rows] + more,
                        [labels[i] for i in rows] + [labeller(atoms) for atoms in frames],
                        num_products,
                    )
                    error[name] = {
                        kind: data.ridge.force_rmse(fitted, *one) for kind, one in test.items()
                    }
                for peer in ("md", "strain", "none"):
                    each = {k: error["ours"][k] / error[peer][k] for k in test}
                    ratios.setdefault(f"{split}{model}-{peer}", []).append(each)
                result = {"split": split, "made": len(made)}
                for name, of_kind in error.items():
                    result |= {f"{name} {kind}": value for kind, value in of_kind.items()}
                yield {
                    "name": f"generation-useful-seed{model}",
                    "value": seed,
                    "unit": "",
                    **result,
                }
    lacking = ("vacancy", "hot vacancy", "surface")
    for model in ("", "-linear"):
        for peer in ("md", "strain"):
            of_split = {}
            for split in SPLITS:
                logs = [
                    np.mean([np.log(one[kind]) for kind in lacking])
                    for one in ratios[f"{split}{model}-{peer}"]
                ]
                half = 1.96 * np.std(logs, ddof=1) / np.sqrt(len(logs)) if len(logs) > 1 else np.nan
                mean = np.mean(logs)
                of_split[split] = float(np.exp(mean))
                of_split[f"{split} from"] = float(np.exp(mean - half))
                of_split[f"{split} to"] = float(np.exp(mean + half))
            largest = max(of_split[split] for split in SPLITS)
            name = f"generation-useful{model}-{peer}"
            yield {"name": name, "value": largest, "unit": "1", **of_split}
        kinds = {}
        for split in SPLITS:
            of_seed = ratios[f"{split}{model}-md"]
            for kind in of_seed[0]:
                mean = np.mean([np.log(one[kind]) for one in of_seed])
                kinds[f"{split} {kind}"] = float(np.exp(mean))
        name = f"generation-useful{model}-worst"
        yield {"name": name, "value": max(kinds.values()), "unit": "1", **kinds}


def hot_vacancies(data: Data) -> list:
    """Frames of cells with a vacancy at 1200 K, by the reference."""
    potential = stillinger_weber()
    params = potential.init(jax.random.key(0))
    simulator = nvt_langevin(potential, dt=2.0, temperature=1200.0, friction=0.02)
    out = []
    for seed, row in enumerate(data.rows(["vacancy"], whole=False)[:3]):
        structure = from_atoms(data.frames[row], data.descriptor.species)
        trajectory = run(
            simulator, params, structure, jax.random.key(seed), 1500,
            initial_temperature=1200.0, record_every=300,
        )  # fmt: skip
        for position in trajectory.position[1:]:
            moved = structure._replace(position=np.asarray(position))
            out.append(to_atoms(moved, data.descriptor.species))
    return out


PARTS = {"inversion": inversion, "novelty": novelty, "useful": useful}


def readable(result: dict[str, Any]) -> str:
    rest = {key: v for key, v in result.items() if key not in ("name", "value", "unit")}
    said = ", ".join(
        f"{key} {v:.3g}" if isinstance(v, float) else f"{key} {v}" for key, v in rest.items()
    )
    return f"{result['name']:36} {result['value']:8.3f} ({said})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", metavar="DATA.extxyz")
    parser.add_argument("--full", action="store_true", help="more cells, at least 50")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=PARTS)
    options = parser.parse_args()
    head = {"data": options.data, "cores": len(os.sched_getaffinity(0))}
    for name in ("jax", "jaxvae_md"):
        try:
            head[name] = version(name)
        except PackageNotFoundError:
            head[name] = None
    print(json.dumps(head), flush=True)
    default = PARTS if options.full else ("inversion", "novelty")
    for part in [options.only] if options.only else default:
        try:
            for result in PARTS[part](options.data, options.full):
                print(json.dumps(result) if options.json else readable(result), flush=True)
        except InputError as error:
            raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
