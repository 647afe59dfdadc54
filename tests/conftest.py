"""Strict settings for every test, and data that may be absent."""

import os
from pathlib import Path

# XLA reports every program that it takes from the cache as an error; says nothing about results
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import pytest

pytest.register_assert_rewrite("tests.asserts")

SHARED = Path(__file__).parents[2] / "shared"

# that of the command line, whose programs are often the same
_cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxvae_md" / "xla"
jax.config.update("jax_enable_x64", True)
if jax.config.jax_compilation_cache_dir is None:
    jax.config.update("jax_compilation_cache_dir", str(_cache))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


_QUICK = {
    (0, 10): "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
    (0, 12): "--xla_backend_optimization_level=0",
}
"""by version of jax: a flag that XLA does not know ends the process"""


def pytest_configure(config):
    """The default tier is compiled quickly rather than well: that is most of its time.

    Its programs are small and run once. The slow tier is compiled as a user's programs are, and so
    is the default one where XLA_FLAGS is set, to nothing say.
    """
    version = jax.__version_info__[:2]
    if "not slow" in config.option.markexpr and version in _QUICK:
        os.environ.setdefault("XLA_FLAGS", _QUICK[version])


_MAPS = Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Drops compiled programs between files, before they use up the maps of memory.

    Linux allows a process 65,530 of them; the compiler crashes, or hangs, beyond.
    """
    yield
    if _MAPS.exists() and len(_MAPS.read_bytes().splitlines()) > 20_000:
        jax.clear_caches()


def shared_file(name: str) -> Path:
    """A file that is not part of the repository; the test is skipped where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is absent (third-party data, not part of the repository)")
    return path


@pytest.fixture(scope="session")
def silicon_train() -> Path:
    """214 DFT frames of silicon (mlearn)."""
    return shared_file("data/mlearn_si/train.extxyz")


@pytest.fixture(scope="session")
def nist_configuration() -> Path:
    """NIST's Lennard-Jones sample configuration 4."""
    return shared_file("golden/nist_lj_config4.xyz")
