"""Fits of ensemble averages by reweighting a stored trajectory (DiffTRe)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Float
from tqdm import tqdm

from jaxvae_md import errors, units
from jaxvae_md._typing import Array, Params
from jaxvae_md.errors import OptionError, RunError
from jaxvae_md.fit.optimisers import change_by, relative
from jaxvae_md.fit.result import FitResult, all_finite
from jaxvae_md.neighbors import NeighborFns, NeighborList, neighbor_list
from jaxvae_md.potentials.potential import Potential
from jaxvae_md.simulate import Simulator, State, begin, chunks
from jaxvae_md.structure import Structure

_LEAST_SHARE = 1e-3
"""of an update that is taken however little its frames are worth"""


class Ensemble(NamedTuple):
    """Frames of a canonical ensemble, and what they were sampled with; a pytree."""

    structure: Structure
    """position [t, n, 3]; cell, pbc, species and mask are those of every frame"""
    neighbors: NeighborList
    """one, to be updated to each frame"""
    update: Callable[[Structure, NeighborList], NeighborList]
    """a `jax.tree_util.Partial`, that of the list"""
    energy: Float[Array, " t"]
    """eV, of the parameters that sampled the frames"""
    temperature: Float[Array, ""]
    """K"""


def sample(
    simulator: Simulator,
    params: Params,
    state: State,
    num_steps: int,
    *,
    temperature: float,
    record_every: int = 50,
    equilibration: int = 0,
    cutoff: float | None = None,
) -> tuple[Ensemble, State]:
    """Frames of a simulation from `state` on, after `equilibration` steps; and the last state.

    **Arguments:** `simulator` of constant `temperature` (K) and volume; `cutoff` (angstrom) of the
    list that comes with the frames, the potential's where none is given. **Raises:** `RunError`
    where the simulation fails.

    ```python
    state = begin(simulator, params, structure, key, 90.0)
    ensemble, state = sample(simulator, params, state, 10000, temperature=90.0)
    ```
    """

    def frames(num):
        nonlocal state
        size = 20 * record_every
        for after, part in chunks(
            simulator, params, state, num, record_every=record_every, chunk=size
        ):
            errors.check(part.error, "sampling")
            state = after
            yield part

    for _ in frames(equilibration):
        pass
    position = np.concatenate([part.position for part in frames(num_steps)])
    potential, one = simulator.potential, jax.tree.map(np.asarray, state.structure)
    fns = _list_fns(potential.cutoff if cutoff is None else max(cutoff, potential.cutoff))
    # room for what is denser than the frames that are looked at
    some = [one._replace(position=x) for x in position[:: -(-len(position) // 8)]]
    lists = [fns.allocate(frame, extra=1.5) for frame in some]
    ensemble = Ensemble(
        structure=one._replace(position=position),
        neighbors=max(lists, key=lambda each: each.index.shape[1]),
        update=jax.tree_util.Partial(fns.update),
        energy=np.zeros(len(position)),
        temperature=np.asarray(temperature),
    )
    ensemble = jax.tree.map(jnp.asarray, ensemble)
    return ensemble._replace(energy=_jit_energies(potential, params, ensemble)), state


@lru_cache(maxsize=32)
def _list_fns(cutoff: float) -> NeighborFns:
    """The same functions for all ensembles, so that what uses them compiles once."""
    return neighbor_list(cutoff)


def weights(
    potential: Potential, params: Params, ensemble: Ensemble
) -> tuple[Float[Array, " t"], Float[Array, ""]]:
    """Of each frame in the ensemble of other parameters, and how many frames these are worth.

        w_k = exp(-(U_k(params) - U_k) / kT) / sum,     exp(-sum_k w_k ln w_k)

    Differentiable by the parameters. **Source:** Thaler and Zavadlav, Nat. Commun. 12, 6884
    (2021), equations 3 and 4; Zwanzig, J. Chem. Phys. 22, 1420 (1954).

    ```python
    w, worth = weights(potential, params, ensemble)
    average = jnp.sum(w * observed)
    ```
    """
    energies, _ = _over_frames(potential, params, ensemble, lambda *_: ())
    return _weights(energies, ensemble)


def averages(
    potential: Potential,
    params: Params,
    ensemble: Ensemble,
    observe_fn: Callable[[Params, Structure, NeighborList], Any],
) -> tuple[Any, Float[Array, ""]]:
    """Ensemble averages for other parameters than sampled, and how many frames they rest on.

    Differentiable by the parameters. **Arguments:** `observe_fn` as in `reweighting`.

    ```python
    mean_pressure, worth = averages(potential, params, ensemble, observe_fn)
    ```
    """
    energies, observed = _over_frames(potential, params, ensemble, observe_fn)
    w, worth = _weights(energies, ensemble)
    return jax.tree.map(lambda o: jnp.tensordot(w, o, axes=1), observed), worth


def reweighting(
    loss_fn: Callable[[Any], Float[Array, ""]],
    observe_fn: Callable[[Params, Structure, NeighborList], Any],
    simulator: Simulator | Sequence[Simulator],
    params: Params,
    structure: Structure | Sequence[Structure],
    *,
    key: Array,
    temperature: float | Sequence[float],
    num_steps: int = 10000,
    equilibration: int = 2000,
    record_every: int = 50,
    cutoff: float | None = None,
    penalty_fn: Callable[[Params], Float[Array, ""]] | None = None,
    num_updates: int = 30,
    optimiser: optax.GradientTransformation | None = None,
    min_effective: float = 0.9,
    progress: bool = False,
    label: str = "reweighting",
) -> FitResult:
    """Fits ensemble averages without a gradient through the simulation.

    A trajectory is sampled; the averages of other parameters follow from its frames, weighted, and
    are differentiable by the parameters. When the weighted frames are worth less than
    `min_effective` of their number, a new trajectory is sampled from where the last one ended,
    after a quarter of `equilibration`; an update is halved until they are worth half of that.
    Averages of thousands of steps can be fitted so: there is no horizon. A loss in units of what
    each average fluctuates is the sharpest.

    Several phases are fitted at once by sequences of as many simulators, structures and
    temperatures; `loss_fn` gets a list of their averages then.

    **Arguments:** `loss_fn(averages)` of the averages of what `observe_fn(params, structure,
    neighbors)` returns for a frame, a pytree; `cutoff` (angstrom) of the list that it gets, the
    potential's where none is given; `simulator` of constant temperature, and that `temperature`
    in K; `num_steps` recorded every `record_every`, after `equilibration`; `penalty_fn(params)`,
    added to the loss, says what other data allow; `num_updates` of the parameters by L-BFGS, which
    begins anew with each trajectory and a step of half a per cent, or by `optimiser`, which does
    not.
    **Returns:** the parameters of the last update; `history` is the loss before each.
    **Raises:** `RunError` where a simulation fails or the loss is not finite; `OptionError`.
    **Source:** Thaler and Zavadlav, Nat. Commun. 12, 6884 (2021).

    ```python
    simulator = nvt_langevin(potential, dt=5.0, temperature=90.0)
    observe = lambda params, structure, neighbors: pressure(potential, params, structure, neighbors)
    loss = lambda mean_pressure: (mean_pressure - target) ** 2
    result = reweighting(loss, observe, simulator, params, structure, key=key, temperature=90.0)
    ```
    """
    if not 0 < min_effective < 1:
        raise OptionError(f"min_effective is {min_effective}", remedy="give a share below 1")
    if num_steps < record_every or equilibration < 0:
        raise OptionError(
            f"num_steps is {num_steps}, record_every {record_every}, equilibration {equilibration}",
            remedy="record at least one frame",
        )
    several = not isinstance(simulator, Simulator)
    phases = _phases(*(part if several else [part] for part in (simulator, structure, temperature)))
    potential = phases[0][0].potential
    by_default = optimiser is None
    if optimiser is None:
        optimiser = relative(optax.lbfgs(), unit=5e-3)

    def value(params, ensembles):
        found = [averages(potential, params, one, observe_fn) for one in ensembles]
        means = [mean for mean, _ in found]
        loss = loss_fn(means if several else means[0])
        penalty = 0.0 if penalty_fn is None else penalty_fn(params)
        return loss + penalty, _least([worth for _, worth in found], ensembles)

    value_and_grad = jax.jit(jax.value_and_grad(value, has_aux=True))

    @jax.jit
    def update(params, loss, gradient, moments, ensembles):
        of_params = lambda params: value(params, ensembles)[0]
        change, moments = change_by(optimiser, of_params, params, loss, gradient, moments)

        def updated(share):
            scaled = jax.tree.map(lambda c: share * c, change)
            return potential.project(optax.apply_updates(params, scaled))

        def too_far(share):
            worths = [weights(potential, updated(share), one)[1] for one in ensembles]
            return ~(_least(worths, ensembles) >= 0.5 * min_effective) & (share > _LEAST_SHARE)

        share = lax.while_loop(too_far, lambda share: 0.5 * share, jnp.ones(()))
        return updated(share), moments

    keys = jax.random.split(key, len(phases)) if several else [key]
    states = [begin(sim, params, of, k, t) for (sim, of, t), k in zip(phases, keys, strict=True)]

    def resampled(params, states, equilibration):
        pairs = [
            sample(
                sim, params, state, num_steps, temperature=t, record_every=record_every,
                equilibration=equilibration, cutoff=cutoff,
            )
            for (sim, _, t), state in zip(phases, states, strict=True)
        ]  # fmt: skip
        return [ensemble for ensemble, _ in pairs], [state for _, state in pairs]

    ensembles, states = resampled(params, states, equilibration)
    again = record_every * -(-equilibration // (4 * record_every))
    history, num_sampled = [], 1
    moments = optimiser.init(params)
    with tqdm(range(num_updates), desc=label, unit="update", disable=not progress) as bar:
        for _ in bar:
            (loss, worth), gradient = value_and_grad(params, ensembles)
            if not worth >= min_effective:
                ensembles, states = resampled(params, states, again)
                num_sampled += 1
                moments = optimiser.init(params) if by_default else moments
                (loss, worth), gradient = value_and_grad(params, ensembles)
            if not all_finite((loss, gradient)):
                raise RunError(
                    f"the loss or its gradient is not finite at update {len(history)}; take a "
                    "smaller learning rate, or look at what is observed"
                )
            history.append(float(loss))
            bar.set_postfix(loss=f"{history[-1]:.3g}", trajectories=num_sampled)
            params, moments = update(params, loss, gradient, moments, ensembles)
    # those of every other update are seen by their loss
    if not all_finite(params):
        raise RunError("the last update is not finite; take a smaller learning rate")
    return FitResult(params, np.array(history))


def _phases(
    simulators: Any, structures: Any, temperatures: Any
) -> list[tuple[Simulator, Structure, float]]:
    """What is sampled, one after the other; of one potential."""
    if isinstance(structures, Structure) or np.ndim(temperatures) != 1:
        raise OptionError(
            "several simulators are given, but no list of structures and temperatures",
            remedy="give as many of each",
        )
    lengths = len(simulators), len(structures), len(temperatures)
    if len(set(lengths)) > 1 or not lengths[0]:
        raise OptionError(
            "there are {} simulators, {} structures and {} temperatures".format(*lengths),
            remedy="give as many of each",
        )
    if any(one.potential is not simulators[0].potential for one in simulators):
        raise OptionError("the simulators are of several potentials", remedy="give all the same")
    return list(zip(simulators, structures, temperatures, strict=True))


def _least(worths, ensembles: Sequence[Ensemble]) -> Float[Array, ""]:
    """The smallest share of frames that weighted ones are worth."""
    shares = [worth / len(one.energy) for worth, one in zip(worths, ensembles, strict=True)]
    return jnp.min(jnp.stack(shares))


def _over_frames(potential: Potential, params: Params, ensemble: Ensemble, observe_fn):
    """Energy of each frame, and what is observed in it."""

    @jax.checkpoint
    def of_frame(params, position):
        structure = ensemble.structure._replace(position=position)
        neighbors = ensemble.update(structure, ensemble.neighbors)
        energy = potential.energy(params, structure, neighbors)
        observed = observe_fn(params, structure, neighbors)
        return jnp.where(neighbors.overflow, jnp.nan, energy), observed

    return lax.map(lambda x: of_frame(params, x), ensemble.structure.position)


@partial(jax.jit, static_argnums=0)
def _jit_energies(potential, params, ensemble):
    return _over_frames(potential, params, ensemble, lambda *_: ())[0]


def _weights(energies, ensemble: Ensemble):
    logits = -(energies - ensemble.energy) / (units.BOLTZMANN * ensemble.temperature)
    log_weights = jax.nn.log_softmax(logits)
    w = jnp.exp(log_weights)
    return w, jnp.exp(-jnp.sum(w * log_weights))
