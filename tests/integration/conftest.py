"""One small run of every command that makes a folder, for all the tests that look at them."""

import fcntl
import json
import os
import time
from pathlib import Path

import ase.io
import pytest
import yaml

from jaxvae_md.options import as_plain
from tests.integration.command import jaxvae_md
from tests.integration.runs import TINY, Runs, small_silicon


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Runs:
    """Made by the command line from the same frames; workers of pytest-xdist share them."""
    base = tmp_path_factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "runs"
    path.mkdir(exist_ok=True)
    done = path / "done.json"
    with open(path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            done.write_text(json.dumps(_made(path)))
    return Runs(path, *json.loads(done.read_text()))


def _made(path: Path) -> tuple[dict[str, str], dict[str, float]]:
    """Runs the commands; returns what each said, and the seconds it took."""
    ase.io.write(path / "si.extxyz", small_silicon(), format="extxyz")
    derived = {"species", "labels", "labeller"}
    options = {k: v for k, v in as_plain(TINY).items() if v is not None and k not in derived}
    (path / "options.yaml").write_text(yaml.safe_dump({"data": "si.extxyz", **options}))
    said, seconds = {}, {}
    for out, command in {
        "run": ["learn", "--config", "options.yaml", "--labeller", "sw"],
        "fitted": ["fit", "--config", "options.yaml"],
        "md": ["md", "fitted", "si.extxyz", "--steps", 2000],
    }.items():
        began = time.perf_counter()
        done = jaxvae_md(*command, "--out", out, "--json", cwd=path)
        assert done.returncode == 0, done.stderr
        said[out], seconds[out] = done.stdout, time.perf_counter() - began
    return said, seconds
