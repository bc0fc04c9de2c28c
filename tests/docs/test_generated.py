"""``docs/cli.md`` is what the commands say, ``methods.md`` the methods, ``scale.md`` the rates."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("tool", ["cli_docs", "method_docs", "scale_costs"])
def test_the_page_is_up_to_date(tool, capsys):
    main = runpy.run_path(str(ROOT / f"tools/{tool}.py"))["main"]
    assert main(["--check"]) == 0, capsys.readouterr().err
