"""``docs/cli.md`` is what the commands say, ``methods.md`` the methods, ``scale.md`` the rates."""

import re
import runpy
from pathlib import Path

import pytest

from clip_adapter import __version__

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("tool", ["cli_docs", "method_docs", "scale_costs"])
def test_the_page_is_up_to_date(tool, capsys):
    main = runpy.run_path(str(ROOT / f"tools/{tool}.py"))["main"]
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_the_readme_cites_what_the_citation_file_says():
    cff = (ROOT / "CITATION.cff").read_text("utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    entry = readme.partition("@software{")[2].partition("```")[0].replace("{", "").replace("}", "")
    for key in ("title", "version"):
        value = re.search(rf'^{key}: "?([^"\n]+)', cff, re.MULTILINE)[1]
        assert f"= {value}" in entry
    assert __version__ in entry
