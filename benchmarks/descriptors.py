"""Descriptors, measured: `python benchmarks/descriptors.py [DATA.extxyz] [--json] [--scaling]`.

Environments a second on one core in float64, through the public API with the neighbor list given:
values, gradient by the positions, and gradient of a force loss by a network's parameters; ACSF
and SOAP of DScribe on the same frames in the same process. Then neighbor lists apart, and from a
file to descriptors. `--scaling` adds cutoffs of 4 to 10 angstrom and orders of 4 to 20.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import ase.io
import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from jax import lax
from one_core import one_core

import jaxvae_md as jv
from jaxvae_md.batching import Batch, batches
from jaxvae_md.descriptors import Chebyshev, describe, fit_standardizer
from jaxvae_md.io import read_frames
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import chebyshev_nn
from jaxvae_md.structure import from_atoms, species_table

SETTINGS = {"A": (8.0, 16, 6.5, 4), "B": (5.2, 10, 5.2, 10)}
Figure = tuple[str, float, str]


def seconds(function: Callable, *arguments, repeats: int = 5) -> float:
    """Median time of a call, after one that compiles."""
    jax.block_until_ready(function(*arguments))
    laps = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        laps.append(time.perf_counter() - began)
    return statistics.median(laps)


def batched(frames: list[Atoms], cutoff: float) -> list[Batch]:
    """All frames with their neighbor lists, on the device."""
    species = species_table(frames)
    parts = batches([from_atoms(atoms, species) for atoms in frames], cutoff)
    return [jax.tree.map(jnp.asarray, part) for part in parts]


def over_frames(of_frame: Callable) -> Callable:
    """A function of (structure, neighbors) on every frame of every batch, compiled."""
    mapped = jax.jit(lambda batch: lax.map(lambda frame: of_frame(*frame), batch[:2]))
    return lambda parts: [mapped(part) for part in parts]


def gradient(descriptor: Chebyshev) -> Callable:
    """Derivative of a weighted sum of all columns by the positions of a frame."""
    weights = jnp.asarray(np.random.default_rng(0).normal(size=descriptor.num_features))

    def of_frame(structure, neighbors):
        total = lambda r: jnp.sum(descriptor(structure._replace(position=r), neighbors) @ weights)
        return jax.grad(total)(structure.position)

    return over_frames(of_frame)


def force_loss_gradient(descriptor: Chebyshev, frames: list[Atoms]) -> Callable:
    """Derivative of a sum of squared forces by the parameters of a network, frame by frame."""
    x = np.concatenate(describe(frames[:10], descriptor))
    network = chebyshev_nn(descriptor, fit_standardizer(x), hidden=(32, 32))
    params = network.init(jax.random.key(0))

    def of_frame(structure, neighbors):
        def loss(params):
            energy = lambda r: network.energy(params, structure._replace(position=r), neighbors)
            return jnp.sum(jax.grad(energy)(structure.position) ** 2)

        return jax.grad(loss)(params)

    return over_frames(of_frame)


def ours(frames: list[Atoms]) -> Iterator[Figure]:
    """The settings of the issue tracker."""
    num = sum(map(len, frames))
    for name, setting in SETTINGS.items():
        descriptor = jv.chebyshev(species_table(frames), *setting)
        parts = batched(frames, descriptor.cutoff)
        unit = "environments/s"
        yield f"descriptor-values-{name}", num / seconds(over_frames(descriptor), parts), unit
        yield f"descriptor-gradient-{name}", num / seconds(gradient(descriptor), parts), unit
        # every derivative of every column by every neighbor, which is what DScribe computes
        jacobian = over_frames(descriptor.linearise)
        few = [jax.tree.map(lambda leaf: leaf[:8], part) for part in parts]
        rate = sum(int(part.structure.mask.sum()) for part in few) / seconds(jacobian, few)
        yield f"descriptor-jacobian-{name}", rate, unit
        loss = force_loss_gradient(descriptor, frames)
        yield f"force-loss-gradient-{name}", num / seconds(loss, parts), unit


def lists(frames: list[Atoms]) -> Iterator[Figure]:
    """Neighbor lists of setting A on the host, and from a file to descriptors."""
    num = sum(map(len, frames))
    setting = SETTINGS["A"]
    structures = [from_atoms(atoms, species_table(frames)) for atoms in frames]
    fns = neighbor_list(setting[0])
    allocate = lambda: [fns.allocate(structure) for structure in structures]
    yield "neighbor-lists-A", num / seconds(allocate), "environments/s"
    descriptor = jv.chebyshev(species_table(frames), *setting)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "frames.extxyz"
        ase.io.write(file, frames, format="extxyz")
        whole = lambda: describe(read_frames(file, labelled=False), descriptor)
        yield "describe-file-A", seconds(whole), "s"


def peers(frames: list[Atoms]) -> Iterator[Figure]:
    """DScribe on ten of the frames, and on one for all derivatives, its neighbor lists included.

    ACSF has as many functions, but one cutoff for both kinds, the larger one.
    """
    from dscribe.descriptors import ACSF, SOAP

    species = list(species_table(frames))
    some = frames[:: max(1, len(frames) // 10)]
    num = sum(map(len, some))
    for name, (cutoff, radial, _, angular) in SETTINGS.items():
        widths = np.linspace(0, cutoff, radial + 1)
        angles = [(0.01, zeta, (-1.0) ** zeta) for zeta in range(1, angular + 2)]
        made = {
            "acsf": ACSF(
                r_cut=cutoff,
                g2_params=[(1.0, center) for center in widths],
                g4_params=angles,
                species=species,
                periodic=True,
            ),
            "soap": SOAP(r_cut=cutoff, n_max=8, l_max=6, species=species, periodic=True),
        }
        for kind, descriptor in made.items():
            values = lambda d=descriptor: [d.create(atoms) for atoms in some]
            slopes = lambda d=descriptor: d.derivatives(
                some[0], attach=True, return_descriptor=False
            )
            rate = num / seconds(values, repeats=1)
            yield f"dscribe-{kind}-values-{name}", rate, "environments/s"
            rate = len(some[0]) / seconds(slopes, repeats=1)
            yield f"dscribe-{kind}-jacobian-{name}", rate, "environments/s"


def scaling(frames: list[Atoms]) -> Iterator[Figure]:
    """Rates against cutoff at order 10, and against order at 6 angstrom."""
    num = sum(map(len, frames))
    for cutoff, order in [*((c, 10) for c in (4.0, 6.0, 8.0, 10.0)), (6.0, 4), (6.0, 20)]:
        descriptor = jv.chebyshev(species_table(frames), cutoff, order, cutoff, order)
        parts = batched(frames, cutoff)
        name = f"{cutoff:g}-angstrom-order-{order}"
        for kind, function in (
            ("values", over_frames(descriptor)),
            ("gradient", gradient(descriptor)),
        ):
            yield f"{kind}-{name}", num / seconds(function, parts, repeats=3), "environments/s"


def main() -> None:
    """Prints the figures as they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", help="extxyz; by default the embedded silicon set")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--scaling", action="store_true")
    options = parser.parse_args()
    one_core()
    jax.config.update("jax_enable_x64", True)
    frames = read_frames(options.data, labelled=False) if options.data else jv.datasets.silicon()
    head: dict[str, object] = {"frames": len(frames), "python": platform.python_version()}
    for package in ("jax", "jaxvae_md", "dscribe"):
        try:
            head[package] = version(package)
        except PackageNotFoundError:
            head[package] = None
    print(json.dumps(head) if options.json else head, flush=True)
    parts = [ours, lists] + [scaling] * options.scaling + [peers] * bool(head["dscribe"])
    for part in parts:
        for name, value, unit in part(frames):
            figure = {"name": name, "value": value, "unit": unit}
            print(json.dumps(figure) if options.json else f"{name:36s} {value:12.4g} {unit}")


if __name__ == "__main__":
    main()
