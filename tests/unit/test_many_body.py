"""Bond order and embedded atoms: derivatives, fast path, limits, files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md.errors import FileError, OptionError, SpeciesError
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.pair_list import PairList, pair_list
from jaxvae_md.potentials import (
    MUNETOH,
    ZHOU,
    Setfl,
    eam,
    eam_zhou,
    energy_and_forces,
    evaluate,
    read_setfl,
    read_tersoff,
    tersoff,
)
from jaxvae_md.structure import Structure, pad
from tests import systems
from tests.asserts import assert_close, assert_gradient

BENT = {
    triple: values | {"lambda3": 0.6 + 0.1 * number, "m": (3.0, 1.0)[number % 2]}
    for number, (triple, values) in enumerate(MUNETOH.items())
}
"""Munetoh's, with the factor that the set leaves out, of both powers"""

METALS = ZHOU | {
    "X": ZHOU["W"] | {"re": 2.6, "fe": 3.0, "alpha": 8.2, "beta": 4.4, "A": 0.7, "B": 1.2}
}


def tabulated() -> Setfl:
    """Coarse tables of two made-up metals."""
    r, rho = np.linspace(0, 6.0, 61), np.linspace(0, 3.0, 31)
    fade = (1 - (r / 6.0) ** 2) ** 3
    density = np.stack([fade * np.exp(-0.8 * r), fade * np.exp(-0.6 * r)])
    rates = np.array([[1.0, 1.1], [1.1, 1.3]])
    pair = 20 * fade * np.exp(-rates[..., None] * r)
    embedding = np.stack([-np.sqrt(rho + 0.01), -1.2 * np.sqrt(rho + 0.02)])
    return Setfl(("A", "B"), 6.0, embedding, 0.1, density, pair, 0.1, ((3.2, "bcc"),) * 2)


MODELS = {
    "tersoff": lambda: tersoff(("O", "Si")),
    "tersoff with lambda3": lambda: tersoff(("O", "Si"), BENT),
    "zhou": lambda: eam_zhou(("W", "X"), METALS, cutoff=5.0),
    "setfl": lambda: eam(tabulated()),
}
EVERY_MODEL = pytest.mark.parametrize("name", MODELS)


def structure_of(name: str, scale: float = 1.0):
    whole = systems.sio2() if name.startswith("tersoff") else systems.fcc(2)
    scale = scale * (1.0 if name.startswith("tersoff") else 0.75)
    return whole._replace(position=scale * whole.position, cell=scale * whole.cell)


@EVERY_MODEL
def test_energy_by_position_cell_and_every_parameter(name):
    potential = MODELS[name]()
    start = potential.init(None)
    # thin and dense, for every branch of an embedding energy
    parts = [structure_of(name, scale) for scale in ((1.0, 0.9, 1.3) if name == "zhou" else (1.0,))]
    lists = [neighbor_list(potential.cutoff, 0.2).allocate(part, extra=1.2) for part in parts]

    def energy(at):
        # parameters from 1e-7 to 1e5, some of them 0: in units of themselves
        params = {k: start[k] * (1 + x) + (start[k] == 0) * x for k, x in at["params"].items()}
        total = 0.0
        for part, neighbors in zip(parts, lists, strict=True):
            deformed = jnp.eye(3) + at["strain"]
            moved = part._replace(
                position=(part.position + at["shift"]) @ deformed, cell=part.cell @ deformed
            )
            total += potential.energy(params, moved, neighbors)
        return total

    shift = np.zeros_like(parts[0].position)
    zero = jax.tree.map(np.zeros_like, start)
    assert_gradient(energy, {"shift": shift, "strain": np.zeros((3, 3)), "params": zero})


@EVERY_MODEL
def test_padded_slots_and_atoms_change_nothing(name):
    potential, structure = MODELS[name](), structure_of(name)
    allocate = neighbor_list(potential.cutoff).allocate
    num = len(structure.mask)

    @jax.jit
    def both(structure, neighbors):
        def loss(position):
            moved = structure._replace(position=position)
            state = potential.init(None), moved, neighbors
            energy, forces = energy_and_forces(potential.energy, *state)
            return energy + jnp.sum(forces**2), forces

        return jax.grad(loss, has_aux=True)(structure.position)

    slope, forces = both(structure, allocate(structure))
    padded = pad(structure, num + 3)
    slope_padded, forces_padded = both(padded, allocate(padded, extra=1.5))
    assert_close(forces_padded[:num], forces, 1e-11)
    assert_close(slope_padded[:num], slope, 1e-11)
    assert not np.any(forces_padded[num:])
    assert not np.any(slope_padded[num:])


def crystal(num_species: int):
    """Enough atoms for the lists of the fast path."""
    metal = systems.repeated(systems.fcc(num_species), (5, 5, 5))
    return metal._replace(position=0.75 * metal.position, cell=0.75 * metal.cell)


FAST = {
    "zhou": (lambda: eam_zhou(("W",)), 1),
    "zhou of two": (MODELS["zhou"], 2),
    "setfl": (lambda: eam(tabulated(), ("A",)), 1),
}


