import subprocess
import sys
from itertools import combinations

import jax
import numpy as np
import pytest
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from jaxvae_md import plot
from jaxvae_md.descriptors import Standardizer, chebyshev
from jaxvae_md.plot.style import label_styles
from jaxvae_md.vae import vae

RNG = np.random.default_rng(0)
LABELS = np.repeat(["crystal", "surface", "melt"], [300, 80, 5])
CODES = RNG.normal(size=(len(LABELS), 2)) + np.array([[0, 0]] * 300 + [[3, 0]] * 80 + [[0, 5]] * 5)
SCORES = np.where(LABELS == "melt", 2.0, -0.5) + 0.1 * RNG.normal(size=len(LABELS))
R = np.linspace(1.5, 8.0, 200)
CELL = np.array([[6.0, 0, 0], [1.0, 6.0, 0], [0, 0.5, 6.0]])
NOTHING = np.zeros(0)


def lj(epsilon: float, sigma: float) -> np.ndarray:
    return 4 * epsilon * ((sigma / R) ** 12 - (sigma / R) ** 6)


def run(num: int = 60, num_snapshots: int = 3, finished: bool = True, scale=1.0) -> plot.Run:
    time = 2.0 * np.arange(num)
    noise = RNG.normal(size=num)
    return {
        "time_fs": time,
        "temperature": scale * (300 + 10 * noise),
        "energy_per_atom": -4.3 + 0.01 * noise,
        "positions": 20 * RNG.normal(size=(num_snapshots, 8, 3)),
        "cell": CELL,
        "symbols": ["Si"] * 8,
        "finished": finished,
    }


def exploded() -> plot.Run:
    broken = run(30, finished=False)
    broken["temperature"] = 300 * np.exp(np.arange(30.0))
    broken["energy_per_atom"] = -4.3 + np.exp(np.arange(30.0))
    broken["temperature"][-2:] = np.inf
    broken["positions"][-1, 3] = np.nan
    return broken


def record(num: int, **optional) -> Figure:
    """A run with a thermostat, every tenth fs."""
    noise, time = RNG.normal(size=num), 10.0 * np.arange(1, num + 1)
    share = np.abs(0.02 * noise)
    lines = {"target_temperature": 300.0, "threshold_share": 0.01, "pressure_gpa": 0.1 * noise}
    given = {"outside": share, **lines, **optional}
    return plot.simulation(time, 300 + 10 * noise, -4.3 + 0.01 * noise, **given)


def record_that_blew_up() -> Figure:
    time, noise = 10.0 * np.arange(100), RNG.normal(size=100)
    temperature, energy, share = 300 + 10 * noise, -4.3 + 0.01 * noise, np.abs(0.01 * noise)
    temperature[-3:], energy[-3:], share[-2:] = (3e4, 1e8, np.inf), (5, 1e9, np.nan), (1, np.nan)
    return plot.simulation(time, temperature, energy, share, target_temperature=300.0)


def parity(num_models: int) -> Figure:
    energy, forces = RNG.normal(-4, 0.1, size=40), RNG.normal(size=(200, 3))
    names = [f"model number {i}, named after all it was trained on" for i in range(num_models)]
    energies = {name: energy + 0.01 * RNG.normal(size=40) for name in names}
    by = {name: forces + 0.1 * RNG.normal(size=forces.shape) for name in names}
    return plot.parity(energy, energies, forces, by, ["a", "b"] * 20)


def reconstruction() -> Figure:
    x = RNG.normal(size=(500, 12))
    return plot.reconstruction(x, x + 0.1 * RNG.normal(size=x.shape), 0.5 * x, latent_dim=4)


