import ase.units
import pytest

from jaxvae_md import units


@pytest.mark.parametrize(
    ("name", "theirs"), [("BOLTZMANN", "kB"), ("FEMTOSECOND", "fs"), ("GIGAPASCAL", "GPa")]
)
def test_constants_agree_with_ase(name, theirs):
    # ASE's default constants are CODATA 2014
    assert getattr(units, name) == pytest.approx(getattr(ase.units, theirs), rel=1e-6)