@pytest.mark.parametrize("name", FAST)
def test_the_fast_path_says_the_same(name):
    make, num_species = FAST[name]
    potential, structure = make(), crystal(num_species)
    params = potential.init(None)
    pairs = pair_list(potential.cutoff, 0.2).allocate(structure)
    neighbors = neighbor_list(potential.cutoff).allocate(structure)
    assert isinstance(pairs, PairList)

    @jax.jit
    def of(structure, neighbors):
        state = potential, params, structure, neighbors
        return evaluate.energy(*state), evaluate.forces_and_virial(*state)

    for one, other in zip(
        jax.tree.leaves(of(structure, pairs)),
        jax.tree.leaves(of(structure, neighbors)),
        strict=True,
    ):
        assert_close(one, other, 1e-11)


@pytest.mark.parametrize("name", ["zhou", "zhou of two"])
def test_the_fast_path_has_the_same_derivatives(name):
    make, num_species = FAST[name]
    potential, structure = make(), crystal(num_species)
    params = potential.init(None)
    pairs = pair_list(potential.cutoff, 0.2).allocate(structure)
    neighbors = neighbor_list(potential.cutoff).allocate(structure)
    cotangent = np.random.default_rng(0).normal(size=structure.position.shape)

    @jax.jit
    def of(structure, neighbors):
        state = potential, params, structure, neighbors
        return evaluate.pull_back_forces(*state, cotangent), evaluate.pull_back_energy(*state)

    expected = jax.tree.leaves(of(structure, neighbors))
    for one, other in zip(jax.tree.leaves(of(structure, pairs)), expected, strict=True):
        assert_close(one, other, 1e-10)


def test_derivatives_by_tables_on_the_fast_path_are_refused():
    potential, structure = FAST["setfl"][0](), crystal(1)
    pairs = pair_list(potential.cutoff, 0.2).allocate(structure)
    with pytest.raises(OptionError, match="checkpointed"):
        evaluate.pull_back_energy(potential, potential.init(None), structure, pairs)


def test_tables_of_the_analytic_form_give_its_energy():
    zhou = eam_zhou()
    params = zhou.init(None)
    r, rho = np.linspace(1e-3, zhou.cutoff, 4001), np.linspace(0, 80.0, 8001)
    coefficients = {name: table[0, 0] for name, table in zhou.radial.tables(params).items()}
    f, *_ = zhou.radial.embedding.density(r**2, coefficients)
    phi, _ = zhou.radial.pair(r**2, coefficients)
    embedding = zhou.radial.embedding.energy(params, rho, np.zeros(len(rho), int))
    # tables begin at distance 0, where there is no atom
    step, rho_step = r[1] - r[0], rho[1] - rho[0]
    shifted = np.arange(len(r)) * step
    f, z = (np.interp(shifted, r, y) for y in (f, r * phi))
    tables = Setfl(
        ("W",),
        zhou.cutoff,
        embedding[None],
        rho_step,
        f[None],
        z[None, None],
        step,
        ((3.165, "bcc"),),
    )
    structure = systems.repeated(systems.bcc(), (2, 2, 2))
    neighbors = neighbor_list(zhou.cutoff).allocate(structure)
    energies = [
        float(each.energy(each.init(None), structure, neighbors)) for each in (zhou, eam(tables))
    ]
    assert energies[1] == pytest.approx(energies[0], rel=1e-5)
    assert energies[0] / 16 == pytest.approx(-8.7, abs=0.2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.024, 0.06, 0.1, 0.14])
def test_tables_hold_at_their_beginning(dtype, density):
    tables = tabulated()
    rho = tables.drho * np.arange(tables.embedding.shape[1])
    lines = np.stack([-1 - 2 * rho, -3 - rho])  # which cubic polynomials have exactly
    # a density that does not depend on distance, up to the cutoff
    flat = tables._replace(density=np.full_like(tables.density, density), embedding=lines)
    potential = eam(flat, ("A", "B"))
    position = np.array([[0.0, 0, 0], [3.0, 0, 0]], dtype)
    cell = np.diag([40.0, 40, 40]).astype(dtype)
    pbc, mask = np.zeros(3, bool), np.ones(2, bool)
    pair = Structure(position, cell, pbc, np.array([0, 1]), mask)
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), potential.init(None))
    params["pair"] = 0 * params["pair"]
    neighbors = neighbor_list(potential.cutoff).allocate(pair)
    expected = -4 - 3 * density
    assert_close(potential.energy(params, pair, neighbors), expected, 30 * np.finfo(dtype).eps)


def test_tungsten_has_its_lattice_parameter_and_cohesive_energy():
    zhou = eam_zhou()
    perfect = systems.bcc()._replace(position=1.58 * np.array([[0.0] * 3, [1.0] * 3]))
    allocate = neighbor_list(zhou.cutoff, 0.3).allocate
    neighbors = allocate(perfect._replace(cell=3.16 * np.eye(3)))

    @jax.jit
    def energy(a):
        scaled = perfect._replace(position=perfect.position * a / 3.16, cell=a * jnp.eye(3))
        return zhou.energy(zhou.init(None), scaled, neighbors) / 2

    a = np.linspace(3.12, 3.20, 33)
    each = np.array([float(energy(x)) for x in a])
    lowest = a[np.argmin(each)]
    # table III of the paper: 3.165 angstrom, 8.76 eV
    assert lowest == pytest.approx(3.165, abs=0.006)
    assert each.min() == pytest.approx(-8.76, abs=0.02)


