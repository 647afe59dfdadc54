"""Stage: errors on held-out frames, for each label and each version of the potential."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxvae_md import fit
from jaxvae_md._typing import Array
from jaxvae_md.learn.config import Config
from jaxvae_md.learn.physics import found_properties
from jaxvae_md.learn.potential_fit import predictions
from jaxvae_md.learn.represent import reconstruction
from jaxvae_md.learn.state import State, counts


class LabelErrors(NamedTuple):
    """Mean absolute errors on the held-out frames of one label."""

    label: str
    num_frames: int
    energy: dict[str, float]
    """meV per atom, by model"""
    force: dict[str, float]
    """meV / angstrom, by model"""

    @property
    def newest(self) -> str:
        """The model that was made last."""
        return list(self.force)[-1]


def evaluate(state: State, config: Config, key: Array, progress: bool) -> tuple[State, dict]:
    """The figures of the final model."""
    del key, progress
    total = error_table(state, config, predictions(state, config))[-1]
    info = {
        "force_mae_mev_per_angstrom": total.force[total.newest],
        "energy_mae_mev_per_atom": total.energy[total.newest],
        "force_mae_by_model": total.force,
        "energy_mae_by_model": total.energy,
    }
    if state.properties:
        info["properties"] = {k: v._asdict() for k, v in found_properties(state).items()}
    core = state.params.get("lennard_jones", {})
    for name, unit in (("sigma", "angstrom"), ("epsilon", "ev")):
        if name in core:
            info[f"{name}_{unit}"] = np.asarray(core[name]).tolist()
    if state.vae_params is not None:
        figures, _ = reconstruction(state, config)
        info |= {name: figures[name] for name in ("vae_r2", "pca_r2", "active_dims")}
        accepted = 0 if state.generated is None else int(np.sum(state.generated.accepted))
        info["num_generated"] = accepted
    return state._replace(round=state.round + 1), info


def error_table(
    state: State, config: Config, predicted: dict[str, fit.Prediction]
) -> list[LabelErrors]:
    """One row for each label, and a last one, "all", over all held-out frames."""
    kinds = np.asarray(state.data.kind)[state.test]
    groups = {
        name: state.test[kinds == i] for i, name in enumerate(config.labels) if np.any(kinds == i)
    }
    groups["all"] = state.test
    return [
        LabelErrors(
            name,
            len(frames),
            {m: 1e3 * _energy_mae(state, p, frames) for m, p in predicted.items()},
            {m: 1e3 * force_mae(state, p, frames) for m, p in predicted.items()},
        )
        for name, frames in groups.items()
    ]


def force_mae(state: State, predicted: fit.Prediction, frames: np.ndarray) -> float:
    """Mean absolute error of force components, eV / angstrom."""
    mask = np.asarray(state.data.structure.mask)
    differences = [np.abs(predicted.forces[i] - state.data.forces[i][mask[i]]) for i in frames]
    return float(np.mean(np.concatenate(differences)))


def _energy_mae(state: State, predicted: fit.Prediction, frames: np.ndarray) -> float:
    difference = (predicted.energy - state.data.energy) / counts(state)
    return float(np.mean(np.abs(difference[frames])))