FIGURES = {
    "learning_curves": lambda: learned(),
    "reconstruction": reconstruction,
    "latent map": lambda: plot.latent_map(CODES, LABELS, SCORES, 1.0, CODES[:4] + 1),
    "latent map, one label": lambda: plot.latent_map(CODES, ["a"] * len(CODES), SCORES, 9.0),
    "latent map, one point": lambda: plot.latent_map(CODES[:1], ["a"], SCORES[:1], -9.0),
    "parity, one model": lambda: parity(1),
    "parity, three models": lambda: parity(3),
    "pair potential": lambda: plot.pair_potential(R, lj(1, 2)[None], lj(2, 2.2)[None], ["Si-Si"]),
    "pair potentials": lambda: plot.pair_potential(R, [lj(1, 2)] * 4, [1 / R] * 4, list("abcd")),
    "one run": lambda: plot.side_by_side({"reference": run()}, 300.0),
    "runs": lambda: plot.side_by_side({"good": run(), "bad": exploded()}, 300.0),
    "empty run": lambda: plot.side_by_side({"good": run(), "none": run(0, 0, False)}, 300.0),
    "only an empty run": lambda: plot.side_by_side({"none": run(0, 0, False)}, 300.0),
    "radial distribution": lambda: plot.radial_distribution(
        R, {"reference": 1 + np.sin(R) / R, "learned": 1 + np.cos(R) / R, "none": R * np.nan}
    ),
    "distributions": lambda: plot.distributions(
        R, {"a": np.exp(-R), "b": np.sin(R)}, R / 3, {"a": np.cos(R), "b": R * np.nan}
    ),
    "simulation": lambda: record(500),
    "simulation of one record": lambda: record(1),
    "simulation without a record": lambda: record(0),
    "simulation, nothing scored": lambda: record(50, outside=None, pressure_gpa=None),
    "simulation, two panels": lambda: plot.simulation(R, 300 + R, -R, None),
    "simulation, all the same": lambda: plot.simulation(R, 0 * R, 0 * R, 0 * R),
    "simulation, nothing finite": lambda: plot.simulation(R, R * np.nan, R / 0.1, R * np.nan),
    "simulation that blew up": record_that_blew_up,
    "coverage by frame": lambda: plot.coverage_by_frame(
        np.split(SCORES, 77), 1.0, ["crystal"] * 40 + ["melt"] * 37
    ),
    "coverage of one frame": lambda: plot.coverage_by_frame([SCORES], 1.0),
    "coverage with an empty frame": lambda: plot.coverage_by_frame([SCORES, NOTHING], 1.0),
    "coverage map": lambda: plot.coverage_map(CODES, CODES[250:] + 1, SCORES[250:], 1.0),
    "coverage map, nothing new": lambda: plot.coverage_map(CODES, np.zeros((0, 2)), NOTHING, 1.0),
    "coverage by step": lambda: plot.coverage_by_frame(
        np.split(SCORES, 77), 1.0, step=np.arange(77) * 100, left_at=40
    ),
    "coverage map, few known": lambda: plot.coverage_map(CODES[:2], CODES, SCORES, 1.0),
    "calibration": lambda: plot.calibration(np.linspace(0, 1, 50), np.arange(50) % 3 > 0),
    "calibration, all sure": lambda: plot.calibration(np.ones(5), np.ones(5, bool)),
    "maps": lambda: plot.maps(CODES, 2 * CODES, LABELS),
    "history": lambda: plot.training_history(
        {"train": (np.arange(9), -np.exp(-np.arange(9.0)))}, ylabel="ELBO (nats)"
    ),
    "history, one epoch": lambda: plot.training_history({"train": ([0], [1.0])}, ylabel="loss"),
    "history, none": lambda: plot.training_history({"train": ([], [])}, ylabel="loss"),
}


@pytest.fixture
def _warnings_are_errors(recwarn):
    yield
    assert [str(w.message) for w in recwarn] == []


def texts(figure: Figure) -> str:
    """All that a reader can read."""
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def drawn(figure: Figure) -> Figure:
    figure.draw_without_rendering()
    return figure


def by_title(figure: Figure, start: str):
    return next(ax for ax in figure.axes if ax.get_title(loc="left").startswith(start))


@pytest.mark.usefixtures("_warnings_are_errors")
def learned():
    """Two ways, three seeds, four kinds."""
    rng = np.random.default_rng(0)
    errors = {
        kind: {way: np.exp(rng.normal(4, 0.1, (3, 4))) for way in ("ours", "random")}
        for kind in ("crystal", "melt", "surface (outside)", "vacancy")
    }
    return plot.learning_curves(errors, {way: 10 * np.arange(4) for way in ("ours", "random")})


