"""The closed loop as pure steps: `state, info = step(state, config, labeller)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxvae_md._typing import Array, Labeller
from jaxvae_md.learn.config import Config
from jaxvae_md.learn.evaluate import evaluate
from jaxvae_md.learn.gaps import generate, judge, label_generated
from jaxvae_md.learn.physics import physics
from jaxvae_md.learn.potential_fit import fit_potential, refit_potential
from jaxvae_md.learn.represent import describe, train_vae
from jaxvae_md.learn.state import State, resized
from jaxvae_md.learn.trial import refine, simulate

Stage = Callable[[State, Config, Array, bool], tuple[State, dict[str, Any]]]


def stages(labeller: Labeller | None) -> dict[str, Stage]:
    """The stages of one round by name, in order.

    Each takes (state, config, key, progress) and returns the new state and what it measured.

    ```python
    for name, stage in stages(labeller).items():
        state, info = stage(state, config, stage_key(config, state, name), False)
    ```
    """
    return {
        "describe": describe,
        "vae": train_vae,
        "fit": fit_potential,
        "judge": judge,
        "generate": generate,
        "label": lambda state, config, _, progress: label_generated(
            state, config, labeller, progress
        ),
        "refit": refit_potential,
        "simulate": simulate,
        "refine": refine,
        "physics": lambda state, config, key, progress: physics(
            state, config, labeller, key, progress
        ),
        "final": evaluate,
    }


STAGES = tuple(stages(None))
"""The stages of a round, in order."""
FIT_STAGES = ("describe", "fit", "judge", "physics", "final")
"""Those that a plain fit needs."""


def stage_key(config: Config, state: State, name: str) -> Array:
    """The random key of a stage: from the seed, the round and the stage, whatever ran before."""
    key = jax.random.fold_in(jax.random.key(config.seed), int(np.asarray(state.round)))
    return jax.random.fold_in(key, STAGES.index(name))


def steps(
    state: State,
    config: Config,
    labeller: Labeller | None,
    progress: bool = False,
    names: Sequence[str] = STAGES,
) -> Iterator[tuple[str, State, dict[str, Any]]]:
    """Runs the stages of one round, and yields after each: name, state, info.

    **Arguments:** `names` of the stages to run, by default all.

    ```python
    for name, state, info in steps(state, config, labeller):
        print(name, info)
    ```
    """
    for name in names:
        stage = stages(labeller)[name]
        state, info = stage(state, config, stage_key(config, state, name), progress)
        yield name, state, info


def next_round(state: State) -> State:
    """The state with the last round's labels among the training data and its results gone."""
    if state.labels is None:
        return State(round=state.round, data=state.data, train=state.train, test=state.test)
    known = len(state.data.energy)
    size = max(state.data.forces.shape[1], state.labels.forces.shape[1])
    both = [resized(part, size) for part in (state.data, state.labels)]
    data = jax.tree.map(lambda *leaves: np.concatenate(leaves), *both)
    train = np.concatenate([state.train, known + np.arange(len(state.labels.energy))])
    return State(round=state.round, data=data, train=train, test=state.test)


def step(
    state: State, config: Config, labeller: Labeller | None = None, progress: bool = False
) -> tuple[State, dict[str, dict[str, Any]]]:
    """One round of the closed loop.

    ```python
    state, config = start(datasets.silicon(), Config(labeller="sw"))
    state, info = step(state, config, get_labeller("sw"))
    info["final"]["force_mae_mev_per_angstrom"]
    ```
    """
    info = {}
    state = next_round(state)
    for name, after, measured in steps(state, config, labeller, progress):
        state, info[name] = after, measured
    return state, info
