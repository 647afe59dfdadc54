"""Growth: atoms or molecules that arrive at a surface, one after the other.

The lowest atoms of the substrate are fixed, those above them have a thermostat, and all others
move freely. Arrays have a fixed capacity: who has not arrived yet is padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array as JaxArray
from jaxtyping import Bool, Float, Int

from jaxvae_md import errors, units
from jaxvae_md._typing import Array, Params
from jaxvae_md.errors import GeometryError, OptionError, RunError
from jaxvae_md.neighbors import NeighborList, host_pairs, joined
from jaxvae_md.potentials import evaluate
from jaxvae_md.potentials.potential import Potential
from jaxvae_md.simulate.engine import Simulator, State, Trajectory, drawn_momentum, ensemble, masses
from jaxvae_md.simulate.loop import allocate, check_start, chunks
from jaxvae_md.structure import Structure, append_zeros, from_atoms, pad

if TYPE_CHECKING:
    from ase import Atoms

_FEWEST_SLOTS = 24
"""for the neighbors of each atom: a crystal of four may become something denser"""

_TRIES = 200
"""places above the surface that are looked at for one that is free"""


class Beam(NamedTuple):
    """What arrives, and how."""

    position: Float[np.ndarray, "m 3"]
    """angstrom, around the centre of mass"""
    species: Int[np.ndarray, " m"]
    energy: float
    """eV, kinetic, of the centre of mass"""
    angle: float = 0.0
    """degrees from the surface's normal; the azimuth is random"""


class Dynamics(NamedTuple):
    """The integrator's state."""

    position: Float[Array, "n 3"]
    """angstrom"""
    momentum: Float[Array, "n 3"]
    """sqrt(amu eV); zero on atoms that are fixed or have not arrived"""
    force: Float[Array, "n 3"]
    """eV / angstrom"""
    mass: Float[Array, "n 1"]
    """amu"""
    fixed: Bool[Array, "n 1"]
    thermostatted: Bool[Array, "n 1"]
    heat: Float[Array, ""]
    """eV that the thermostat has brought"""
    rng: JaxArray


class Deposit(NamedTuple):
    """A growing surface; a pytree, and all that a resumed simulation needs."""

    state: State
    key: JaxArray
    """decides all that arrives later"""
    num_arrivals: Int[Array, ""]
    """atoms or molecules so far"""
    num_left: Int[Array, ""]
    """atoms that flew away"""
    brought: Float[Array, ""]
    """eV, potential energy included, by all that arrived"""
    carried: Float[Array, ""]
    """eV, taken away by all that left"""


class Growth(NamedTuple):
    """What happened from one arrival to the next."""

    deposit: Deposit
    """after it"""
    trajectory: Trajectory
    """its frames, with the error bits; of all slots"""
    mask: Bool[np.ndarray, " n"]
    """who is there in those frames"""
    species: Int[np.ndarray, " n"]


def beam(atoms: Atoms, species: tuple[str, ...], energy: float, angle: float = 0.0) -> Beam:
    """What arrives: an atom, or a molecule, which gets a random orientation.

    **Arguments:** `energy` in eV, `angle` in degrees from the normal. **Raises:** `OptionError`,
    `SpeciesError`.

    ```python
    oxygen = beam(ase.build.molecule("O2"), ("O", "Si"), energy=0.1)
    ```
    """
    if not 0 < energy < np.inf:
        raise OptionError(f"energy is {energy}", remedy="give a positive number of eV")
    if not 0 <= angle < 90:
        raise OptionError(f"angle is {angle}", remedy="give degrees from the normal, below 90")
    if len(atoms) == 0:
        raise OptionError("no atom arrives", remedy="give an atom or a molecule")
    structure = from_atoms(atoms, species)
    centered = np.asarray(structure.position) - atoms.get_center_of_mass()
    return Beam(centered, np.asarray(structure.species), float(energy), float(angle))


