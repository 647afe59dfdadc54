"""What the data lack: `python benchmarks/coverage.py DATA.extxyz [--full] [--json] [--only PART]`.

DATA holds labelled frames (`info["label"]`); nothing of it is fitted on by name except that the
label `melt` stays among the training data. Whole structures are split, never atoms. Descriptors:
cutoff 2.55 nearest-neighbor distances, orders 12 + 12, standardised on training frames. One split
by default, five with --full (mean; `worst` is the worst of all splits).

`vae`: R2 of held-out descriptors. `labels`: five-fold kNN of labels in a plane learned without
them. `gaps`: one label left out of training, its environments against held-in test environments,
AUROC per atom. `dilute`: one atom taken out of a held-out crystal, repeated to some 500 atoms.
`verdict`: false alarms in four-fold cross-validation. `seconds`: on one core.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from one_core import one_core
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from jaxvae_md import coverage, read_frames
from jaxvae_md.descriptors import chebyshev, describe, fit_standardizer, perturbed
from jaxvae_md.errors import InputError
from jaxvae_md.learn.config import label_of, nearest_distance
from jaxvae_md.structure import species_table
from jaxvae_md.vae import active_dims, pca_reconstruction, reconstruction_report, train, vae

jax.config.update("jax_enable_x64", True)
# numba, of quests, looks for the coverage of PyPI and would find this file
sys.path.remove(os.path.dirname(os.path.abspath(__file__)))

NUM_FOLDS = 5
FALSE_ALARM = 0.05
BASELINES = {
    "knn": coverage.nearest_neighbors,
    "mahalanobis": coverage.mahalanobis,
    "recon": coverage.reconstruction,
}


class Data:
    """Frames, their labels, and descriptors that scale with the material."""

    def __init__(self, path: str):
        self.frames = read_frames(path, labelled=False)
        self.labels = np.array([label_of(atoms) for atoms in self.frames])
        names, counts = np.unique(self.labels, return_counts=True)
        if len(names) < 2:
            raise SystemExit(
                f"{path}: one label only, {str(names[0])!r}; give frames of several kinds"
            )
        if counts.min() < NUM_FOLDS:
            few = str(names[np.argmin(counts)])
            raise SystemExit(
                f"{path}: {counts.min()} frames of {few!r} are fewer than {NUM_FOLDS} folds"
            )
        self.nearest = nearest_distance(self.frames)
        cutoff = round(2.55 * self.nearest, 1)
        self.descriptor = chebyshev(species_table(self.frames), cutoff, 12, cutoff, 12)
        self.x = describe(self.frames, self.descriptor)
        self.kinds = np.array([list(names).index(label) for label in self.labels])
        self.names = list(names)

    def pick(self, rows: Sequence[int]) -> list:
        return [self.frames[i] for i in rows]

    def split(self, seed: int, share: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
        """Training and test frames, the same share of every label."""
        fold = self.folds(seed, round(1 / share))
        return np.nonzero(fold != 0)[0], np.nonzero(fold == 0)[0]

    def folds(self, seed: int, num: int) -> np.ndarray:
        rng, fold = np.random.default_rng(seed), np.zeros(len(self.frames), int)
        for name in self.names:
            members = rng.permutation(np.nonzero(self.labels == name)[0])
            fold[members] = np.arange(len(members)) % num
        return fold

    def around(self, train_rows: Sequence[int], frames: Sequence) -> list[coverage.Surroundings]:
        standardizer = fit_standardizer(np.concatenate([self.x[i] for i in train_rows]))
        return coverage.surroundings(frames, self.descriptor, standardizer, self.nearest)

    def sizes(self, rows: Sequence[int]) -> list[int]:
        return [len(self.frames[i]) for i in rows]


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a positive scores above a negative."""
    rank, num = rankdata(np.concatenate([positive, negative])), len(positive)
    return float((rank[:num].sum() - num * (num + 1) / 2) / (num * len(negative)))


def standardised(data: Data, train_rows, *others) -> list[np.ndarray]:
    standardizer = fit_standardizer(np.concatenate([data.x[i] for i in train_rows]))
    parts = (np.concatenate([data.x[i] for i in rows]) for rows in (train_rows, *others))
    return [np.asarray(standardizer.apply(part), np.float32) for part in parts]