@pytest.mark.parametrize("name", FIGURES)
def test_draws_without_overlaps_and_names_its_axes(name):
    figure = drawn(FIGURES[name]())
    assert isinstance(figure, Figure)
    assert figure.dpi == 150
    boxes = []
    for ax in figure.axes:
        boxes += [ax.title.get_window_extent(), ax._left_title.get_window_extent()]
        boxes += [ax._right_title.get_window_extent()]
        boxes += [ax.xaxis.label.get_window_extent(), ax.yaxis.label.get_window_extent()]
    for part in (figure, *figure.subfigs):
        boxes += [legend.get_window_extent() for legend in part.legends]
    boxes = [box for box in boxes if box.width > 1 and box.height > 1]
    assert all(figure.bbox.padded(1).contains(*box.p0) for box in boxes)
    assert all(figure.bbox.padded(1).contains(*box.p1) for box in boxes)
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    plain = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert plain
    assert all(ax.get_xlabel() or ax.get_ylabel() for ax in plain)


def test_pyplot_stays_unimported_by_the_figures():
    code = "import sys, jaxvae_md.plot as p, jaxvae_md.report\n"
    code += "p.training_history({'a': ([0, 1], [0, 1])}, ylabel='loss')\n"
    code += "assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reconstruction_names_mean_and_worst_r2():
    x = RNG.normal(size=(400, 3))
    by_pca = x.copy()
    by_pca[:, 1] = x[:, 1].mean()  # explains nothing of component 1
    text = texts(plot.reconstruction(x, x, by_pca, latent_dim=2))
    assert "VAE, 2 latent dimensions: R² mean 1.000\nworst 1.000" in text
    assert "PCA, 2 components: R² mean 0.667\nworst 0.000 (descriptor component 1)" in text
    assert "the VAE is ahead in 1 of 3" in text


def test_rare_labels_lie_over_abundant_ones():
    figure = plot.latent_map(CODES, LABELS, SCORES, 1.0)
    clouds = [c for c in by_title(figure, "By label").collections if len(c.get_offsets())]
    clouds.sort(key=lambda cloud: cloud.get_zorder())
    assert [len(cloud.get_offsets()) for cloud in clouds] == [300, 80, 5]
    areas = [cloud.get_sizes()[0] for cloud in clouds]
    assert areas == sorted(areas)


def test_what_the_data_do_not_cover_lies_on_top_and_is_counted():
    figure = drawn(plot.latent_map(CODES, LABELS, SCORES, 1.0, CODES[:4]))
    ax = by_title(figure, "By coverage score: 1.3 % outside the data")
    covered, outside, stars = sorted(ax.collections, key=lambda cloud: cloud.get_zorder())
    assert [len(cloud.get_offsets()) for cloud in (covered, outside, stars)] == [380, 5, 4]
    blue, red = covered.get_facecolors(), outside.get_facecolors()
    assert (blue[:, 2] > blue[:, 0]).all()
    assert (red[:, 0] > red[:, 2]).all()
    assert "generated (4)" in texts(figure)


def test_labels_keep_their_colour_when_others_are_absent():
    order = ["crystal", "melt", "surface"]

    def color(labels, codes):
        figure = plot.latent_map(codes, labels, SCORES[: len(codes)], 1.0, label_order=order)
        handles, names = by_title(figure, "By label").get_legend_handles_labels()
        return handles[names.index("surface")].get_facecolor()

    every = color(LABELS, CODES)
    np.testing.assert_array_equal(every, color(LABELS[300:380], CODES[300:380]))


def test_forty_labels_are_told_apart():
    from matplotlib.axes import Axes

    names = np.array([f"label {i}" for i in range(40)])
    styles = label_styles(Axes(Figure(), (0, 0, 1, 1)), names, None)
    assert len(set(styles.values())) == 40


def test_values_that_are_not_finite_are_counted():
    codes, scores = CODES.copy(), SCORES.copy()
    codes[3, 0], scores[7] = np.nan, np.nan
    assert "1 values are not finite" in texts(plot.latent_map(codes, LABELS, scores, 1.0))
    assert "2 values are not finite" in texts(plot.coverage_map(CODES, codes, scores, 1.0))
    assert "1 values are not finite" in texts(plot.coverage_by_frame([scores], 1.0))
    broken = np.where(R < 2, np.inf, lj(1, 2))
    text = texts(plot.pair_potential(R, lj(1, 2), broken, ["Si-Si"]))
    assert "values are not finite" in text