def zoned_langevin(
    potential: Potential,
    dt: float = 1.0,
    temperature: float = 300.0,
    friction: float = 0.01,
    skin: float = 0.5,
) -> Simulator:
    """Velocity Verlet, with a Langevin thermostat on some atoms and none on others.

    Fixed atoms stay. The kinetic energy that the thermostat brings is summed up. Padding atoms
    stay where they are. **Arguments:** `dt` in fs, `temperature` in K, `friction` in 1/fs, `skin`
    in angstrom. **Source:** the steps of BAOAB, Leimkuhler and Matthews, Appl. Math. Res. Express
    2013, 34.

    ```python
    simulator = zoned_langevin(tungsten, dt=2.0, temperature=300.0)
    ```
    """
    if not (temperature > 0 and friction > 0):
        raise OptionError(
            f"temperature is {temperature}, friction is {friction}", remedy="give positive numbers"
        )
    step_time = dt * units.FEMTOSECOND
    kT = units.BOLTZMANN * temperature
    kept = float(np.exp(-friction * dt))

    def force_of(params, structure, neighbors, fixed):
        force = evaluate.forces(potential, params, structure, neighbors)
        return jnp.where(fixed | ~structure.mask[:, None], 0, force)

    def init(key, mass, kT, momentum, params, structure, neighbors):
        draw, key = jax.random.split(key)
        position = structure.position
        if momentum is None:
            momentum = drawn_momentum(draw, mass, kT, position)
        none = jnp.zeros((len(position), 1), bool)
        force = force_of(params, structure, neighbors, none)
        heat = jnp.zeros((), position.dtype)
        return Dynamics(position, momentum, force, mass[:, None], none, none, heat, key)

    def step(dynamics, params, structure, neighbors):
        position, momentum, force, mass, fixed, thermostatted, heat, key = dynamics
        key, draw = jax.random.split(key)
        momentum = momentum + 0.5 * step_time * force
        position = position + 0.5 * step_time * momentum / mass
        noise = jax.random.normal(draw, momentum.shape, momentum.dtype)
        warmed = kept * momentum + jnp.sqrt((1 - kept**2) * kT * mass) * noise
        after = jnp.where(thermostatted, warmed, momentum)
        # the difference of two squares, which single precision can sum up
        heat = heat + 0.5 * jnp.sum((after - momentum) * (after + momentum) / mass)
        position = position + 0.5 * step_time * after / mass
        structure = structure._replace(position=position)
        force = force_of(params, structure, neighbors, fixed)
        momentum = after + 0.5 * step_time * force
        dynamics = Dynamics(position, momentum, force, mass, fixed, thermostatted, heat, key)
        return dynamics, structure

    return ensemble(potential, init, step, dt, skin, num_conserved=0)


def begin_deposit(
    simulator: Simulator,
    params: Params,
    substrate: Structure,
    key: JaxArray,
    *,
    capacity: int,
    initial_temperature: float = 300.0,
    fixed: float | None = None,
    thermostatted: float | None = None,
    extra: float = 1.3,
) -> Deposit:
    """A substrate at rest on its fixed layers, with room for `capacity` atoms in all.

    The surface looks along z, which is not periodic and perpendicular to the other two cell
    vectors. **Arguments:** `fixed` (angstrom) is the thickness of the layer at the bottom that
    does not move, by default the potential's cutoff, `thermostatted` that of the layer above it,
    by default as thick; `extra` as in `begin`. **Raises:** `GeometryError` for a substrate that is
    too thin or has no surface, `OptionError`.

    ```python
    deposit = begin_deposit(simulator, params, substrate, jax.random.key(0), capacity=600)
    ```
    """
    check_start(simulator, substrate, None)
    if not np.all(substrate.mask):
        raise GeometryError("the substrate has padding atoms", remedy="give it without")
    cutoff = simulator.potential.cutoff
    fixed = cutoff if fixed is None else fixed
    thermostatted = fixed if thermostatted is None else thermostatted
    zones = _zones(substrate, cutoff, fixed, thermostatted)
    num = len(substrate.mask)
    if capacity < num:
        raise OptionError(
            f"capacity is {capacity}, and the substrate has {num} atoms",
            remedy="give the number of atoms that there shall be room for",
        )
    key, draw, thermal = jax.random.split(key, 3)
    expected = _continued(substrate, capacity)
    structure = jax.tree.map(jnp.asarray, pad(substrate, capacity))
    # room for the film, so that nothing is compiled again when it has grown
    fast = simulator.pair_fns is not None
    neighbors = allocate(simulator, expected, fast=fast, extra=extra, capacity=_FEWEST_SLOTS)
    padded = lambda flags: jnp.asarray(append_zeros(flags[:, None], capacity - num, 0))
    still, warmed = map(padded, zones)
    dtype = structure.position.dtype
    mass = jnp.asarray(masses(simulator.potential.species), dtype)[structure.species]
    kT = units.BOLTZMANN * initial_temperature
    momentum = drawn_momentum(draw, mass, kT, structure.position)
    dynamics = Dynamics(
        position=structure.position,
        momentum=jnp.where(structure.mask[:, None] & ~still, momentum, 0),
        force=jnp.zeros_like(momentum),
        mass=mass[:, None],
        fixed=still,
        thermostatted=warmed,
        heat=jnp.zeros((), dtype),
        rng=thermal,
    )
    state = _refreshed(simulator, params, State(dynamics, structure, neighbors))
    zero = jnp.zeros((), jnp.int32)
    return Deposit(state, key, zero, zero, jnp.zeros((), dtype), jnp.zeros((), dtype))


