import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import errors

BITS = {
    "NEIGHBOR_OVERFLOW": "more capacity",
    "NOT_FINITE": "not finite",
    "NOT_CONVERGED": "did not converge",
    "ILL_CONDITIONED": "damping",
    "STALE_NEIGHBORS": "skin",
    "TOO_CLOSE": "closer",
}


def test_message_says_where_what_and_what_to_do():
    error = errors.InputError(
        "two atoms at the same place", file="a.extxyz", frame=3, atom=0, remedy="remove one"
    )
    expected = "file a.extxyz, frame 3, atom 0: two atoms at the same place\n  remedy: remove one"
    assert str(error) == expected
    assert (error.file, error.frame, error.atom) == ("a.extxyz", 3, 0)
    assert error.remedy == "remove one"


def test_message_leaves_out_what_is_unknown():
    assert str(errors.InputError("no atoms")) == "no atoms"
    assert str(errors.InputError("no atoms", frame=2)) == "frame 2: no atoms"


@pytest.mark.parametrize(
    "name", ["FileError", "LabelError", "SpeciesError", "GeometryError", "OutputError"]
)
def test_input_errors_are_value_errors_of_this_package(name):
    kind = getattr(errors, name)
    assert issubclass(kind, errors.InputError)
    assert issubclass(kind, errors.JaxvaeError)
    assert issubclass(kind, ValueError)


def test_error_bits_are_distinct_single_bits():
    bits = [getattr(errors, name) for name in BITS]
    assert all(bit > 0 and bit & (bit - 1) == 0 for bit in bits)
    assert len(set(bits)) == len(bits)


@pytest.mark.parametrize(("name", "words"), BITS.items())
def test_check_names_the_result_and_the_reason(name, words):
    with pytest.raises(errors.RunError, match=f"^realised structures: .*{words}") as caught:
        errors.check(getattr(errors, name), "realised structures")
    assert ";" not in str(caught.value).replace("; ", "", 1), "one bit, one reason"


def test_check_combines_the_bits_of_an_array():
    bits = np.array([[0, errors.NOT_FINITE], [errors.NOT_CONVERGED, 0]])
    with pytest.raises(errors.RunError) as caught:
        errors.check(bits)
    assert "not finite" in str(caught.value)
    assert "did not converge" in str(caught.value)
    assert "overflowed" not in str(caught.value)


@pytest.mark.parametrize("nothing", [0, np.zeros(3, np.int32), np.zeros(0, np.int32)])
def test_check_passes_without_bits(nothing):
    assert errors.check(nothing) is None


def test_check_takes_what_jitted_code_returns():
    bits = jax.jit(lambda x: jnp.where(x < 0, errors.NOT_FINITE, 0))(jnp.array([1.0, -1.0]))
    with pytest.raises(errors.RunError, match="not finite"):
        errors.check(bits)
