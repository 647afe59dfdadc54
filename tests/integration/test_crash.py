"""A run folder survives a death before each of its changes of the file system."""

import subprocess
import sys
from pathlib import Path

from tests.integration.command import environment


def test_nothing_committed_is_lost_wherever_the_process_dies(tmp_path):
    script = Path(__file__).with_name("crash.py")
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50, "too few places to die"