def reconstruction(data: Data, seed: int) -> Iterator[tuple[str, float]]:
    """A tenth of the training frames decides when to stop; ten perturbed copies of the others."""
    train_rows, test_rows = data.split(seed, 0.2)
    stop = train_rows[seed % 10 :: 10]
    began = time.perf_counter()
    z, z_stop, z_test = standardised(data, train_rows, stop, test_rows)
    kept = np.setdiff1d(train_rows, stop)
    copies = perturbed(data.pick(kept), 10, rattle=0.08 * data.nearest, seed=seed)
    standardizer = fit_standardizer(np.concatenate([data.x[i] for i in train_rows]))
    more = np.concatenate([*(data.x[i] for i in kept), *describe(copies, data.descriptor)])
    more = np.asarray(standardizer.apply(more), np.float32)
    yield "vae-copies-seconds", time.perf_counter() - began
    for latent_dim in (8, 2):
        model = vae(z.shape[1], latent_dim)
        began = time.perf_counter()
        params, _ = train(
            model, more, key=jax.random.key(seed), x_test=z_stop, beta=0.1, learning_rate=6e-3
        )
        seconds = time.perf_counter() - began
        report = reconstruction_report(model, params, z, z_test, num_refinements=3)
        encoder = reconstruction_report(model, params, z, z_test)
        yield f"vae-r2-latent{latent_dim}", report.r2.mean()
        yield f"vae-r2-latent{latent_dim}-encoder", encoder.r2.mean()
        yield f"vae-r2-latent{latent_dim}-pca", report.r2_pca.mean()
        if latent_dim == 8:
            yield "vae-r2-worst", report.r2.min()
            yield "vae-r2-worst-encoder", encoder.r2.min()
            yield "vae-r2-worst-pca", report.r2_pca.min()
            yield "vae-active", active_dims(report.kl[None])
            yield "vae-train-seconds", seconds


def planes(data: Data, seed: int) -> Iterator[tuple[str, float]]:
    """Learned on the training folds, without labels: from x, and from x pooled over neighbors."""
    fold, found = data.folds(seed, NUM_FOLDS), {}
    for k in range(NUM_FOLDS):
        train_rows, test_rows = np.nonzero(fold != k)[0], np.nonzero(fold == k)[0]
        y = data.around(train_rows, data.frames)
        for view in ("own", "near"):
            points = [np.asarray(getattr(part, view)) for part in y]
            scale = fit_standardizer(np.concatenate([points[i] for i in train_rows]), floor=1e-6)
            z = [np.asarray(scale.apply(part), np.float32) for part in points]
            every = [np.concatenate([z[i] for i in rows]) for rows in (train_rows, test_rows)]
            for name, plane in projections(z, train_rows, seed):
                codes = [plane(part) for part in every]
                judge_plane(found, f"{view} {name}", data, codes, train_rows, test_rows)
    # the plane of the surroundings is the map that the package draws
    suffix = {"near vae": "", "near pca": "-pca", "near umap": "-umap", "own vae": "-single"}
    suffix |= {"own pca": "-single-pca", "own umap": "-single-umap"}
    for (plane, unit), pairs in found.items():
        truth, guess = (np.concatenate(part) for part in zip(*pairs, strict=True))
        recall = [np.mean(guess[truth == kind] == kind) for kind in np.unique(truth)]
        yield f"labels-{unit}{suffix[plane]}", float(np.mean(recall))


def projections(z, train_rows, seed: int) -> Iterator[tuple[str, Callable]]:
    known = np.concatenate([z[i] for i in train_rows])
    stop = train_rows[::12]
    model = vae(known.shape[1], 2, hidden=(128, 128))
    params, _ = train(
        model, np.concatenate([z[i] for i in np.setdiff1d(train_rows, stop)]),
        key=jax.random.key(seed), x_test=np.concatenate([z[i] for i in stop]),
        num_steps=4000, learning_rate=2e-3,
    )  # fmt: skip
    yield "vae", lambda part: np.asarray(model.encode(params, part)[0])
    yield "pca", lambda part: pca_reconstruction(known, part, 2)[1]
    try:
        from umap import UMAP
    except ImportError:
        return
    if os.environ.get("JAXVAE_MD_UMAP"):
        # minutes a fold: asked for by name
        yield "umap", UMAP(n_components=2, random_state=seed).fit(known).transform