def deposit(
    simulator: Simulator,
    params: Params,
    start: Deposit,
    beam: Beam,
    num_arrivals: int,
    num_steps: int,
    *,
    record_every: int = 100,
    gap: float = 2.0,
) -> Iterator[Growth]:
    """Lets atoms or molecules arrive, until there were `num_arrivals` since the very start.

    Each comes from a random place above the surface, `gap` (angstrom) beyond the reach of the
    potential, and has `num_steps` steps before the next one, a multiple of `record_every`. What
    rises beyond that height, bound to nothing below, has left. All arrivals share what is
    compiled. A simulation that is continued from the `deposit` of a `Growth` has the same frames,
    bit by bit.

    **Raises:** `OptionError`; `RunError` where the capacity is exhausted, where no free place is
    found above the surface, and where the simulation fails; what was yielded before stays.

    ```python
    for growth in deposit(simulator, params, start, oxygen, num_arrivals=100, num_steps=1000):
        print(energy_balance(simulator, params, growth.deposit))
    ```
    """
    if not 0 < record_every <= num_steps or num_steps % record_every:
        raise OptionError(
            f"num_steps is {num_steps}, record_every is {record_every}",
            remedy="give a multiple of record_every",
        )
    if not gap > 0:
        raise OptionError(f"gap is {gap}", remedy="give a positive length in angstrom")
    now = start
    while int(now.num_arrivals) < num_arrivals:
        now = _without_what_left(simulator, params, now, gap)
        now = _with_an_arrival(simulator, params, now, beam, gap)
        mask, species = (
            np.asarray(x) for x in (now.state.structure.mask, now.state.structure.species)
        )
        for state, trajectory in chunks(
            simulator, params, now.state, num_steps, record_every=record_every, chunk=num_steps
        ):
            errors.check(trajectory.error, f"arrival {int(now.num_arrivals)}")
            now = now._replace(state=state)
            yield Growth(now, trajectory, mask, species)


def energy_balance(simulator: Simulator, params: Params, deposit: Deposit) -> dict[str, float]:
    """Energies in eV: kinetic, potential, heat, brought, carried.

    kinetic + potential - heat - brought + carried stays, but for the error of the time step.

    ```python
    before, after = (energy_balance(simulator, params, d)["conserved"] for d in (start, end))
    ```
    """
    state = deposit.state
    potential, kinetic = _jit_energies(simulator)(params, state)
    terms = {
        "kinetic": kinetic,
        "potential": potential,
        "heat": state.dynamics.heat,
        "brought": deposit.brought,
        "carried": deposit.carried,
    }
    found = {name: float(value) for name, value in terms.items()}
    conserved = found["kinetic"] + found["potential"] - found["heat"]
    return found | {"conserved": conserved - found["brought"] + found["carried"]}


