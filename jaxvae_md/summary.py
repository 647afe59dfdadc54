"""The figures and the report of a finished run, and those of a coverage assessment."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxvae_md import coverage, plot
from jaxvae_md._typing import Params
from jaxvae_md.assessment import Assessment
from jaxvae_md.descriptors import describe, distributions
from jaxvae_md.generate import rejection
from jaxvae_md.learn import Config, State
from jaxvae_md.learn.evaluate import LabelErrors, error_table
from jaxvae_md.learn.gaps import ORIGINS, surroundings_of
from jaxvae_md.learn.physics import found_properties
from jaxvae_md.learn.potential_fit import predictions
from jaxvae_md.learn.represent import latent_codes, reconstruction, standardized
from jaxvae_md.learn.state import atoms_of, counts, frames_of
from jaxvae_md.learn.trial import RECORD_EVERY
from jaxvae_md.plot.style import finite_values
from jaxvae_md.potentials import pair_energy
from jaxvae_md.properties import table_rows
from jaxvae_md.report import Picture, Section, Table, save_figure, write_report
from jaxvae_md.simulate import Trajectory
from jaxvae_md.vae import pca_reconstruction

_MODELS = {
    "LJ alone": "LJ alone",
    "fitted": "full, given data",
    "learned": "full, with new labels",
    "refined": "full, refined in MD",
}

_MADE = (
    "training structures changed by a move (atoms removed or inserted, a bond rotated, the cell "
    "cleaved or strained), quenched and simulated for a moment with the current potential; and "
    "latent points whose decoded descriptor is far from the data, realised by gradient descent "
    "through descriptor and encoder from the nearest training environment"
)
_ROUTES = {
    "novelty": f"By two routes: {_MADE}. The farthest from the data are taken.",
    "coverage": f"By three routes: {_MADE}; and frames of simulations of training structures at "
    "600 to 3000 K. Of all of them those are taken, one after the other, that cover most of what "
    "the data lack.",
}
_LEARNED = {
    "parity": "Held-out energies and forces against the reference.",
    "pair_potential": "The Lennard-Jones pair potential phi(r) before and after learning.",
    "fit_training": "Losses of the fits.",
}
_TERMS = {
    "lj+nn": "Lennard-Jones alone is the first potential; the full model is a Lennard-Jones core "
    "with a network on the same descriptors.",
    "lj": "The full model is Lennard-Jones.",
    "nn": "The full model is a network on the descriptors.",
}


def write_summary(
    state: State, config: Config, records: Sequence[dict[str, Any]], out: Path
) -> None:
    """Writes every figure as PNG and, after a whole round, the report."""
    figures = run_figures(state, config)
    folder = out / "figures"
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")
    info = {record["stage"]: record for record in records}
    if "simulate" not in info:
        return
    table = error_table(state, config, predictions(state, config))
    write_report(
        out / "report.html",
        f"jaxvae_md: {' and '.join(config.species)}, {len(state.data.energy)} frames",
        _sentences(state, config, table[-1], info),
        _facts(state, config, table[-1], info),
        _sections(state, config, table, figures, info),
    )


def run_figures(state: State, config: Config) -> dict[str, Figure]:
    """Every figure of a finished round or fit, by name, as far as there is something to draw.

    ```python
    run_figures(state, config)["latent_map"].savefig("map.png")
    ```
    """
    figures = {"parity": _parity(state, config), "fit_training": _fit_training(state)}
    if "lennard_jones" in state.params:
        figures["pair_potential"] = _pair_potential(state, config)
    if state.vae_params is not None:
        figures["reconstruction"] = _reconstruction(state, config)
        figures["latent_map"] = _latent_map(state, config)
        figures["vae_training"] = _vae_training(state)
    if state.trial is not None:
        figures["md_side_by_side"] = _side_by_side(state, config)
        figures["rdf"] = _rdf(state)
    return figures


def coverage_figures(result: Assessment, out: Path) -> None:
    """The pictures of an assessment.

    The map of environments with gaps (`coverage.png`), the training data on it by label beside
    PCA (`map.png`), the scores by frame or step (`coverage_by_frame.png`), how sure kinds are
    (`calibration.png`), and what the largest group outside looks like (`largest_group.png`).
    """
    highest = max([result.threshold, *finite_values(*result.score)])
    drawn = [np.where(np.isfinite(part), part, highest) for part in result.score]
    steps = None if np.array_equal(result.step, np.arange(len(result.step))) else result.step
    figures = {
        "coverage": plot.coverage_map(
            result.latent.training, result.latent.new, np.concatenate(drawn), result.threshold
        ),
        "map": plot.maps(
            result.latent.training, result.pca.training, result.label_training, result.labels
        ),
        "coverage_by_frame": plot.coverage_by_frame(
            drawn, result.threshold, step=steps, left_at=result.verdict.left_at
        ),
        "calibration": plot.calibration(result.confidence, result.right),
    }
    if result.x_group is not None:
        r = np.linspace(0.1, result.descriptor.radial_cutoff - 0.05, 300)
        theta = np.linspace(0, np.pi, 300)
        view = distributions(result.descriptor, jnp.asarray(result.x_group), r, theta)
        first = result.verdict.groups[0]
        names = ("nearest in the training data", f"atom {first.atom} of frame {first.frame}")
        by_name = lambda density: dict(zip(names, np.asarray(density)[::-1], strict=True))
        figures["largest_group"] = plot.distributions(
            r, by_name(view.radial), theta, by_name(view.angular)
        )
    for name, figure in figures.items():
        save_figure(figure, out / f"{name}.png")


def _sections(
    state: State,
    config: Config,
    errors: Sequence[LabelErrors],
    figures: dict[str, Figure],
    info: dict[str, Any],
) -> list[Section]:
    trial, refined = info["simulate"], info["refine"]
    reference = "the reference's own simulation"
    if state.trial is not None and state.trial.reference is None:
        reference = (
            f"{len(config.trial_reference)} training frames of the same label and density, whose "
            "temperature is estimated: treat the comparison as a check, not as a measurement"
        )
    refinement = _refinement(config, refined)
    return [
        Section(
            "What the VAE sees",
            "Every point is the surroundings of one atom, described by Chebyshev symmetry "
            "functions. The VAE is judged on frames that it did not see, with PCA of the same "
            "dimension beside it.",
            [
                Picture(figures["reconstruction"], "Held-out descriptors and what comes back."),
                Picture(
                    figures["latent_map"],
                    "First two principal components of the latent codes: by label, and by "
                    "coverage (each environment judged by the other structures). Stars are the "
                    "central atoms of the generated structures, as realised.",
                ),
                Picture(figures["vae_training"], "The VAE's evidence lower bound."),
            ],
        ),
        Section(
            "What was generated for the gaps",
            f"{_ROUTES[config.acquisition]} Novelty is that of the central atom: 1 is the data's "
            "own 95th percentile.",
            tables=[_generated_table(state, config)],
        ),
        Section(
            "What was learned",
            f"Mean absolute errors on held-out frames. {_TERMS[config.potential]}",
            [
                Picture(figures[name], caption)
                for name, caption in _LEARNED.items()
                if name in figures
            ],
            [_error_table(errors, "force", "meV/Å"), _error_table(errors, "energy", "meV/atom")],
        ),
        Section(
            "What the potential does in a simulation",
            f"The same Langevin simulation at {trial['temperature_k']:.0f} K from the same frame "
            "and velocities, with unlearned and with learned parameters. RDF and energy are "
            f"compared with {reference}.\n\nMean energy: learned "
            f"{_number(trial['energy_learned_ev'])}, reference "
            f"{_number(trial['energy_reference_ev'])} eV/atom. "
            f"{_percent(trial['outside'])} of the environments of the learned simulation lie "
            f"outside the data.\n\n{refinement}",
            [
                Picture(figures["md_side_by_side"], "The same simulation, different parameters."),
                Picture(figures["rdf"], "Radial distribution functions."),
            ],
            _property_tables(state),
        ),
    ]


def _property_tables(state: State) -> list[Table]:
    columns = found_properties(state)
    if not columns:
        return []
    return [Table("The crystal, computed in the same way", ["", *columns], table_rows(columns))]


def _refinement(config: Config, refined: dict[str, Any]) -> str:
    """What became of the gradient through the simulation, in words."""
    if "share" not in refined:
        return f"The refinement through the simulation changed nothing: {refined['reason']}."
    kept = f"kept, {refined['share']:.0%} of the way" if refined["kept"] else "not kept"
    return (
        f"Gradient descent through windows of {config.refine_window} steps brought their loss on "
        f"RDF and mean energy from {refined['loss_before']:.3g} to {refined['loss_after']:.3g}. "
        f"In the whole simulation, repeated, the same loss went from "
        f"{refined['trial_loss_learned']:.3g} to {refined['trial_loss_refined']:.3g} (noise "
        f"{refined['trial_noise']:.1g}), and the "
        f"training forces' error from {refined['train_force_mae_before_mev']:.1f} to "
        f"{refined['train_force_mae_after_mev']:.1f} meV/Å: {kept}."
    )


def _sentences(state: State, config: Config, total: LabelErrors, info: dict[str, Any]) -> str:
    made = info["generate"]
    labelled = info["label"]["num_labelled"]
    next_step = (
        f"{labelled} of them were labelled by {config.labeller} and learned."
        if labelled
        else "They wait in to_label.extxyz for the reference that made the data."
    )
    against = ""
    if "LJ alone" in total.force:
        force, energy = total.force["LJ alone"], total.energy["LJ alone"]
        against = f", against {force:.0f} and {energy:.0f} of Lennard-Jones alone"
    return (
        f"The VAE keeps {info['vae']['vae_r2']:.1%} of the variance of held-out environments in "
        f"{config.latent_dim} dimensions (PCA {info['vae']['pca_r2']:.1%}). For gaps in the data "
        f"{made['num_generated']} structures were generated. "
        f"{next_step if made['num_generated'] else ''} The potential's held-out errors are "
        f"{total.force[total.newest]:.0f} meV/Å and {total.energy[total.newest]:.1f} meV/atom"
        f"{against}."
    )


def _facts(
    state: State, config: Config, total: LabelErrors, info: dict[str, Any]
) -> list[tuple[str, str]]:
    return [
        ("frames (held out)", f"{len(state.data.energy)} ({len(state.test)})"),
        ("environments", f"{info['describe']['num_environments']:,}"),
        ("descriptor", f"{info['describe']['num_features']} columns, cutoff {config.cutoff} Å"),
        ("force MAE", f"{total.force[total.newest]:.1f} meV/Å"),
        ("energy MAE", f"{total.energy[total.newest]:.2f} meV/atom"),
        ("VAE R2 (PCA)", f"{info['vae']['vae_r2']:.3f} ({info['vae']['pca_r2']:.3f})"),
        ("active dimensions", f"{info['vae']['active_dims']} of {config.latent_dim}"),
        ("held-out atoms outside", f"{info['judge']['held_out_outside']:.1%}"),
        ("seed", str(config.seed)),
    ]


def _error_table(rows: Sequence[LabelErrors], which: str, unit: str) -> Table:
    models = list(getattr(rows[0], which))
    return Table(
        f"Held-out {which} errors by label ({unit})",
        ["label", "frames", *(_MODELS[name] for name in models)],
        [[r.label, r.num_frames, *(round(getattr(r, which)[m], 1) for m in models)] for r in rows],
    )


def _generated_table(state: State, config: Config) -> Table:
    rows = []
    if state.generated is not None:
        made = state.generated
        for i in range(len(made.center)):
            residual = float(made.residual[i])
            rows.append(
                [
                    i,
                    *ORIGINS[int(made.origin[i])],
                    config.labels[int(state.data.kind[made.start[i]])],
                    round(float(made.novelty[i]), 2),
                    round(residual, 3) if np.isfinite(residual) else "",
                    "accepted" if made.accepted[i] else rejection(int(made.error[i])),
                ]
            )
    header = ["", "route", "by", "started from", "novelty", "latent residual", ""]
    return Table("Structures that were made, and what became of them", header, rows)


def _reconstruction(state: State, config: Config) -> Figure:
    _, report = reconstruction(state, config)
    held_out = standardized(state)[1]
    return plot.reconstruction(held_out, report.by_vae, report.by_pca, config.latent_dim)


def _latent_map(state: State, config: Config) -> Figure:
    assert state.coverage is not None and state.x is not None
    codes = latent_codes(state, config, state.x)
    train = codes[atoms_of(state, state.train)]
    plane = lambda points: pca_reconstruction(train, points, 2)[1]
    y = coverage.joined(surroundings_of(state, config, state.data.structure))
    position = np.full(len(counts(state)), -1)
    position[state.train] = np.arange(len(state.train))
    own = np.repeat(position, counts(state))
    scores = np.asarray(coverage.score(state.coverage, y, jnp.asarray(own)))
    labels = np.repeat(np.array(config.labels)[state.data.kind], counts(state)).tolist()
    stars = None
    if state.generated is not None and state.generated.accepted.any():
        frames = frames_of(state.generated.structure, config.species)
        chosen = np.nonzero(state.generated.accepted)[0]
        x = describe([frames[i] for i in chosen], config.architecture.descriptor)
        atoms = state.generated.center[chosen]
        centers = np.stack([row[atom] for row, atom in zip(x, atoms, strict=True)])
        stars = plane(latent_codes(state, config, centers))
    return plot.latent_map(
        plane(codes),
        labels,
        scores,
        float(state.coverage.threshold),
        stars,
        ("latent component 1", "latent component 2"),
        config.labels,
    )


def _parity(state: State, config: Config) -> Figure:
    size = counts(state)[state.test]
    mask = np.asarray(state.data.structure.mask)
    by_model = predictions(state, config)
    if "refined" in by_model:
        # three columns are enough: what came first, and what came last
        by_model.pop("learned", None)
    shown = {_MODELS[name]: predicted for name, predicted in by_model.items()}
    forces_of = lambda forces: np.concatenate([forces[i] for i in state.test])
    return plot.parity(
        state.data.energy[state.test] / size,
        {name: predicted.energy[state.test] / size for name, predicted in shown.items()},
        np.concatenate([state.data.forces[i][mask[i]] for i in state.test]),
        {name: forces_of(predicted.forces) for name, predicted in shown.items()},
        np.array(config.labels)[state.data.kind[state.test]].tolist(),
        config.labels,
    )


def _pair_potential(state: State, config: Config) -> Figure:
    cutoff = config.cutoff
    assert cutoff is not None and config.nearest_distance is not None
    r = np.linspace(0.7 * config.nearest_distance, cutoff, 400)
    pairs = list(combinations_with_replacement(range(len(config.species)), 2))

    def phi(params: Params) -> np.ndarray:
        sigma, epsilon = (
            np.asarray(params["lennard_jones"][name]) for name in ("sigma", "epsilon")
        )
        curves = [pair_energy(r, sigma[a, b], epsilon[a, b], cutoff) for a, b in pairs]
        return np.asarray(curves)

    names = [f"{config.species[a]}-{config.species[b]}" for a, b in pairs]
    return plot.pair_potential(r, phi(state.unlearned), phi(state.params), names)


def _side_by_side(state: State, config: Config) -> Figure:
    assert state.trial is not None
    mask = np.asarray(state.data.structure.mask[config.trial_start])
    species = np.asarray(state.data.structure.species[config.trial_start])[mask]
    cell = np.asarray(state.data.structure.cell[config.trial_start])
    begin = np.asarray(state.data.structure.position[config.trial_start])[mask]

    def run(trajectory: Trajectory) -> plot.Run:
        num = len(trajectory.position)
        time = config.time_step * RECORD_EVERY * np.arange(1, num + 1)
        positions, times = np.asarray([begin]), np.zeros(1)
        if num:
            middle = num // 2
            positions = np.stack([begin, trajectory.position[middle], trajectory.position[-1]])
            times = np.array([0.0, time[middle], time[-1]])
        return {
            "time_fs": time,
            "temperature": np.asarray(trajectory.temperature),
            "energy_per_atom": np.asarray(trajectory.potential_energy) / len(begin),
            "positions": positions,
            "cell": cell,
            "symbols": [config.species[s] for s in species],
            "finished": not int(trajectory.error),
            "snapshot_fs": times,
        }

    runs = {"unlearned": run(state.trial.unlearned), "learned": run(state.trial.learned)}
    if state.trial.refined is not None:
        runs["refined"] = run(state.trial.refined)
    if state.trial.reference is not None:
        runs["reference"] = run(state.trial.reference)
    return plot.side_by_side(runs, float(state.trial.temperature))


def _rdf(state: State) -> Figure:
    assert state.trial is not None
    reference = "reference MD" if state.trial.reference is not None else "training frames"
    curves = {
        reference: state.trial.rdf_reference,
        "unlearned": state.trial.rdf_unlearned,
        "learned": state.trial.rdf_learned,
    }
    if state.trial.rdf_refined is not None:
        curves["refined"] = state.trial.rdf_refined
    return plot.radial_distribution(state.trial.r, curves)


def _vae_training(state: State) -> Figure:
    names = {"vae_train": "training frames", "vae_validation": "frames that decide when to stop"}
    curves = {
        label: (np.arange(len(state.history[name])), state.history[name])
        for name, label in names.items()
    }
    return plot.training_history(curves, "ELBO (nats per environment)", title="VAE")


def _fit_training(state: State) -> Figure:
    names = {"fit": "fit to the given data", "refit": "fit again with new labels"}
    curves = {
        label: (np.arange(len(state.history[name])), state.history[name])
        for name, label in names.items()
        if name in state.history
    }
    return plot.training_history(curves, "loss", title="Force matching")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _percent(value: float) -> str:
    return f"{value:.1%}" if np.isfinite(value) else "No count"
