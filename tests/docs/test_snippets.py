"""The pages tell the truth: their ``python`` and ``sh`` blocks run, in order, page by page."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clip_adapter.cli.main import app
from clip_adapter.methods import base

ROOT = Path(__file__).parents[2]
PAGES = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")})
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
# Shown, not run: console sessions with a prompt, layouts, references.
OTHERS = {"mermaid", "bibtex", "console", "text"}


def name(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page):
    return BLOCK.findall(page.read_text("utf-8"))


def run_line(line):
    program, *words = shlex.split(line)
    assert program == "clip-adapter", f"not a command of this package: {line}"
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_are_run_or_known(page):
    assert {language for language, _ in blocks(page)} <= {"python", "sh"} | OTHERS


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=name)
def test_blocks_run(page, task_folder, monkeypatch):
    # What a page registers is gone when it ends; the built-in ones are there before.
    assert base.method_names()
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    names = {"__name__": "__main__"}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, name(page), "exec"), names)
        elif language == "sh":
            for line in filter(None, text.splitlines()):
                run_line(line)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text("utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target