def test_parity_gives_errors_in_mev_and_counts_what_it_cuts_off():
    energy, forces = np.linspace(-4.4, -4.0, 10), RNG.normal(size=(50, 3))
    wild = forces.copy()
    wild[0] = 1e6
    by = {"good": forces + 0.025, "wild": wild}
    figure = plot.parity(energy, {"good": energy + 0.003, "wild": energy}, forces, by, ["a"] * 10)
    text = texts(figure)
    assert "good\nenergy MAE 3 meV/atom" in text
    assert "good\nforce MAE 25 meV/Å" in text
    assert "2 % outside the axes" in text
    low, high = by_title(figure, "wild\nforce").get_xlim()
    assert high - low < 20


def test_energies_that_are_not_finite_are_neither_hidden_nor_fatal():
    energy, forces = np.linspace(-4.4, -4.0, 10), RNG.normal(size=(50, 3))
    nothing = {"broken": np.full(10, np.nan)}
    figure = drawn(plot.parity(energy, nothing, forces, {"broken": forces * np.nan}, ["a"] * 10))
    assert "energy MAE nan" in texts(figure)
    assert "100 % outside the axes or not finite" in texts(figure)


def test_minimum_of_the_pair_potential_is_marked_and_the_wall_cut_off():
    figure = plot.pair_potential(R, lj(1.0, 2.1)[None], 1 / R[None], ["Si-Si"])
    (ax,) = figure.axes
    marks = [line for line in ax.lines if line.get_marker() == "s"]
    assert len(marks) == 1
    assert float(marks[0].get_xdata()[0]) == pytest.approx(2.1 * 2 ** (1 / 6), abs=0.03)
    assert "before: \N{MINUS SIGN}1 eV at 2.3" in texts(figure)
    assert "after: no well" in texts(figure)
    assert ax.get_ylim()[1] < 2.0


def test_run_that_blew_up_is_shown_as_such_and_leaves_the_axes_alone():
    good = run()
    alone = plot.side_by_side({"good": good}, 300.0)
    figure = plot.side_by_side({"good": good, "bad": exploded(), "none": run(0, 0, False)}, 300.0)
    text = texts(figure)
    assert "stopped: not finite\nafter 54 fs" in text
    assert "stopped: not finite\nnothing recorded" in text
    assert "none: stopped, not finite, nothing recorded" in text
    hot, cold = by_title(figure, "Temperature"), by_title(figure, "Energy")
    assert hot.get_ylim()[1] < 1500
    assert np.ptp(cold.get_ylim()) < 2.5 * np.ptp(by_title(alone, "Energy").get_ylim())
    assert hot.get_xlim() == by_title(alone, "Temperature").get_xlim()


def test_finished_run_with_a_nan_counts_as_stopped():
    broken = run()
    broken["energy_per_atom"][40] = np.nan
    assert "broken: stopped, not finite" in texts(plot.side_by_side({"broken": broken}, 300.0))


def test_hot_run_that_finished_is_named_with_its_temperature():
    text = texts(plot.side_by_side({"good": run(), "hot": run(scale=100.0)}, 300.0))
    assert "hot (up to 3" in text
    assert "stopped" not in text


def test_atoms_are_wrapped_into_the_cell_and_drawn_from_far_to_near():
    figure = plot.side_by_side({"good": run()}, 300.0)
    ax = figure.axes[0]
    atoms = next(c for c in ax.collections if isinstance(c, EllipseCollection))
    offsets = np.asarray(atoms.get_offsets())
    assert len(offsets) == 8
    # the cell seen along z: x - y / 6 and y within its faces, tilted by c
    assert offsets[:, 1].min() >= 0
    assert offsets[:, 1].max() <= 6.5
    brightness = atoms.get_facecolors()[:, 0]
    assert (np.diff(brightness) <= 1e-12).all()


@pytest.mark.parametrize(("num", "names"), [(1, 1), (2, 2), (3, 3), (7, 3)])
def test_few_snapshots_are_not_shown_twice(num, names):
    figure = plot.side_by_side({"good": run(num_snapshots=num)}, 300.0)
    assert texts(figure).count("no snapshot") == 3 - names


