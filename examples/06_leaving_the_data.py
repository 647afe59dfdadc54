# %% [markdown]
# # When does a simulation leave the data?
#
# The training data are crystals, strained ones too. A simulation heats a crystal until it melts:
# from which step on is it outside the data, which atoms first, and what do they look like?
#
# Small mode, as CI runs it: `JAXVAE_MD_SMALL=1 python examples/06_leaving_the_data.py`.

# %%
import os
from pathlib import Path

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

import jaxvae_md as jv
from jaxvae_md.io import write_chemiscope
from jaxvae_md.summary import coverage_figures

SMALL = "JAXVAE_MD_SMALL" in os.environ
EVERY = 250 if SMALL else 100
out = Path("06_leaving_the_data_figures")
out.mkdir(exist_ok=True)

# %% [markdown]
# ## A crystal is heated
# A thermostat of 6000 K that acts slowly: three picoseconds from a cold crystal to a hot liquid.

# %%
frames = jv.datasets.silicon()
training = [atoms for atoms in frames if atoms.info["label"] in ("crystal", "strained")]
potential = jv.stillinger_weber()
simulator = jv.simulate.nvt_langevin(potential, dt=1.0, temperature=6000.0, friction=0.0005)
start = jv.from_atoms(frames[0], ("Si",))
params = potential.init(jax.random.key(0))
path = jv.simulate.run(
    simulator, params, start, jax.random.key(0), num_steps=3000, record_every=EVERY
)
trajectory = []
for number, position in enumerate(np.asarray(path.position)):
    atoms = jv.to_atoms(start._replace(position=position), ("Si",))
    atoms.info["step"] = EVERY * (number + 1)
    trajectory.append(atoms)

# %% [markdown]
# ## The verdict
# `assess` goes the whole way: descriptors, coverage model, scores, kinds, groups.

# %%
method = jv.coverage.latent_ratio(num_steps=200 if SMALL else 1000)
result = jv.assess(
    training, trajectory, method=method, map_steps=300 if SMALL else 1500, name="The simulation"
)
print(result.verdict.sentence)
left = result.verdict.left_at
print("leaves the data at step", result.step[left])
for group in result.verdict.groups[:3]:
    print(f"{group.size} atoms like atom {group.atom} of frame {group.frame}")

# %% [markdown]
# ## Pictures
# A map with gaps, the scores along the way, how sure the kinds are, the largest group; and a
# map to click on at chemiscope.org.

# %%
coverage_figures(result, out)
write_chemiscope(
    out / "map.json.gz",
    trajectory,
    {
        "latent dimension 1": result.latent.new[:, 0],
        "latent dimension 2": result.latent.new[:, 1],
        "coverage score": np.concatenate(result.score),
    },
)

# %%
assert left is not None and left > 0
assert not np.any(result.outside[0])
assert np.mean(result.outside[-1]) > 0.9
