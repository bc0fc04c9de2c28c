"""``docs/cli.md`` is what the commands' own help says, ``docs/methods.md`` what the methods say."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("tool", ["cli_docs", "method_docs"])
def test_the_page_is_up_to_date(tool, capsys):
    main = runpy.run_path(str(ROOT / f"tools/{tool}.py"))["main"]
    assert main(["--check"]) == 0, capsys.readouterr().err