def test_times_stand_over_the_snapshots():
    timed = run()
    timed["snapshot_fs"] = np.array([0.0, 60.0, 118.0])
    text = texts(plot.side_by_side({"good": timed}, 300.0))
    assert all(word in text for word in ("start, 0 fs", "middle, 60 fs", "end, 118 fs"))


def test_radial_distribution_compares_with_its_reference():
    curves = {"one": np.ones(200), "truth": np.full(200, 1.5), "spiky": 100 * np.ones(200)}
    figure = plot.radial_distribution(R, curves, reference="truth")
    text = texts(figure)
    assert "against truth" in text
    assert "one (mean |Δg| 0.5)" in text
    assert "not finite" in texts(plot.radial_distribution(R, {"a": R, "b": R * np.nan}))


def test_a_simulation_names_its_means_its_lines_and_its_unit_of_time():
    time = np.linspace(0, 9990, 100)
    wave = np.tile([-1.0, 1.0], 50)
    lines = {"target_temperature": 310.0, "threshold_share": 0.01, "pressure_gpa": 2 + 0.1 * wave}
    arrays = (300 + 10 * wave, -4.3 + 0.002 * wave, 0.03 + 0.02 * wave)
    figure = plot.simulation(time, *arrays, **lines, energy_label="total energy (eV/atom)")
    text = texts(figure)
    assert "Temperature: 300 ± 10 K (mean ± standard deviation)" in text
    heated = np.where(np.arange(100) < 26, 330.0, arrays[0])
    later = texts(plot.simulation(time, heated, *arrays[1:], averaged_from=26))
    since = f"{time[26]:.4g} fs on"
    assert f"Temperature: 300 ± 10 K (mean ± standard deviation from {since})" in later
    assert "Total energy: \N{MINUS SIGN}4.3000 ± 0.0020 eV/atom" in text
    assert "Pressure: 2.00 ± 0.10 GPa" in text
    assert "Atoms outside the training data: mean 3 %, at most 5 %" in text
    assert all(word in text for word in ("target: 310 K", "expected by chance: 1 %", "time (fs)"))
    dashed = [line.get_ydata()[0] for ax in figure.axes for line in ax.lines if line.is_dashed()]
    assert dashed == [310.0, 1.0]
    low, high = by_title(figure, "Atoms outside").get_ylim()
    assert low == 0 and 5 < high < 10
    everywhere = plot.simulation(time, *arrays[:2], np.ones(100))
    assert "mean 100 %, at most 100 %" in texts(everywhere)
    long = plot.simulation(2 * time, *arrays)
    assert "time (ps)" in texts(long)
    np.testing.assert_allclose(long.axes[0].lines[0].get_xdata(), 2e-3 * time)


@pytest.mark.parametrize(("num", "note"), [(0, "nothing recorded"), (1, "a single record")])
def test_a_simulation_that_hardly_ran_says_so_in_every_panel(num, note):
    assert texts(record(num)).count(note) == 4
    assert texts(record(num, outside=None, pressure_gpa=None)).count(note) == 2


def test_only_what_is_given_has_a_panel():
    assert len(record(20).axes) == 4
    figure = record(20, outside=None)
    assert len(figure.axes) == 3
    assert "outside" not in texts(figure) and "by chance" not in texts(figure)


def test_a_simulation_that_blew_up_leaves_the_axes_to_what_went_before():
    figure = record_that_blew_up()
    text = texts(figure)
    assert "Temperature: between 2" in text and "and 1e+08 K" in text
    assert text.count("1 of 100 not finite, 2 of 100 outside the axes") == 2
    assert by_title(figure, "Temperature").get_ylim()[1] < 1000
    assert np.ptp(by_title(figure, "Potential").get_ylim()) < 1
    assert by_title(figure, "Atoms outside").get_ylim() == (0, 105)


def test_a_short_transient_stays_within_the_axes():
    time = 10.0 * np.arange(500)
    temperature = 300 + 300 * np.exp(-time / 40) + RNG.normal(size=500)
    figure = plot.simulation(time, temperature, 0 * time - 4.3, None, target_temperature=300.0)
    assert by_title(figure, "Temperature").get_ylim()[1] > 600
    assert "outside the axes" not in texts(figure)


