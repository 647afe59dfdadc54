"""Fingerprint setups of aenet."""

import pytest

from jaxvae_md import errors
from jaxvae_md.descriptors import chebyshev, read_aenet_setup

SETUP = """DESCR
  ENV and BASIS of nothing: words of a person
END DESCR

ATOM W  # the central atom
ENV 3
Ti
O   ! oxygen
W
RMIN 0.75d0

BASIS type=Chebyshev
radial_Rc = 8.0d0  radial_N = 16 angular_Rc=6.5
angular_N = 4
"""


def written(tmp_path, text: str):
    path = tmp_path / "W.fingerprint.stp"
    path.write_text(text)
    return path


def test_a_setup_is_a_descriptor_with_the_weights_of_aenet(tmp_path):
    descriptor = read_aenet_setup(written(tmp_path, SETUP))
    assert descriptor == chebyshev(("Ti", "O", "W"), 8.0, 16, 6.5, 4)
    assert descriptor.weights == (-1.0, 0.0, 1.0)
    assert read_aenet_setup(written(tmp_path, SETUP.replace("BASIS", "basis"))) == descriptor


FORMS = {
    "lower case": SETUP.replace("BASIS", "basis").replace("radial_Rc", "RADIAL_RC"),
    "tabs": SETUP.replace(" ", "\t").replace("END\tDESCR", "END DESCR"),
    "windows": SETUP.replace("\n", "\r\n"),
    "commas": SETUP.replace("8.0d0 ", "8.0, ").replace("6.5", "6.5,"),
    "a line each": SETUP.replace("d0  radial_N", "D+0\n\nradial_N").replace(
        " angular_Rc", "\n! then\nangular_Rc"
    ),
    "another order": SETUP[SETUP.index("RMIN") :] + SETUP[: SETUP.index("RMIN")],
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS.keys())
def test_other_forms_of_a_setup_are_the_same(tmp_path, text):
    assert text != SETUP
    assert read_aenet_setup(written(tmp_path, text)) == read_aenet_setup(written(tmp_path, SETUP))


BAD = {
    "missing order": (SETUP.replace("angular_N = 4", ""), "angular_N is missing"),
    "another basis": (SETUP.replace("Chebyshev", "Behler2011"), "basis is behler2011"),
    "symmetry functions": (SETUP.replace("BASIS", "SYMMFUNC"), "symmetry functions"),
    "no basis": (SETUP[: SETUP.index("BASIS type")], "BASIS is there 0 times"),
    "two bases": (SETUP + "\n" + SETUP[SETUP.index("BASIS type") :], "BASIS is there 2 times"),
    "short": (SETUP[: SETUP.index("Ti")], "is there 0 times"),
    "negative": (SETUP.replace("radial_N = 16", "radial_N = -1"), "radial_order is -1"),
    "twice": (SETUP.replace("Ti\n", "O\n"), "is not a species table"),
    "cutoff": (SETUP.replace("8.0d0", "8.0_dp"), "8.0_dp"),
    "no number": (SETUP.replace("ENV 3", "ENV"), "followed by one number"),
    "on one line": (SETUP.replace("ENV 3\nTi", "ENV 3 Ti"), "followed by one number"),
    "too few": (SETUP.replace("ENV 3", "ENV 2"), "unknown keyword 'W'"),
    "too many": (SETUP.replace("ENV 3", "ENV 4"), "'RMIN' is no element"),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_setup_is_refused_by_name(tmp_path, text, words):
    path = written(tmp_path, text)
    with pytest.raises(errors.InputError, match=words) as caught:
        read_aenet_setup(path)
    assert caught.value.file == path
    assert caught.value.remedy


def test_a_missing_setup_is_refused(tmp_path):
    with pytest.raises(errors.FileError, match="cannot be read"):
        read_aenet_setup(tmp_path / "nothing.stp")
