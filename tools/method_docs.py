"""Writes ``docs/methods.md`` from the registered methods, or with ``--check`` compares the two."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from pathlib import Path

from clip_adapter.methods import get_method, method_names
from clip_adapter.methods.base import Method
from clip_adapter.task import VIT_B_16

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
OPENING = """<!-- Written by 'make docs' from the files in src/clip_adapter/methods. -->

# Methods

Choose one with `--method NAME` or `fit(..., method="NAME")`. Who does not want to choose takes
`auto`. What a method reads decides what it costs: `features` are made once and every method learns
on them in seconds; `text tower` runs CLIP's text tower at every step; `images` trains inside CLIP's
visual tower, which takes minutes and better a GPU. Parameters are counted at the defaults for 1,000
classes and 16 pictures of each on ViT-B/16. How they compare is in
[comparison.md](comparison.md), the numbers in
[benchmarks/METHODS.md](../benchmarks/METHODS.md); how to add one in
[add-a-method](add-a-method.md).

"""


def render() -> str:
    """The page, as Markdown."""
    methods = [get_method(name) for name in method_names() if not name.startswith("_")]
    own = [m for m in methods if m.__module__.startswith("clip_adapter.")]
    lines = [
        "| name | what it does | trains | reads | parameters | from |",
        "|---|---|---|---|---|---|",
    ]
    for cls in own:
        reads = cls.reads + (", text tower" if cls.runs_text_tower else "")
        count = cls().parameters(VIT_B_16)
        shown = "by choice" if count is None else f"{count:,}"
        lines.append(
            f"| [`{cls.name}`](#{anchor(cls.name)}) | {cls.summary} | {cls.trains} | {reads} "
            f"| {shown} | {cls.citation} |"
        )
    first: dict[str, str] = {}  # which method of a file comes first
    for cls in own:
        first.setdefault(cls.__module__, cls.name)
    return OPENING + "\n".join(lines) + "\n" + "".join(section(c, first) for c in own)


def anchor(name: str) -> str:
    """The link target that GitHub makes of a heading."""
    return re.sub(r"[^\w-]", "", name)


def section(cls: type[Method], first: dict[str, str]) -> str:
    """One method: what its file says of it, and its options."""
    before = first[cls.__module__]
    if before == cls.name:
        opening = plain(inspect.cleandoc(sys.modules[cls.__module__].__doc__ or ""))
    else:
        opening = f"Described with [`{before}`](#{anchor(before)})."
    text = [f"\n## {cls.name}\n", opening, ""]
    if not cls.needs_text:
        text.append("Needs no text weights.\n")
    fields = dataclasses.fields(cls)
    if fields:
        said = attributes(cls)
        text += ["| option | default | |", "|---|---|---|"]
        text += [f"| `{f.name}` | `{f.default}` | {said.get(f.name, '')} |" for f in fields]
    else:
        text.append("No options.")
    return "\n".join(text) + "\n"


def plain(docstring: str) -> str:
    """A docstring as Markdown: formulas stay as they are, code marks become single."""
    return docstring.replace("``", "`").replace("*args", "args")


def attributes(cls: type[Method]) -> dict[str, str]:
    """``{option: what it says}`` from the class's docstring."""
    found: dict[str, str] = {}
    doc = inspect.cleandoc(cls.__doc__ or "")
    body = doc.partition("Attributes:\n")[2]
    name = ""
    for line in body.splitlines():
        if not line.startswith("    "):
            break
        if match := re.match(r"    (\w+): (.*)", line):
            name = match[1]
            found[name] = match[2]
        elif name:
            found[name] += " " + line.strip()
    return {key: value.replace("|", "\\|").replace("``", "`") for key, value in found.items()}


def main(arguments: list[str]) -> int:
    """0 when the page is as it should be."""
    page = render()
    if "--check" in arguments:
        if PAGE.is_file() and PAGE.read_text("utf-8") == page:
            return 0
        print(f"{PAGE.name} is not what the methods say. Next: make docs", file=sys.stderr)
        return 1
    PAGE.write_text(page, "utf-8")
    print(f"Written: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
