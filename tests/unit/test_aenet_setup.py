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


BAD = {
    "missing order": (SETUP.replace("angular_N = 4", ""), "angular_N is missing"),
    "another basis": (SETUP.replace("Chebyshev", "Behler2011"), "basis is behler2011"),
    "no basis": (SETUP[: SETUP.index("BASIS")], "no complete fingerprint setup"),
    "short": (SETUP[: SETUP.index("Ti")], "no complete fingerprint setup"),
    "negative": (SETUP.replace("radial_N = 16", "radial_N = -1"), "radial_order is -1"),
    "twice": (SETUP.replace("Ti\n", "W\n"), "W"),
    "cutoff": (SETUP.replace("8.0d0", "far"), "could not convert"),
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