def judge_plane(found, name, data: Data, codes, train_rows, test_rows) -> None:
    truth = [np.repeat(data.kinds[rows], data.sizes(rows)) for rows in (train_rows, test_rows)]
    guess = balanced_knn(codes[0], truth[0], codes[1], 15)
    found.setdefault((name, "atom"), []).append((truth[1], guess))
    means = [
        np.stack([part.mean(axis=0) for part in np.split(c, np.cumsum(data.sizes(rows))[:-1])])
        for c, rows in zip(codes, (train_rows, test_rows), strict=True)
    ]
    guess = balanced_knn(means[0], data.kinds[train_rows], means[1], 3)
    found.setdefault((name, "structure"), []).append((data.kinds[test_rows], guess))


def balanced_knn(known, kinds, points, k: int) -> np.ndarray:
    """Majority of the k nearest, a vote's weight being one over the number of its kind."""
    _, near = cKDTree(known).query(points, k=k)
    prior = np.maximum(np.bincount(kinds), 1)
    votes = np.stack([np.sum(kinds[near] == c, axis=1) / prior[c] for c in range(len(prior))], 1)
    return votes.argmax(axis=1)


def gaps(data: Data, seed: int) -> Iterator[tuple[str, float]]:
    train_rows, test_rows = data.split(seed)
    methods = {"": None, "local": coverage.local_ratio, **BASELINES}
    found: dict[str, dict[str, float]] = {name: {} for name in [*methods, "quests"]}
    for label in data.names:
        if label == "melt":
            continue
        known = train_rows[data.labels[train_rows] != label]
        held_in = test_rows[data.labels[test_rows] != label]
        held_out = np.nonzero(data.labels == label)[0]
        rows = np.concatenate([held_in, held_out])
        y = data.around(known, data.pick(np.concatenate([known, rows])))
        training, new = y[: len(known)], coverage.joined(y[len(known) :])
        none = jnp.full(len(new.own), -1)
        for name, method in methods.items():
            fitted = (method or coverage.latent_ratio)()(training, seed)
            scores = np.asarray(coverage.plain_score(fitted, new, none))
            record(found[name], data, label, scores, held_in, held_out)
        scores = by_quests(data, known, rows)
        if scores is not None:
            record(found["quests"], data, label, scores, held_in, held_out)
    for name, values in found.items():
        by_label = {key: v for key, v in values.items() if key in data.names}
        if not by_label:
            continue
        infix = f"-{name}" if name in ("", "local") and name else ""
        suffix = f"-{name}" if name not in ("", "local") else ""
        yield f"gap-auroc{infix}-mean{suffix}", float(np.mean(list(by_label.values())))
        yield f"gap-auroc{infix}-worst{suffix}", min(by_label.values())
        if name == "":
            yield "gap-auroc-latent-mean", float(np.mean(list(by_label.values())))
        for key in ("vacancy-atoms", "within"):
            if key in values:
                yield f"gap-auroc{infix}-{key}{suffix}", values[key]
        for key, value in by_label.items():
            yield f"gap-auroc{infix}-{key}{suffix}", value


def record(values, data: Data, label: str, scores, held_in, held_out) -> None:
    parts = np.split(scores, np.cumsum(data.sizes([*held_in, *held_out]))[:-1])
    known = np.concatenate(parts[: len(held_in)])
    outside = parts[len(held_in) :]
    values[label] = auroc(np.concatenate(outside), known)
    if label == "vacancy":
        touching = [touches_void(data, i) for i in held_out]
        rim = np.concatenate([part[t] for part, t in zip(outside, touching, strict=True)])
        values["vacancy-atoms"] = auroc(rim, known)
        within = [auroc(part[t], part[~t]) for part, t in zip(outside, touching, strict=True)]
        values["within"] = float(np.mean(within))


_VOIDS: dict[int, np.ndarray] = {}