def test_a_bond_without_neighbors_is_of_full_order_and_smooth():
    silicon = tersoff(("Si",))
    neighbors = neighbor_list(silicon.cutoff).allocate(systems.dimer(2.3))

    @jax.jit
    def energy(position):
        moved = systems.dimer(2.3)._replace(position=position)
        return silicon.energy(silicon.init(None), moved, neighbors)

    position = systems.dimer(2.3).position
    bond = 1830.8 * np.exp(-2.4799 * 2.3) - 471.18 * np.exp(-1.73222 * 2.3)
    assert float(energy(position)) == pytest.approx(bond, rel=1e-12)
    assert np.isfinite(jax.grad(energy)(position)).all()
    assert np.isfinite(jax.hessian(energy)(position)).all()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"D": 0.0}, "D"),
        ({"m": 2.0}, "m"),
        ({"d": 0.0}, "d"),
        ({"A": np.nan}, "A"),
        ({"R": 0.01}, "R"),
    ],
)
def test_parameters_that_make_no_potential_are_refused(change, word):
    entries = {("Si",) * 3: MUNETOH[("Si",) * 3] | change}
    with pytest.raises(OptionError, match=f"^{word} is"):
        tersoff(("Si",), entries)


def test_species_that_are_not_covered_are_named():
    with pytest.raises(SpeciesError, match="no entry for C C C"):
        tersoff(("C", "Si"))
    with pytest.raises(SpeciesError, match="no parameters for Mo"):
        eam_zhou(("W", "Mo"))
    with pytest.raises(SpeciesError, match="no tables for W"):
        eam(tabulated(), ("W",))


SILICON = """# DATE: today
Si Si Si 3.0 1.0 0.0 100390 16.217 -.59825 # the first line of two

0.78734 0.0000011 1.73222 471.18 2.65 0.15 2.4799 1830.8
"""


def test_files_of_tersoff_are_read(tmp_path):
    path = tmp_path / "Si.tersoff"
    path.write_text(SILICON)
    assert read_tersoff(path)[("Si",) * 3] == MUNETOH[("Si",) * 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", "no entry"),
        (SILICON.replace("471.18", "much"), r"line 2: .*'much'"),
        (SILICON.replace("1830.8", ""), "line 2: .*16 words of 17"),
        (SILICON + SILICON, "line 6: .*come twice"),
        ("3.0 " * 17, "not three elements"),
    ],
)
def test_files_of_tersoff_that_are_none_are_refused_by_line(tmp_path, text, message):
    path = tmp_path / "bad.tersoff"
    path.write_text(text)
    with pytest.raises(FileError, match=message) as caught:
        read_tersoff(path)
    assert "bad.tersoff" in str(caught.value)


def as_file(setfl: Setfl) -> str:
    """A setfl file, a number a line."""
    table = lambda values: [repr(float(v)) for v in values]
    num = len(setfl.elements)
    lines = ["one", "two", "three", f"{num} {' '.join(setfl.elements)}"]
    sizes = setfl.embedding.shape[1], setfl.drho, setfl.density.shape[1], setfl.dr, setfl.cutoff
    lines.append(" ".join(map(str, sizes)))
    for k, (constant, name) in enumerate(setfl.lattice):
        lines.append(f"{k + 1} 100.0 {constant} {name}")
        lines += table(setfl.embedding[k]) + table(setfl.density[k])
    for i in range(num):
        for j in range(i + 1):
            lines += table(setfl.pair[i, j])
    return "\n".join(lines) + "\n"


def test_setfl_files_are_read(tmp_path):
    path, expected = tmp_path / "AB.eam.alloy", tabulated()
    path.write_text(as_file(expected))
    for one, other in zip(read_setfl(path), expected, strict=True):
        assert np.all(np.asarray(one) == np.asarray(other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "\n".join(text.splitlines()[:100]), "line 100: the file ends before"),
        (lambda text: text.replace("2 A B", "2 A A", 1), "line 5: an element comes twice"),
        (lambda text: text.replace("2 A B", "two A B", 1), "line 4: 'two' is not the number of"),
        (lambda text: "", "line 1: the file ends"),
        (
            lambda text: "\n".join([*text.splitlines()[:9], "nan", *text.splitlines()[10:]]),
            "finite",
        ),
    ],
)
def test_setfl_files_that_are_none_are_refused_by_line(tmp_path, change, message):
    path = tmp_path / "bad.eam.alloy"
    path.write_text(change(as_file(tabulated())))
    with pytest.raises(FileError, match=message):
        read_setfl(path)


@pytest.mark.parametrize("read", [read_tersoff, read_setfl])
def test_files_that_are_absent_are_named(tmp_path, read):
    with pytest.raises(FileError, match="missing"):
        read(tmp_path / "missing")
