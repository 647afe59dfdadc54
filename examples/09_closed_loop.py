# %% [markdown]
# # The closed loop with a real reference
#
# A potential of silicon that knows crystal alone, and sixty calculations of density-functional
# theory to spend. Where do they help most: on frames of hot simulations, or on what the loop asks
# for? Both are tried, and judged on kinds of silicon that neither was told of.
#
# The reference is Quantum ESPRESSO (Debian: quantum-espresso, quantum-espresso-data), on two cores
# some ten seconds a label. Small mode, as CI runs it, asks Stillinger-Weber instead:
# `JAXVAE_MD_SMALL=1 python examples/09_closed_loop.py`. Labels are kept: a run that was stopped
# goes on when it is started again.

# %%
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

from jaxvae_md import datasets, fit, generate, learn, plot
from jaxvae_md.batching import batches
from jaxvae_md.generate.candidate import rng_of
from jaxvae_md.label import get_labeller, label, label_many
from jaxvae_md.learn.gaps import accepted_frames, setting
from jaxvae_md.learn.loop import stage_key
from jaxvae_md.learn.state import to_dataset
from jaxvae_md.structure import from_atoms, to_atoms

SMALL = "JAXVAE_MD_SMALL" in os.environ
NUM_ROUNDS, NUM_LABELS, NUM_TEST = (1, 3, 2) if SMALL else (5, 12, 20)
out = Path("09_closed_loop" + ("_small" if SMALL else ""))
out.mkdir(exist_ok=True)
labeller = get_labeller("sw" if SMALL else "qe")
workers = ThreadPoolExecutor(getattr(labeller, "num_workers", 1))

# %% [markdown]
# ## What is known, and what is asked
# The crystals of the embedded DFT set are the start. All its other frames, and those of the set
# that is held out from everything, are only there to judge.

# %%
frames = [*datasets.silicon_dft(), *datasets.silicon_dft_held_out()]
if SMALL:
    frames = frames[::8]
    by_potential = label(frames, get_labeller("sw"))
    for atoms, given in zip(by_potential, frames, strict=True):
        atoms.info = given.info
    frames = by_potential
# of other temperatures than those that are judged: frames of one simulation are alike
start = [
    atoms
    for atoms in frames
    if atoms.info["label"] == "crystal" and atoms.info["temperature"] in (300.0, 600.0, 900.0)
]
judge, rng = {}, np.random.default_rng(0)
for kind in dict.fromkeys(atoms.info["label"] for atoms in frames):
    some = [a for a in frames if a.info["label"] == kind and not any(a is b for b in start)]
    judge[kind] = [some[i] for i in rng.permutation(len(some))[:NUM_TEST]]
print({kind: len(some) for kind, some in judge.items()}, "to judge;", len(start), "to start with")

options = learn.Config(num_generated=NUM_LABELS, coverage_steps=0, vae_steps=3000, vae_copies=3)
if SMALL:
    options = learn.Config(
        num_generated=NUM_LABELS, coverage_steps=0, vae_steps=300, vae_copies=1, lj_steps=50,
        fit_steps=300, hidden=(16,), radial_order=6, angular_order=6,
    )  # fmt: skip


def errors(state, config) -> dict[str, tuple[float, float]]:
    """Mean absolute errors by kind: forces (meV/Å) and energies (meV/atom)."""
    potential, found = config.architecture.full(state.standardizer), {}
    every = [atoms for some in judge.values() for atoms in some]
    structures = [from_atoms(atoms, config.species) for atoms in every]
    said = fit.predict(potential, state.fitted, batches(structures, potential.cutoff))
    forces = [np.abs(f - a.get_forces()) for f, a in zip(said.forces, every, strict=True)]
    energies = [
        abs(e - a.get_potential_energy()) / len(a) for e, a in zip(said.energy, every, strict=True)
    ]
    first = 0
    for kind, some in judge.items():
        rows = slice(first, first := first + len(some))
        found[kind] = (
            1e3 * float(np.mean(np.concatenate(forces[rows]))),
            1e3 * float(np.mean(energies[rows])),
        )
    return found


# %% [markdown]
# ## Two ways to spend a label
# The loop: `generate.acquire` chooses among structures made by moves, decoded by the VAE, and
# simulated. The usual way: frames by chance from simulations with the current potential at 600 to
# 3000 K.


# %%
def by_the_loop(state, config):
    made, _ = learn_stage["generate"](state, config, stage_key(config, state, "generate"), False)
    return accepted_frames(made, config)


def by_chance(state, config):
    key = stage_key(config, state, "generate")
    pool = generate.simulated(setting(state, config), key)
    picks = rng_of(key).permutation(len(pool))[:NUM_LABELS]
    return [to_atoms(pool[i].structure, config.species) for i in picks]


learn_stage = learn.loop.stages(None)
WAYS = {
    "loop": (by_the_loop, ("describe", "vae", "fit")),
    "chance": (by_chance, ("describe", "fit")),
}
found: dict[str, list[dict]] = {}
num: dict[str, list[int]] = {}
for way, (chosen, names) in WAYS.items():
    state, config = learn.start(start, options)
    found[way], num[way] = [], [0]
    for number in range(NUM_ROUNDS + 1):
        state = state._replace(round=np.asarray(number))
        for name in names:
            state, _ = learn_stage[name](state, config, stage_key(config, state, name), False)
        found[way].append(errors(state, config))
        print(
            way,
            num[way][-1],
            {k: round(f) for k, (f, _) in found[way][-1].items()},
            flush=True,
        )
        if number < NUM_ROUNDS:
            new, rejected = label_many(
                chosen(state, config), labeller, out / "labels.jsonl", workers, failure_rate=0.5
            )
            print([one.reason for one in rejected] or f"{len(new)} labelled", flush=True)
            num[way].append(num[way][-1] + len(new))
            state = learn.next_round(state._replace(labels=to_dataset(new, config)))

# %% [markdown]
# ## What sixty labels taught

# %%
curves = {
    kind: {way: np.array([[errors[kind][0] for errors in found[way]]]) for way in WAYS}
    for kind in judge
}
plot.learning_curves(curves, {way: np.array(some) for way, some in num.items()}).savefig(
    out / "closed_loop.png"
)
(out / "errors.json").write_text(json.dumps(found, indent=1))
for kind in judge:
    before, *_, loop = (errors[kind] for errors in found["loop"])
    chance = found["chance"][-1][kind]
    print(
        f"{kind:14} forces {before[0]:5.0f} -> {loop[0]:5.0f}, by chance {chance[0]:5.0f} meV/Å; "
        f"energies {before[1]:6.1f} -> {loop[1]:6.1f}, by chance {chance[1]:6.1f} meV/atom"
    )

# %%
assert all(np.isfinite(list(errors.values())).all() for way in WAYS for errors in found[way])
if not SMALL:
    mean = {way: np.mean([np.log(found[way][-1][kind][0]) for kind in judge]) for way in WAYS}
    assert mean["loop"] < mean["chance"]