def touches_void(data: Data, number: int) -> np.ndarray:
    """Atoms around the emptiest point, as many as an atom of the crystal has neighbors."""
    if number not in _VOIDS:
        atoms = data.frames[number]
        grid = [np.arange(n) / n for n in np.ceil(atoms.cell.lengths() / 0.35).astype(int)]
        point = np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, 3) @ atoms.cell.array
        images = np.array(list(np.ndindex(3, 3, 3))) - 1
        every = atoms.get_positions(wrap=True)[None] + (images @ atoms.cell.array)[:, None]
        tree = cKDTree(every.reshape(-1, 3))
        apart, _ = tree.query(point, k=30)
        density = np.sum(np.exp(-0.5 * (apart / (0.5 * data.nearest)) ** 2), axis=1)
        _, rim = tree.query(point[np.argmin(density)], k=coordination(data))
        _VOIDS[number] = np.isin(np.arange(len(atoms)), rim % len(atoms))
    return _VOIDS[number]


def coordination(data: Data) -> int:
    """The commonest number of neighbors within 1.25 nearest-neighbor distances in crystals."""
    from ase.neighborlist import neighbor_list

    some = np.nonzero(data.labels == "crystal")[0][:10]
    counts = [np.bincount(neighbor_list("i", data.frames[n], 1.25 * data.nearest)) for n in some]
    return int(np.bincount(np.concatenate(counts)).argmax())


_QUESTS: dict[int, np.ndarray] = {}


def by_quests(data: Data, known, rows) -> np.ndarray | None:
    """The package's delta-H on its own descriptors; the formula in JAX must give the same."""
    try:
        from quests.descriptor import get_descriptors
        from quests.entropy import delta_entropy
    except ImportError:
        return None
    for i in {*known.tolist(), *rows.tolist()} - set(_QUESTS):
        _QUESTS[i] = get_descriptors([data.frames[i]])
    x, y = (np.concatenate([_QUESTS[i] for i in part]) for part in (known, rows))
    theirs = delta_entropy(y, x)
    some = np.nonzero(np.isfinite(theirs))[0][:500]
    ours = np.asarray(coverage.delta_entropy(jnp.asarray(y[some]), jnp.asarray(x)))
    assert np.abs(ours - theirs[some]).max() < 1e-3
    return np.where(np.isfinite(theirs), theirs, 1e6)


def dilute(data: Data, seed: int) -> Iterator[tuple[str, float]]:
    if not {"crystal", "vacancy"} <= set(data.names):
        return
    train_rows, test_rows = data.split(seed)
    known = train_rows[data.labels[train_rows] != "vacancy"]
    rng = np.random.default_rng(seed)
    intact, holes, rims = [], [], []
    for i in test_rows[data.labels[test_rows] == "crystal"][:12]:
        times = max(1, round((512 / len(data.frames[i])) ** (1 / 3)))
        atoms = data.frames[i].repeat(times)
        gone = int(rng.integers(len(atoms)))
        apart = atoms.get_distances(gone, np.arange(len(atoms)), mic=True)
        rim = np.argsort(apart)[1 : 1 + coordination(data)]
        hole = atoms.copy()
        del hole[gone]
        intact, holes = [*intact, atoms], [*holes, hole]
        rims.append(np.isin(np.arange(len(hole)), rim - (rim > gone)))
    y = data.around(known, [*data.pick(known), *intact, *holes])
    model = coverage.fit(y[: len(known)], data.kinds[known], FALSE_ALARM, seed)
    scores = [np.asarray(coverage.score(model, part)) for part in y[len(known) :]]
    of_intact, of_holes = scores[: len(intact)], scores[len(intact) :]
    ranked = [auroc(part[r], part[~r]) for part, r in zip(of_holes, rims, strict=True)]
    flagged = lambda parts: float(
        np.mean([coverage.frame_score(p) > float(model.frame_threshold) for p in parts])
    )
    yield "gap-auroc-dilute", float(np.mean(ranked))
    yield "gap-auroc-dilute-lowest", min(ranked)
    yield "gap-flagged-dilute", flagged(of_holes)
    yield "gap-flagged-intact", flagged(of_intact)


