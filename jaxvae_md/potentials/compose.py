"""Sums of potentials."""

from __future__ import annotations

import jax

from jaxvae_md.errors import OptionError
from jaxvae_md.potentials.potential import Potential


def compose(**terms: Potential) -> Potential:
    """The sum of named potentials; parameters are a dict with the same names.

    **Raises:** `OptionError` when the terms do not share one species table.

    ```python
    model = compose(core=lennard_jones(("Si",), 6.0), network=chebyshev_nn(descriptor, scale))
    params = model.init(jax.random.key(0))
    params["core"]["sigma"]
    ```
    """
    tables = {term.species for term in terms.values()}
    if len(tables) != 1:
        raise OptionError(
            f"the terms have {len(tables)} species tables: {sorted(tables)}",
            remedy="give at least one term, all with the same table",
        )

    def init(key):
        keys = jax.random.split(key, len(terms))
        return {name: term.init(k) for (name, term), k in zip(terms.items(), keys, strict=True)}

    def energy(params, structure, neighbors):
        parts = [t.energy(params[name], structure, neighbors) for name, t in terms.items()]
        return sum(parts[1:], parts[0])

    def prepare(structure, neighbors):
        return {name: term.prepare(structure, neighbors) for name, term in terms.items()}

    def predict(params, features):
        parts = [term.predict(params[name], features[name]) for name, term in terms.items()]
        return jax.tree.map(lambda first, *others: sum(others, first), *parts)

    def project(params):
        return {name: term.project(params[name]) for name, term in terms.items()}

    return Potential(
        species=tables.pop(),
        cutoff=max(term.cutoff for term in terms.values()),
        init=init,
        energy=energy,
        prepare=prepare,
        predict=predict,
        project=project,
    )