def _zones(substrate: Structure, cutoff: float, fixed: float, thermostatted: float):
    """Who is fixed, and who has a thermostat."""
    position, cell, pbc = (np.asarray(x) for x in substrate[:3])
    if pbc.tolist() != [True, True, False] or np.abs(cell[:2, 2]).max() > 1e-8:
        raise GeometryError(
            f"the substrate has no surface along z: pbc is {pbc.tolist()}",
            remedy="give a slab that is periodic along its first two cell vectors alone, both of "
            "them perpendicular to z",
        )
    if not (fixed >= cutoff and thermostatted > 0):
        raise OptionError(
            f"{fixed} angstrom are fixed and {thermostatted} have a thermostat",
            remedy=f"fix {cutoff:.4g} or more, the reach of the potential: atoms that move must "
            "not feel what is missing below",
        )
    height = position[:, 2] - position[:, 2].min()
    if height.max() <= fixed + thermostatted:
        raise GeometryError(
            f"the substrate is {height.max():.4g} angstrom thick, and {fixed:.4g} of it are fixed "
            f"and {thermostatted:.4g} have a thermostat",
            remedy="give more layers: some must move freely",
        )
    return height <= fixed, (height > fixed) & (height <= fixed + thermostatted)


def _continued(substrate: Structure, capacity: int) -> Structure:
    """The substrate that goes on upwards with as many atoms as there will be."""
    num = len(substrate.mask)
    cell = np.asarray(substrate.cell)
    thickness = np.ptp(substrate.position[:, 2])
    area = np.linalg.norm(np.cross(cell[0], cell[1]))
    # to the next copy a distance of atoms more
    rise = thickness + np.cbrt(area * thickness / num)
    copy, atom = np.divmod(np.arange(capacity), num)
    upwards = np.array([0.0, 0.0, 1.0]) * (copy * rise)[:, None]
    return substrate._replace(
        position=(np.asarray(substrate.position)[atom] + upwards).astype(substrate.position.dtype),
        species=np.asarray(substrate.species)[atom],
        mask=np.ones(capacity, bool),
    )


def _on_host(deposit: Deposit):
    """The structure, and who is fixed, in numpy."""
    structure = jax.tree.map(np.asarray, deposit.state.structure)
    return structure, np.asarray(deposit.state.dynamics.fixed)[:, 0]


def _without_what_left(simulator, params, deposit: Deposit, gap: float) -> Deposit:
    structure, fixed = _on_host(deposit)
    momentum = np.asarray(deposit.state.dynamics.momentum)
    height = structure.position[:, 2]
    group = joined(structure, fixed, simulator.potential.cutoff)
    sky = _sky(simulator, height[structure.mask & (group == 0)], gap)
    left = np.zeros(len(group), bool)
    for number in np.unique(group[structure.mask & (group > 0)]):
        members = structure.mask & (group == number)
        rising = momentum[members, 2].sum() > 0
        up, down = height[members].min() > sky, height[members].max() < height[fixed].min()
        left |= members & ((up & rising) | (down & ~rising))
    if not left.any():
        return deposit
    before = sum(_jit_energies(simulator)(params, deposit.state))
    state = deposit.state
    there = jnp.asarray(structure.mask & ~left)
    dynamics = state.dynamics._replace(
        momentum=jnp.where(there[:, None], state.dynamics.momentum, 0)
    )
    structure = state.structure._replace(mask=there)
    state = _refreshed(simulator, params, state._replace(dynamics=dynamics, structure=structure))
    after = sum(_jit_energies(simulator)(params, state))
    return deposit._replace(
        state=state,
        num_left=deposit.num_left + int(left.sum()),
        carried=deposit.carried + before - after,
    )


def _sky(simulator: Simulator, heights: Float[np.ndarray, " n"], gap: float) -> float:
    """The height from which atoms arrive, above all others that are bound to the substrate."""
    return float(heights.max()) + simulator.potential.cutoff + gap


