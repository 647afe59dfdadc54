"""Stages: the potential fitted to the given labels, and again with the new ones."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from jaxvae_md import fit
from jaxvae_md._typing import Array, Params
from jaxvae_md.learn import model
from jaxvae_md.learn.config import Config
from jaxvae_md.learn.state import Dataset, State, batched, counts, labels_of
from jaxvae_md.potentials import Potential, fit_atomic_energy


def fit_potential(state: State, config: Config, key: Array, progress: bool) -> tuple[State, dict]:
    """Atomic energies by least squares, then Lennard-Jones alone, then the network on its rest.

    The core is not fitted together with the network: the network would take over its wall, and
    the core's repulsion is what keeps a simulation stable where there are no data.
    """
    assert state.standardizer is not None
    full = model.full_model(config, state.standardizer)
    unlearned = full.init(jax.random.fold_in(key, 0))
    unlearned["reference"]["energy"] = _atomic_energies(state, config)

    lj = model.lj_model(config)
    begin = {name: unlearned[name] for name in ("reference", "lennard_jones")}
    given = [(state.data, state.train)]
    lj_fit = fit.force_matching(
        lj,
        begin,
        _prepare(lj, given),
        key=jax.random.fold_in(key, 1),
        num_steps=config.lj_steps,
        learning_rate=2e-2,
        energy_weight=0.1,
        progress=progress,
        label="fit Lennard-Jones",
    )
    network_fit = _fit_network(
        state,
        config,
        lj_fit.params,
        unlearned["network"],
        given,
        num_steps=config.fit_steps,
        learning_rate=3e-3,
        key=jax.random.fold_in(key, 2),
        progress=progress,
        label="fit full model",
    )
    fitted = {**lj_fit.params, "network": network_fit.params}
    core = lj_fit.params["lennard_jones"]
    history = {**state.history, "fit": network_fit.history}
    return state._replace(unlearned=unlearned, lj=lj_fit.params, fitted=fitted, history=history), {
        "sigma_angstrom": np.asarray(core["sigma"]).round(4).tolist(),
        "epsilon_ev": np.asarray(core["epsilon"]).round(5).tolist(),
        "loss": float(network_fit.history[-1]),
    }


def refit_potential(state: State, config: Config, key: Array, progress: bool) -> tuple[State, dict]:
    """The network trained on, with the new labels among the old; without new ones nothing."""
    if state.labels is None:
        return state._replace(learned=state.fitted), {"num_new": 0}
    new = len(state.labels.energy)
    result = _fit_network(
        state,
        config,
        state.lj,
        state.fitted["network"],
        [(state.data, state.train), (state.labels, np.arange(new))],
        num_steps=config.refit_steps,
        learning_rate=1e-3,
        key=key,
        progress=progress,
        label="fit again",
    )
    learned = {**state.fitted, "network": result.params}
    history = {**state.history, "refit": result.history}
    return state._replace(learned=learned, history=history), {
        "num_new": new,
        "loss": float(result.history[-1]),
    }


def predictions(state: State, config: Config) -> dict[str, fit.Prediction]:
    """What every model says of all data frames: LJ alone, and the full model's versions."""
    assert state.standardizer is not None
    lj, full = model.lj_model(config), model.full_model(config, state.standardizer)
    data = batched(state.data, full.cutoff, np.arange(len(state.data.energy)))
    out = {"LJ alone": fit.predict(lj, state.lj, data)}
    versions = {"before": state.fitted, "learned": state.learned, "refined": state.refined}
    for name, params in versions.items():
        if params is not None:
            out[name] = fit.predict(full, params, data)
    return out


def _fit_network(
    state: State,
    config: Config,
    core: Params,
    network: Params,
    datasets: Sequence[tuple[Dataset, np.ndarray]],
    *,
    num_steps: int,
    learning_rate: float,
    key: Array,
    progress: bool,
    label: str,
) -> fit.FitResult:
    """Force matching of the network to what atomic energies and core leave."""
    assert state.standardizer is not None
    potential = model.network_model(config, state.standardizer)
    return fit.force_matching(
        potential,
        network,
        _prepare(potential, datasets, (model.lj_model(config), core)),
        key=key,
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
        energy, forces = labels_of(dataset, rows)
        if subtract is not None:
            known = fit.predict(*subtract, parts)
            energy = energy - known.energy
            forces = [f - g for f, g in zip(forces, known.forces, strict=True)]
        out += fit.prepare(potential, parts, energy, forces)
    return out


def _atomic_energies(state: State, config: Config) -> np.ndarray:
    structure = state.data.structure
    species = np.where(structure.mask, structure.species, -1)
    composition = np.stack([(species == s).sum(axis=1) for s in range(len(config.species))], axis=1)
    assert composition.sum() == counts(state).sum()
    return fit_atomic_energy(composition[state.train], state.data.energy[state.train])
