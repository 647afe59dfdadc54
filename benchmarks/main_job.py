"""The main job, measured: `python benchmarks/main_job.py [DATA.extxyz] [--seeds 3] [--json]`.

Runs `jaxvae-md learn` in fresh processes with an empty compilation cache and once more with the
cache it left, and the rate of descriptors with position gradients through the public API.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path


def run(data: str | None, seed: int, folder: Path, cache: Path) -> dict:
    """One run in a process of its own: its final metrics, wall seconds and peak memory."""
    program = (
        "import resource, sys; from jaxvae_md.cli import app; "
        "app(standalone_mode=False); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    out = folder / f"seed-{seed}-{time.time_ns()}"
    command = [sys.executable, "-c", program, "learn", *([data] if data else [])]
    command += ["--seed", str(seed), "--out", str(out), "--quiet"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "TF_CPP_MIN_LOG_LEVEL": "3"}
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wall = time.perf_counter() - began
    final = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    return {**final, "wall": wall, "megabytes": int(done.stdout.split()[-1]) / 1024}


def descriptor_rate() -> float:
    """Environments a second at 5.2/10 + 5.2/10 with position gradients, float64, all cores."""
    import jax
    import jax.numpy as jnp

    import jaxvae_md as jv
    from jaxvae_md.batching import batches

    jax.config.update("jax_enable_x64", True)
    descriptor = jv.chebyshev(("Si",), 5.2, 10, 5.2, 10)
    frames = [a for a in jv.datasets.silicon() if len(a) == 64]
    (batch,) = batches([jv.from_atoms(a, ("Si",)) for a in frames], 5.2)

    def gradient(frame):
        structure, neighbors = frame
        total = lambda r: jnp.sum(descriptor(structure._replace(position=r), neighbors))
        return jax.grad(total)(structure.position)

    compiled = jax.jit(lambda s, n: jax.lax.map(gradient, (s, n)))
    inputs = jax.tree.map(jnp.asarray, (batch.structure, batch.neighbors))
    compiled(*inputs).block_until_ready()
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        compiled(*inputs).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 64 * len(frames) / statistics.median(seconds)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", help="extxyz; by default the embedded silicon set")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    packages = {name: version(name) for name in ("jax", "flax", "jax-md", "jaxvae_md")}
    head = {"cores": os.cpu_count(), "python": platform.python_version(), **packages}
    print(json.dumps(head) if options.json else head)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cold = [run(options.data, s, folder, folder / f"cache-{s}") for s in range(options.seeds)]
        warm = run(options.data, 0, folder, folder / "cache-0")
    same = [k for k in cold[0] if k not in ("seconds", "wall", "megabytes")]
    median = lambda key: statistics.median(result[key] for result in cold)
    figures = [
        ("main-job-seconds", median("wall"), "s"),
        ("main-job-seconds-cached", warm["wall"], "s"),
        ("main-job-memory", max(r["megabytes"] for r in cold), "MB"),
        ("force-mae", median("force_mae_mev_per_angstrom"), "meV/angstrom"),
        (
            "force-mae-worst-seed",
            max(r["force_mae_mev_per_angstrom"] for r in cold),
            "meV/angstrom",
        ),
        ("energy-mae", median("energy_mae_mev_per_atom"), "meV/atom"),
        ("energy-mae-worst-seed", max(r["energy_mae_mev_per_atom"] for r in cold), "meV/atom"),
        ("vae-r2", median("vae_r2"), ""),
        ("vae-r2-pca", median("pca_r2"), ""),
        ("active-dims", min(r["active_dims"] for r in cold), ""),
        ("generated", median("num_generated"), "structures"),
        ("same-seed-same-metrics", float(all(warm[k] == cold[0][k] for k in same)), "1 is yes"),
        ("descriptor-gradient-B", descriptor_rate(), "environments/s"),
    ]
    for name, value, unit in figures:
        if options.json:
            print(json.dumps({"name": name, "value": value, "unit": unit}))
        else:
            print(f"{name:28s} {value:12.4g} {unit}")


if __name__ == "__main__":
    main()
