"""Properties of a crystal by energies and forces alone."""

import jax
import numpy as np
import pytest
from ase.build import bulk

from jaxvae_md import units
from jaxvae_md.errors import LabelError, OptionError
from jaxvae_md.label import get_labeller, potential_labeller
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.observables import elastic_constants
from jaxvae_md.potentials import lennard_jones, stillinger_weber
from jaxvae_md.potentials.stillinger_weber import SILICON
from jaxvae_md.properties import Properties, _equation_of_state, properties, shortest_pair, table
from jaxvae_md.structure import from_atoms


@pytest.fixture(scope="module")
def found():
    return properties(get_labeller("sw"), lattice_constant=5.4)


def test_lattice_and_elastic_constants_are_those_of_the_potential(found):
    silicon = stillinger_weber()
    params = silicon.init(jax.random.key(0))
    atoms = bulk("Si", a=found.lattice_constant)
    structure = from_atoms(atoms, ("Si",))
    fns = neighbor_list(silicon.cutoff, skin=0.1)
    constants = elastic_constants(silicon, params, structure, fns.allocate(structure))
    constants = np.asarray(constants) / units.GIGAPASCAL
    assert found.lattice_constant == pytest.approx(5.431, abs=1e-3)
    expected = [constants[0, 0], constants[0, 1], constants[3, 3]]
    assert [found.c11, found.c12, found.c44] == pytest.approx(expected, rel=0.01)
    assert found.bulk_modulus == pytest.approx((found.c11 + 2 * found.c12) / 3, rel=0.01)


def test_an_ideal_surface_costs_two_bonds_an_atom(found):
    bonds = 2 * SILICON["epsilon"] / 2  # each is shared by two atoms
    area = found.lattice_constant**2 / 2
    assert found.surface_energy == pytest.approx(16.0218 * bonds / area, rel=1e-3)


def test_a_vacancy_costs_less_than_its_four_bonds(found):
    assert 1.0 < found.vacancy_energy < 2 * SILICON["epsilon"]


def test_a_guess_that_is_far_off_is_refused():
    with pytest.raises(LabelError, match="no minimum near"):
        properties(get_labeller("sw"), lattice_constant=9.0)
    with pytest.raises(OptionError, match="structure is 'hcp'"):
        properties(get_labeller("sw"), structure="hcp")


def test_a_guess_may_be_one_of_ten_percent(found):
    sw = get_labeller("sw")
    energy_of = lambda atoms: sw(atoms)[0]
    constant, _ = _equation_of_state(energy_of, bulk("Si", a=6.0), 6.0)
    assert constant == pytest.approx(found.lattice_constant, abs=2e-3)


def test_metals_too():
    """Lennard-Jones crystals are face-centered, and a pair potential has C12 = C44."""
    argon = lennard_jones(("Ar",), 8.5, 3.4, 0.0103)
    found = properties(potential_labeller(argon, argon.init(None)), "Ar", 5.2, "fcc")
    assert found.c12 == pytest.approx(found.c44, rel=0.02)
    assert found.c11 > found.c12 > 0
    # six of twelve bonds at most, each shared by two atoms
    assert 6 * 0.0103 / 1.1 < found.vacancy_energy < 9 * 0.0103


def test_the_shortest_pair_of_a_simulation():
    argon = lennard_jones(("Ar",), 5.0, 3.4, 0.0103)
    crystal = bulk("Ar", a=5.3, cubic=True) * (2, 2, 2)
    options = {"key": jax.random.key(0), "temperature": 60.0, "num_steps": 200}
    shortest = lambda params: shortest_pair(argon, params, crystal, **options)
    params = argon.init(None)
    assert 3.1 < shortest(params) < 3.6
    assert shortest({**params, "epsilon": -1e3 * params["epsilon"]}) < 1.0


def test_a_table_has_a_column_each():
    one = Properties(*np.arange(7.0))
    lines = table({"reference": one, "model": one._replace(c44=55.5)}).splitlines()
    assert lines[0].split() == ["reference", "model"]
    assert len(lines) == 9
    assert lines[-1].split()[-2:] == ["-", "-"]
    assert next(line for line in lines if line.startswith("C44")).split()[-2:] == ["4.0", "55.5"]