def alarms(data: Data, seed: int) -> Iterator[tuple[str, float]]:
    """Every frame is held out once."""
    fold, num = data.folds(seed, 4), 4
    atoms, frames, right, sure = [], [], [], []
    for k in range(num):
        known, new = np.nonzero(fold != k)[0], np.nonzero(fold == k)[0]
        y = data.around(known, data.pick([*known, *new]))
        model = coverage.fit(y[: len(known)], data.kinds[known], FALSE_ALARM, seed)
        for i, part in zip(new, y[len(known) :], strict=True):
            scores = np.asarray(coverage.score(model, part))
            atoms.append(float(np.mean(scores > float(model.threshold))))
            frames.append(coverage.frame_score(scores) > float(model.frame_threshold))
            like = coverage.nearest(model, part)
            right.append(np.asarray(like.kind) == data.kinds[i])
            sure.append(np.asarray(like.probability).max(axis=1))
    right, sure = np.concatenate(right), np.concatenate(sure)
    yield "false-alarm-ratio", float(np.mean(atoms)) / FALSE_ALARM
    yield "false-alarm-ratio-frames", float(np.mean(frames)) / FALSE_ALARM
    yield "kind-accuracy", float(np.mean(right))
    yield "kind-calibration-error", calibration_error(sure, right)


def calibration_error(sure: np.ndarray, right: np.ndarray, num_bins: int = 10) -> float:
    """Mean difference of the stated probability and the share that is right, over bins."""
    place = np.minimum((sure * num_bins).astype(int), num_bins - 1)
    parts = [place == b for b in range(num_bins) if np.any(place == b)]
    return float(sum(np.mean(p) * abs(sure[p].mean() - right[p].mean()) for p in parts))


def seconds(data: Data, seed: int) -> Iterator[tuple[str, float]]:
    """All atoms of the set, from their surroundings to scores; medians of five, compiled."""
    train_rows, _ = data.split(seed)
    y = data.around(train_rows, data.frames)
    new = jax.tree.map(jnp.asarray, coverage.joined(y))
    new = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf])[:13000], new)
    for name, method in (("", coverage.latent_ratio), ("-local", coverage.local_ratio)):
        model = coverage.fit([y[i] for i in train_rows], data.kinds[train_rows], method=method())
        taken = []
        for _ in range(6):
            began = time.perf_counter()
            jax.block_until_ready(coverage.score(model, new))
            taken.append(time.perf_counter() - began)
        yield f"score-seconds{name}", statistics.median(taken[1:])


PARTS = {
    "vae": reconstruction,
    "labels": planes,
    "gaps": gaps,
    "dilute": dilute,
    "verdict": alarms,
    "seconds": seconds,
}


def measured(path: str, part: str, num_seeds: int) -> Iterator[dict[str, Any]]:
    data = Data(path)
    values: dict[str, list[float]] = {}
    for seed in range(num_seeds):
        for name, value in PARTS[part](data, seed):
            values.setdefault(name, []).append(float(value))
    for name, every in values.items():
        worst = max(every) if "second" in name or "ratio" in name else min(every)
        value = worst if "worst" in name else float(np.mean(every))
        yield {"name": name, "value": value, "unit": unit_of(name), "worst": worst}


def unit_of(name: str) -> str:
    return "s" if name.endswith("seconds") or "seconds-" in name else "1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", metavar="DATA.extxyz")
    parser.add_argument("--full", action="store_true", help="five splits instead of one")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=PARTS)
    options = parser.parse_args()
    if options.only == "seconds":
        one_core()
    packages = ("jax", "jaxvae_md", "quests", "umap-learn")
    head = {"data": options.data, "cores": len(os.sched_getaffinity(0))}
    for name in packages:
        try:
            head[name] = version(name)
        except PackageNotFoundError:
            head[name] = None
    print(json.dumps(head), flush=True)
    for part in [options.only] if options.only else PARTS:
        if part == "seconds" and options.only is None:
            command = [sys.executable, __file__, options.data, "--only", part, "--json"]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results = map(json.loads, said.splitlines()[1:])
        else:
            try:
                results = measured(options.data, part, 5 if options.full else 1)
            except InputError as error:
                raise SystemExit(f"error: {error}") from None
        for result in results:
            line = f"{result['name']:36} {result['value']:8.3f} (worst {result['worst']:.3f})"
            print(json.dumps(result) if options.json else line, flush=True)


if __name__ == "__main__":
    main()