def _with_an_arrival(simulator, params, deposit: Deposit, beam: Beam, gap: float) -> Deposit:
    structure, fixed = _on_host(deposit)
    number = int(deposit.num_arrivals)
    slots = np.nonzero(~structure.mask)[0][: len(beam.species)]
    if len(slots) < len(beam.species):
        raise RunError(
            f"arrival {number + 1} finds no room: all {len(structure.mask)} places are taken",
            remedy="begin with a larger capacity",
        )
    bits = jax.random.key_data(jax.random.fold_in(deposit.key, number))
    rng = np.random.default_rng(np.asarray(bits).tolist())
    group = joined(structure, fixed, simulator.potential.cutoff)
    sky = _sky(simulator, structure.position[structure.mask & (group == 0), 2], gap)
    position = _free_place(simulator, structure, beam, sky, rng, slots)

    state, dynamics = deposit.state, deposit.state.dynamics
    mass = masses(simulator.potential.species)[beam.species]
    tilt, azimuth = np.deg2rad(beam.angle), rng.uniform(0, 2 * np.pi)
    way = np.array([np.sin(tilt) * np.cos(azimuth), np.sin(tilt) * np.sin(azimuth), -np.cos(tilt)])
    velocity = np.sqrt(2 * beam.energy / mass.sum()) * way
    put = lambda array, values: array.at[slots].set(jnp.asarray(values, array.dtype))
    structure = state.structure._replace(
        position=put(state.structure.position, position),
        species=put(state.structure.species, beam.species),
        mask=put(state.structure.mask, True),
    )
    dynamics = dynamics._replace(
        position=structure.position,
        momentum=put(dynamics.momentum, mass[:, None] * velocity),
        mass=put(dynamics.mass, mass[:, None]),
    )
    before = sum(_jit_energies(simulator)(params, state))
    state = _refreshed(simulator, params, state._replace(dynamics=dynamics, structure=structure))
    after = sum(_jit_energies(simulator)(params, state))
    return deposit._replace(
        state=state,
        num_arrivals=deposit.num_arrivals + 1,
        brought=deposit.brought + after - before,
    )


def _free_place(simulator, structure: Structure, beam: Beam, sky: float, rng, slots):
    """Positions of the arriving atoms, the lowest at the sky, beyond the reach of all others."""
    for _ in range(_TRIES):
        turned = beam.position @ _rotation(rng)
        lateral = rng.uniform(0, 1, 2) @ structure.cell[:2]
        position = turned + lateral + [0, 0, sky - turned[:, 2].min()]
        whole = structure.position.copy()
        whole[slots] = position
        mask = structure.mask.copy()
        mask[slots] = True
        i, j, _ = host_pairs(
            structure._replace(position=whole, mask=mask), simulator.potential.cutoff
        )
        if not (np.isin(i, slots) & ~np.isin(j, slots)).any():
            return position
    raise RunError(
        f"no free place was found {sky:.4g} angstrom above: what arrived before is still there",
        remedy="take more steps between arrivals, more energy, or a larger gap",
    )


def _rotation(rng) -> Float[np.ndarray, "3 3"]:
    """A random one, or its mirror image."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


def _refreshed(simulator: Simulator, params: Params, state: State) -> State:
    """With lists and forces of the atoms that there are now."""
    fresh = _jit_refreshed(simulator)(params, state)
    if not np.any(fresh.neighbors.overflow):
        return fresh
    fast = type(state.neighbors) is not NeighborList
    neighbors = allocate(simulator, state.structure, fast=fast, extra=1.5)
    return _jit_refreshed(simulator)(params, state._replace(neighbors=neighbors))


def _kinetic(momentum, mass):
    return 0.5 * jnp.sum(momentum**2 / mass)


@lru_cache(maxsize=32)
def _jit_refreshed(simulator: Simulator):
    def refreshed(params, state):
        neighbors = simulator.update_fn(state.neighbors)(state.structure, state.neighbors)
        force = evaluate.forces(simulator.potential, params, state.structure, neighbors)
        still = state.dynamics.fixed | ~state.structure.mask[:, None]
        dynamics = state.dynamics._replace(force=jnp.where(still, 0, force))
        return State(dynamics, state.structure, neighbors)

    return jax.jit(refreshed)


@lru_cache(maxsize=32)
def _jit_energies(simulator: Simulator):
    def energies(params, state):
        potential = evaluate.energy(simulator.potential, params, state.structure, state.neighbors)
        return potential, _kinetic(state.dynamics.momentum, state.dynamics.mass)

    return jax.jit(energies)
