# %% [markdown]
# # The closed loop, stage by stage
#
# A set of silicon frames, labelled by the Stillinger-Weber potential, goes once around: what do
# the data lack, what would fill the gaps, and what does a potential learn from it?
#
# Small mode, as CI runs it: `JAXVAE_MD_SMALL=1 python examples/01_loop.py`.

# %%
import os
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

from jaxvae_md import coverage, datasets, learn
from jaxvae_md.label import get_labeller
from jaxvae_md.report import save_figure
from jaxvae_md.summary import run_figures

SMALL = "JAXVAE_MD_SMALL" in os.environ
out = Path("01_loop_figures")
out.mkdir(exist_ok=True)

# %% [markdown]
# ## The state before the first stage
# `start` splits the frames (whole frames, the same share of every label) and derives the rest of
# the options from the data: the elements, the cutoff, where a trial simulation starts.

# %%
frames = datasets.silicon()
options = learn.Config(labeller="sw", seed=0)
if SMALL:
    frames = frames[::3]
    options = learn.Config(
        labeller="sw", num_generated=3, vae_steps=800, vae_copies=1, coverage_steps=300,
        lj_steps=150, fit_steps=1000,
        refit_steps=300, md_steps=200, refine_updates=1, refine_window=10, refine_replicas=1,
        stability_steps=500,
    )  # fmt: skip
state, config = learn.start(frames, options)
print(f"{len(state.train)} training frames, {len(state.test)} held out, cutoff {config.cutoff} Å")

# %% [markdown]
# ## One round
# Each stage is a pure function (state, config, key) -> (state, info). `steps` runs them in order
# and hands out what each measured, so a notebook can stop and look anywhere.

# %%
info = {}
for name, after, measured in learn.steps(state, config, get_labeller("sw"), progress=not SMALL):
    state, info[name] = after, measured
    print(name, {k: v for k, v in measured.items() if isinstance(v, int | float)})

# %% [markdown]
# ## What the data lacked
# The generated structures are realised atoms, not only descriptors. Their requested atom is
# further from the data than the data are from each other (novelty above 1), and the coverage
# model, which knows nothing of the VAE, can judge them as well.

# %%
from jaxvae_md.learn.gaps import accepted_frames, surroundings_of

generated = accepted_frames(state, config)
for atoms in generated:
    print(atoms.get_chemical_formula(), "novelty", round(atoms.info["novelty"], 2))
if state.generated is not None:
    y = surroundings_of(state, config, state.generated.structure)
    for center, around in zip(state.generated.center, y, strict=True):
        score = float(coverage.score(state.coverage, around)[center])
        print(f"coverage score {score:.2f}, threshold {float(state.coverage.threshold):.2f}")

# %% [markdown]
# ## What was learned
# Every figure of the report is a matplotlib figure.

# %%
for name, figure in run_figures(state, config).items():
    save_figure(figure, out / f"{name}.png")
errors = info["final"]["force_mae_by_model"]
print({model: f"{value:.0f} meV/Å" for model, value in errors.items()})

# %% [markdown]
# What the crystal is like, by the learned potential and by the reference, computed in the same way.

# %%
from jaxvae_md.learn.physics import found_properties
from jaxvae_md.properties import table

columns = found_properties(state)
print(table(columns))

# %%
assert info["final"]["active_dims"] == config.latent_dim
assert errors["learned"] < 0.6 * errors["LJ alone"]
assert info["simulate"]["rdf_rmse_learned"] < 0.2 * info["simulate"]["rdf_rmse_unlearned"]
lattice = [column.lattice_constant for column in columns.values()]
assert len(lattice) == 2 and abs(lattice[0] - lattice[1]) < 0.2
assert len(generated) == info["final"]["num_generated"] > 0