def test_shares_known_now_and_then_are_dots():
    share = np.full(100, np.nan)
    share[::10] = 0.02
    figure = plot.simulation(np.arange(100.0), *np.ones((2, 100)), share)
    line = by_title(figure, "Atoms outside").lines[0]
    assert np.flatnonzero(line.get_markevery()).tolist() == list(range(0, 100, 10))
    assert "90 of 100 not finite" in texts(figure)


def test_coverage_by_frame_counts_frames_and_ignores_empty_ones():
    scores = [np.array([0.0, 2.0]), np.zeros(4), np.zeros(0), np.full(3, 5.0)]
    text = texts(plot.coverage_by_frame(scores, 1.0))
    assert "2 of 4 frames have atoms outside the data, at most 100 %" in text


def test_history_is_logarithmic_only_where_that_helps():
    steps = np.arange(50.0)
    loss = {"loss": (steps, np.exp(-steps / 5))}
    assert plot.training_history(loss, ylabel="loss").axes[0].get_yscale() == "log"
    elbo = {"elbo": (steps, -10 - 1e5 * np.exp(-steps))}
    ax = plot.training_history(elbo, ylabel="ELBO", title="Bound").axes[0]
    assert ax.get_yscale() == "linear"
    assert ax.get_ylim()[0] > -100  # the start is cut off
    assert ax.get_title(loc="left") == "Bound"
    flat = {"loss": (steps, 1 + 0.1 * np.sin(steps))}
    assert plot.training_history(flat, ylabel="loss").axes[0].get_yscale() == "linear"


def test_decoded_latent_points_are_drawn_as_distances_and_angles():
    descriptor = chebyshev(("Si",), 5.0, 4, 5.0, 4)
    model = vae(descriptor.num_features, 2, hidden=(4,))
    params = model.init(jax.random.key(0))
    standardizer = Standardizer(np.arange(10.0), np.ones(10))
    codes = {"crystal": np.zeros(2), "gap": np.ones(2)}
    figure = plot.decoded(descriptor, standardizer, model, params, codes)
    left, right = figure.axes[:2]
    assert [len(ax.lines) for ax in (left, right)] == [3, 3]  # two densities and zero
    assert {"crystal", "gap"} <= {line.get_label() for line in left.lines}
    assert not np.allclose(left.lines[0].get_ydata(), left.lines[1].get_ydata())


def moments(num: int) -> list[plot.Snapshot]:
    """A layer that grows by an atom each time, with others outside the cell."""
    cell = np.diag([9.0, 9.0, 30.0])
    position = np.array([[3.0 * k - 9, 3.0 * (k % 2), 2.0 * (k // 3)] for k in range(6 + num)])
    kinds = ["bcc" if k % 3 else "other" for k in range(6 + num)]
    return [
        plot.Snapshot(position[:n], cell, ["W"] * n, kinds[:n], f"{n} atoms")
        for n in range(6, 6 + num)
    ]


FILM_COLORS = {"bcc": plot.BLUE, "other": plot.ORANGE}


def test_a_film_is_drawn_within_its_cell_and_from_far_to_near():
    curves = {"film": (np.arange(3.0), np.arange(3.0) ** 2)}
    figure = plot.film(moments(3), FILM_COLORS, curves)
    assert [ax.get_title() for ax in figure.axes[:3]] == ["6 atoms", "7 atoms", "8 atoms"]
    assert figure.axes[3].get_ylabel() == "thickness (angstrom)"
    for ax, num in zip(figure.axes[:3], (6, 7, 8), strict=True):
        (atoms,) = (c for c in ax.collections if isinstance(c, EllipseCollection))
        x, _ = atoms.get_offsets().T
        assert len(x) == num
        assert x.min() >= 0
        assert x.max() < 9.0


def test_a_movie_has_every_moment(tmp_path):
    from PIL import Image

    plot.film_movie(tmp_path / "film.gif", moments(4), FILM_COLORS)
    with Image.open(tmp_path / "film.gif") as movie:
        assert movie.n_frames == 4


def test_learning_curves_are_geometric_means_and_named_once():
    errors = {kind: {"one": np.array([[1.0, 2.0], [4.0, 8.0]])} for kind in ("melt", "crystal")}
    figure = plot.learning_curves(errors, {"one": np.array([0, 10])})
    for ax in figure.axes:
        assert np.allclose(ax.lines[0].get_ydata(), [2.0, 4.0])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one"]
