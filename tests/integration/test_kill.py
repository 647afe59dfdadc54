"""Kill -9 at any moment, often: a resumed run ends as if it had never been killed.

Two kills of each are among the tests of the commands, which run by default.
"""

import pytest

from tests.integration.kills import learn_is_killed, md_is_killed

pytestmark = pytest.mark.slow


def test_learn_killed_twenty_times_ends_the_same(runs, tmp_path):
    learn_is_killed(runs, tmp_path, 20)


@pytest.mark.parametrize(("ensemble", "num_kills"), [("nve", 3), ("nvt", 4), ("npt", 3)])
def test_md_killed_ten_times_ends_the_same(runs, tmp_path, ensemble, num_kills):
    md_is_killed(runs, tmp_path, num_kills, ensemble)
