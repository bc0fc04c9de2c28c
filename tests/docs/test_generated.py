"""``docs/cli.md`` is what the commands' own help says, ``docs/methods.md`` what the methods say."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("tool", ["cli_docs", "method_docs"])
def test_the_page_is_up_to_date(tool):
    script = ROOT / f"tools/{tool}.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
