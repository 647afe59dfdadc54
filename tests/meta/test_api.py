"""What a program that uses the package relies on."""

import subprocess
import sys

import pytest

import jaxvae_md

SLOW = ("jax_md", "matplotlib", "flax", "optax", "orbax", "ase.io")


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("name", jaxvae_md.__all__)
def test_every_public_name_resolves(name):
    found = getattr(jaxvae_md, name)
    assert callable(found) or found.__name__ == f"jaxvae_md.{name}"


def test_public_names_are_about_twenty_and_differ():
    assert len(set(jaxvae_md.__all__)) == len(jaxvae_md.__all__)
    assert 15 <= len(jaxvae_md.__all__) <= 30


def test_names_stay_what_they_are_whatever_is_imported_first():
    # a module of the same name as a function must not replace it
    code = (
        "import importlib, pkgutil, jaxvae_md\n"
        "names = sorted(jaxvae_md.__all__)\n"
        "before = {name: type(getattr(jaxvae_md, name)).__name__ for name in names}\n"
        "for module in pkgutil.iter_modules(jaxvae_md.__path__, 'jaxvae_md.'):\n"
        "    importlib.import_module(module.name)\n"
        "changed = [n for n in names if type(getattr(jaxvae_md, n)).__name__ != before[n]]\n"
        "assert not changed, changed\n"
    )
    reverse = code.replace("names = sorted", "import jaxvae_md.cli\nnames = sorted")
    for one in (code, reverse):
        done = python(one)
        assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        jaxvae_md.no_such_name  # noqa: B018


def test_the_listing_has_the_public_names():
    assert set(jaxvae_md.__all__) <= set(dir(jaxvae_md))


@pytest.mark.parametrize("module", ["jaxvae_md", "jaxvae_md.cli", "jaxvae_md.simulate"])
def test_importing_is_quick(module):
    done = python(f"import sys, {module}; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    assert module in imported
    slow = SLOW if module != "jaxvae_md.simulate" else ("jax_md", "matplotlib")
    assert not imported & set(slow)


@pytest.mark.parametrize("package", ["jax", "jaxlib"])
def test_a_jax_that_computes_wrong_numbers_is_refused(package):
    code = (
        "import importlib.metadata as m\n"
        "real = m.version\n"
        f"m.version = lambda name: '0.10.2' if name == {package!r} else real(name)\n"
        "from jaxvae_md.errors import JaxvaeError\n"
    )
    done = python(code)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-2:]
    assert "UnsupportedJaxError" in last[0]
    assert f"{package} 0.10.2" in last[0]
    assert "remedy: pip install" in last[1]


def test_the_refusal_is_an_import_error_of_this_package():
    from jaxvae_md import errors

    assert issubclass(errors.UnsupportedJaxError, ImportError)
    assert issubclass(errors.UnsupportedJaxError, errors.JaxvaeError)
