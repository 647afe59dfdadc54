"""Stages: the potential fitted to the given labels, and again with the new ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxvae_md import fit
from jaxvae_md._typing import Array, Params
from jaxvae_md.learn.config import Config
from jaxvae_md.learn.state import (
    Dataset,
    State,
    batched,
    composition,
    labels_of,
    validation_split,
)
from jaxvae_md.potentials import Potential, fit_atomic_energy


def fit_potential(state: State, config: Config, key: Array, progress: bool) -> tuple[State, dict]:
    """Atomic energies by least squares, then Lennard-Jones alone, then the network on its rest.

    The core is not fitted together with the network: the network would take over its wall, and
    the core's repulsion is what keeps a simulation stable where there are no data.
    """
    assert state.standardizer is not None
    unlearned = config.architecture.full(state.standardizer).init(jax.random.fold_in(key, 0))
    counted = composition(state.data, len(config.species))[state.train]
    unlearned["reference"]["energy"] = fit_atomic_energy(counted, state.data.energy[state.train])
    rows, validation = _rows(state, config)
    given = [(state.data, rows)]
    core, history = {k: v for k, v in unlearned.items() if k != "network"}, {}
    info: dict[str, Any] = {}
    if "lennard_jones" in core:
        result = _fit_core(
            config, core, given, 2e-2, jax.random.fold_in(key, 1), progress, "fit Lennard-Jones"
        )
        core, history["fit"] = result.params, result.history
        info = {
            "sigma_angstrom": np.asarray(core["lennard_jones"]["sigma"]).round(4).tolist(),
            "epsilon_ev": np.asarray(core["lennard_jones"]["epsilon"]).round(5).tolist(),
        }
    fitted = core
    if "network" in unlearned:
        result = _fit_network(
            state,
            config,
            core,
            unlearned["network"],
            given,
            validation,
            num_steps=config.fit_steps,
            learning_rate=3e-3,
            key=jax.random.fold_in(key, 2),
            progress=progress,
            label="fit full model",
        )
        fitted, history["fit"] = {**core, "network": result.params}, result.history
    state = state._replace(
        unlearned=unlearned, core=core, fitted=fitted, history={**state.history, **history}
    )
    return state, {**info, "loss": float(history["fit"][-1])}


def refit_potential(state: State, config: Config, key: Array, progress: bool) -> tuple[State, dict]:
    """The fit continued with the new labels among the old; without new ones nothing.

    The network is trained on; where there is none, Lennard-Jones is.
    """
    if state.labels is None:
        return state, {"num_new": 0}
    new = len(state.labels.energy)
    rows, validation = _rows(state, config)
    both = [(state.data, rows), (state.labels, np.arange(new))]
    if "network" in state.fitted:
        result = _fit_network(
            state,
            config,
            state.core,
            state.fitted["network"],
            both,
            validation,
            num_steps=config.refit_steps,
            learning_rate=1e-3,
            key=key,
            progress=progress,
            label="fit again",
        )
        learned = {**state.fitted, "network": result.params}
    else:
        result = _fit_core(config, state.core, both, 5e-3, key, progress, "fit again")
        learned = result.params
    history = {**state.history, "refit": result.history}
    return state._replace(learned=learned, history=history), {
        "num_new": new,
        "loss": float(result.history[-1]),
    }


def predictions(state: State, config: Config) -> dict[str, fit.Prediction]:
    """What every model says of all data frames: LJ alone, and the full model's versions.

    LJ alone is left out where it is the full model, or no part of it.
    """
    assert state.standardizer is not None
    full = config.architecture.full(state.standardizer)
    data = batched(state.data, full.cutoff, np.arange(len(state.data.energy)))
    out = {}
    if config.architecture.potential == "lj+nn":
        out["LJ alone"] = fit.predict(config.architecture.core, state.core, data)
    versions = {"fitted": state.fitted, "learned": state.learned, "refined": state.refined}
    for name, params in versions.items():
        if params is not None:
            out[name] = fit.predict(full, params, data)
    return out


def _rows(state: State, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Frames for the updates of a fit, and those that decide when the network's ends."""
    if not config.validation:
        return state.train, np.array([], int)
    return validation_split(state, config.validation, config.seed)


def _fit_core(
    config: Config,
    core: Params,
    datasets: Sequence[tuple[Dataset, np.ndarray]],
    learning_rate: float,
    key: Array,
    progress: bool,
    label: str,
) -> fit.FitResult:
    """Force matching of Lennard-Jones, atomic energies beside it."""
    potential = config.architecture.core
    return fit.force_matching(
        potential,
        core,
        _prepare(potential, datasets),
        key=key,
        num_steps=config.lj_steps,
        learning_rate=learning_rate,
        energy_weight=0.1,
        stress_weight=0.0,
        progress=progress,
        label=label,
    )


def _fit_network(
    state: State,
    config: Config,
    core: Params,
    network: Params,
    datasets: Sequence[tuple[Dataset, np.ndarray]],
    validation: np.ndarray,
    *,
    num_steps: int,
    learning_rate: float,
    key: Array,
    progress: bool,
    label: str,
) -> fit.FitResult:
    """Force matching of the network to what atomic energies and core leave."""
    assert state.standardizer is not None
    potential = config.architecture.trained(state.standardizer)
    known = (config.architecture.core, core)
    held_out = _prepare(potential, [(state.data, validation)], known) if len(validation) else []
    return fit.force_matching(
        potential,
        network,
        _prepare(potential, datasets, known),
        key=key,
        held_out=held_out,
        energy_weight=config.energy_weight,
        stress_weight=config.stress_weight,
        num_steps=num_steps,
        learning_rate=learning_rate,
        progress=progress,
        label=label,
    )


def _prepare(
    potential: Potential,
    datasets: Sequence[tuple[Dataset, np.ndarray]],
    subtract: tuple[Potential, Params] | None = None,
) -> list[fit.Labelled]:
    """Prepared batches of some frames of several data sets.

    With `subtract` the labels are what that potential leaves of them.
    """
    out = []
    for dataset, rows in datasets:
        parts = batched(dataset, potential.cutoff, rows)
        energy, forces, stress = labels_of(dataset, rows)
        if subtract is not None:
            known = fit.predict(*subtract, parts)
            energy, stress = energy - known.energy, stress - known.stress
            forces = [f - g for f, g in zip(forces, known.forces, strict=True)]
        out += fit.prepare(potential, parts, energy, forces, stress)
    return out
