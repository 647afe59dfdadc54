"""Sums of potentials."""

from __future__ import annotations

import jax

from jaxvae_md.potentials.potential import Potential


def compose(**terms: Potential) -> Potential:
    """The sum of named potentials; parameters are a dict with the same names.

    **Raises:** `ValueError` when the terms do not share one species table.

    ```python
    model = compose(core=lennard_jones(("Si",), 6.0), network=chebyshev_nn(descriptor, scale))
    params = model.init(jax.random.key(0))
    params["core"]["sigma"]
    ```
    """
    tables = {term.species for term in terms.values()}
    if len(tables) != 1:
        raise ValueError(f"terms with different species tables: {sorted(tables)}")

    def init(key):
        keys = jax.random.split(key, len(terms))
        return {name: term.init(k) for (name, term), k in zip(terms.items(), keys, strict=True)}

    def energy(params, structure, neighbors):
        return sum(t.energy(params[name], structure, neighbors) for name, t in terms.items())

    def prepare(structure, neighbors):
        return {name: term.prepare(structure, neighbors) for name, term in terms.items()}

    def predict(params, features):
        parts = [term.predict(params[name], features[name]) for name, term in terms.items()]
        return sum(e for e, _ in parts), sum(f for _, f in parts)

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
