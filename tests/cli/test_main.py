import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass

import pytest
import typer

from clip_adapter.cli.main import app
from clip_adapter.errors import DataError
from clip_adapter.methods import Method, base

HELP = """
import contextlib, io, sys
from clip_adapter.cli.main import main
for words in ([], ["--help"], *([*c.split(), "--help"] for c in sys.argv[1:])):
    sys.argv[1:] = words
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main()
    assert "Usage" in out.getvalue(), words
heavy = {"torch", "numpy", "pyarrow", "matplotlib", "open_clip", "sklearn", "PIL", "datasets"}
print(sorted(heavy & set(sys.modules)))
"""


def commands(group, before=""):
    """The words of every command, as in "fit" and "data get"."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name


COMMANDS = [*commands(typer.main.get_command(app))]


def test_help_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", HELP, *COMMANDS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


SLIPS = """
import contextlib, io, json, sys
from clip_adapter.cli.main import main
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            assert stop.code in (1, 2), words
    print(json.dumps([words, out.getvalue() + err.getvalue(), "torch" in sys.modules]))
"""


def test_slips_are_answered_before_torch_is_imported(tmp_path):
    for name in ("photos", "classifier", "My set 1", "up/classifier"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("classifier/classifier.json", "names.csv", "weights.pt", "photos/1.jpg"):
        (tmp_path / name).touch()
    for name in ("up/classifier/classifier.json", "bag.zip", "bag.tar.gz", "x.jpg"):
        (tmp_path / name).touch()
    slips = [
        (["fit", "photo"], "Did you mean 'photos'?"),
        (["fit", "nothing-like-it"], "nothing-like-it does not exist."),
        (["fit", "photos.safetensors#train"], "photos.safetensors does not exist."),
        (["fit", "photos", "--backbone", "RN50/./weight.pt"], "Did you mean 'weights.pt'?"),
        (["fit", "photos", "--class-names", "name.csv"], "Did you mean 'names.csv'?"),
        (["fit", "photos", "--descriptions", "no.json"], "no.json does not exist."),
        (["fit", "photos", "-o", "epochs"], "-o KEY=VALUE"),
        (["fit", "eurosat", "--root", "photo"], "Did you mean 'photos'?"),
        (["fit", "photos", "--method", "clip-adaptr"], "Did you mean 'clip-adapter'"),
        (["fit", "photos", "--device", "gpu"], "Did you mean 'cpu'?"),
        (["fit", "photos", "--device", "cuda:first"], "Unknown device 'cuda:first'."),
        (["fit", "photos", "--backbone", "RN50/openia"], "Did you mean 'openai'?"),
        (["fit", "photos", "--backbone", "ViT-B32/openai"], "Did you mean 'ViT-B-32'"),
        (["fit", "photos"], "--backbone ViT-B-32-quickgelu//full/path"),
        (["fit", "photos", "--backbone", "hf-hub:org/repo"], "(repository org/repo)"),
        (["embed", "photos", "--unlabelled", "--out", "x.pt"], "Unknown ending of --out x.pt"),
        (["embed", "photos", "--out", "x.parqet"], "Did you mean '.parquet'?"),
        (["evaluate", "classifier", "photos", "--device", "gpu"], "Did you mean 'cpu'?"),
        (["predict", "classifier", "photos", "--device", "gpu"], "Did you mean 'cpu'?"),
        (["doctor", "--device", "cudda"], "Did you mean 'cuda'"),
        (["predict", "clasifier", "photos"], "Did you mean 'classifier'?"),
        (["predict", "photos", "photos"], "it has no classifier.json"),
        (["predict", "classifier", "photos/2.jpg"], "could not be read"),
        (["evaluate", "classifier", "photso"], "Did you mean 'photos'?"),
        (["evaluate", "classifer", "photos"], "Did you mean 'classifier'?"),
        (["embed", "photoz", "--out", "x.npz"], "Did you mean 'photos'?"),
        (["embed", "photoz", "--unlabelled", "--out", "x.npz"], "Did you mean 'photos'?"),
        # Quotes are missing, or there is a space too many.
        (["fit", "My", "set", "1/", "--out", "x"], 'Did you mean "My set 1/"? A path with'),
        (["fit", "Fotos", "2024"], "A path with spaces needs quotes."),
        (["fit", "photos", "--hold-out", "20", "%"], "Write 20% without a space."),
        (["fit", "photos", "-o", "epochs", "=", "5"], "Write epochs=5 without a space."),
        (["fit", "photos", "-o", "epochs=", "5"], "Write epochs=5 without a space."),
        (["predict", "classifier", "photos", "My", "set", "1"], 'Did you mean "My set 1"?'),
        (["evaluate", "My", "set 1"], 'Did you mean "My set 1"?'),
        # The classifier is another one.
        (["predict", "photos", "classifier"], "first: clip-adapter predict classifier photos\n"),
        (["evaluate", "x.jpg", "classifier"], "first: clip-adapter evaluate classifier x.jpg\n"),
        (["predict", "up", "photos"], "Did you mean 'up/classifier'?"),
        (["predict", "classifier/classifier.json", "x"], "the folder that holds it: classifier.\n"),
        (["predict", "x" * 300, "photos"], "There is no folder xxx"),
        (["predict", "photo", "photos"], "There is no folder photo.\n"),
        # These are no folders of pictures.
        (["predict", "classifier", "bag.zip", "bag.tar.gz"], "2 of 2 pictures could not be read"),
        (["predict", "classifier", "bag.tar.gz"], "an archive. Unpack it and name the folder."),
        (["predict", "bag.zip", "photos"], "Next: Unpack it and name the folder."),
        (["fit", "bag.zip"], "Next: Unpack it and name the folder."),
        (["fit", "x.jpg"], "Next: Name a folder. Put the pictures of each class into a folder of"),
        (["fit", "https://a.org/b.zip"], "https://a.org/b.zip is an address, and addresses are"),
        (["evaluate", "classifier", "https://a.org/b.npz#test"], "Next: Download the pictures"),
        (["predict", "classifier", "https://a.org/b?c"], "addresses are not fetched. Download"),
        (["predict", "https://a.org/b", "photos"], "https://a.org/b is an address, and addresses"),
        # An option of other commands.
        (["predict", "x", "y", "--backbone", "demo"], "fit, embed have --backbone. predict takes"),
        (["predict", "x", "y", "--plots", "demo"], "evaluate has --plots. "),
    ]
    done = subprocess.run(
        [sys.executable, "-c", SLIPS, json.dumps([words for words, _ in slips])],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for (words, wanted), (given, answer, heavy) in zip(slips, answers, strict=True):
        assert given == words
        assert wanted in answer, words
        assert not heavy, words


def test_module_version():
    import clip_adapter

    done = subprocess.run(
        [sys.executable, "-m", "clip_adapter", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"clip-adapter {clip_adapter.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_examples(run, command):
    shown = run(*command.split(), "--help")
    assert shown.exit_code == 0
    assert "Examples" in shown.stdout
    assert f"clip-adapter {command}" in shown.stdout


def test_defaults_shown_are_those_used(run):
    from clip_adapter.options import DEFAULT_BACKBONE, DEFAULT_METHOD

    text = " ".join(run("fit", "--help").stdout.split())
    for value in (DEFAULT_METHOD, DEFAULT_BACKBONE, "64,"):
        assert f"default: {value}" in text.replace("(", "")


@pytest.mark.parametrize(
    "words", [["nothing"], ["fit"], ["fit", "x", "--views", "0"], ["ls", "cats"], ["--no"]]
)
def test_wrong_usage_is_exit_2(run, words):
    result = run(*words)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


FIT = ("fit", "photos", "--backbone", "demo")


def failing(monkeypatch, tmp_path, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()

    def fit(*_, **__):
        raise error

    monkeypatch.setattr("clip_adapter.fitting.fit", fit)


def test_an_error_says_what_and_what_next(run, monkeypatch, tmp_path):
    failing(monkeypatch, tmp_path, DataError("Found this.", allowed="that", hint="do so"))
    result = run(*FIT, "--out", "nowhere")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "Error: Found this.\nAllowed: that\nNext: do so\n"
    printed = json.loads(run(*FIT, "--json").stdout)
    assert printed == {
        "schema": 1,
        "error": "Found this.",
        "allowed": "that",
        "next": "do so",
        "kind": "DataError",
    }


def test_a_bug_is_called_one(run, monkeypatch, tmp_path):
    failing(monkeypatch, tmp_path, ZeroDivisionError("by zero"))
    result = run(*FIT, "--json")
    assert result.exit_code == 1
    assert "ZeroDivisionError: by zero" in result.stderr
    assert "CLIP_ADAPTER_DEBUG=1" in result.stderr
    assert json.loads(result.stdout)["kind"] == "bug"
    monkeypatch.setenv("CLIP_ADAPTER_DEBUG", "1")
    assert isinstance(run(*FIT).exception, ZeroDivisionError)


@pytest.mark.parametrize(("file", "words"), [("mine.py", "no part of"), (base.__file__, "yours")])
def test_a_file_that_is_no_python_is_named(run, monkeypatch, tmp_path, file, words):
    slip = SyntaxError("'(' was never closed", (str(tmp_path / file), 3, 1, "f(", 3, 2))
    failing(monkeypatch, tmp_path, slip)
    result = run(*FIT)
    assert result.exit_code == 1
    assert f"{tmp_path / file}, line 3: '(' was never closed." in result.stderr
    assert words in result.stderr
    assert "bug in clip-adapter" not in result.stderr


def test_what_breaks_in_another_package_is_told_as_its_own(
    run, monkeypatch, photos, tiny, tmp_path
):
    class Theirs(Method):
        """A method of another package."""

        name, summary, citation = "theirs", "breaks", "arXiv 0000.00000"

        def fit(self, task):
            raise ZeroDivisionError("by zero")

    monkeypatch.setitem(base._REGISTRY, "theirs", dataclass(Theirs))
    words = ["fit", photos, "--method", "theirs", "--backbone", tiny, "--out", tmp_path / "made"]
    result = run(*words, "--json")
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert printed["kind"] == "PluginError"
    assert f"{__name__}.test_" in printed["error"]
    assert "Theirs failed with ZeroDivisionError: by zero" in printed["error"]
    assert "bug in clip-adapter" not in result.stderr
    assert "CLIP_ADAPTER_DEBUG=1" in result.stderr
    monkeypatch.setenv("CLIP_ADAPTER_DEBUG", "1")
    assert isinstance(run(*words).exception.__cause__, ZeroDivisionError)


def test_lines_and_warnings_go_to_standard_error_and_leave_no_trace(capsys):
    from clip_adapter.cli.output import Output
    from clip_adapter.reporting import log

    before = list(log.handlers), log.level, warnings.showwarning, list(warnings.filters)
    with Output(True):
        log.info("outer")
        for _ in range(2):
            warnings.warn("3 pictures skipped.", UserWarning, stacklevel=1)
        with pytest.raises(typer.Exit), Output(False):
            raise DataError("Found this.")
        log.warning("outer again")
    with Output(False):
        log.info("next")
    assert (list(log.handlers), log.level, warnings.showwarning, list(warnings.filters)) == before
    lines = ["outer", *["3 pictures skipped."] * 2, "Error: Found this.", "outer again", "next"]
    assert capsys.readouterr() == ("", "\n".join([*lines, ""]))


def test_interrupted(run, monkeypatch, tmp_path):
    failing(monkeypatch, tmp_path, KeyboardInterrupt())
    result = run(*FIT)
    assert result.exit_code == 130
    assert result.stderr.startswith("Interrupted.")


def test_a_reader_that_stops_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "clip_adapter", "ls", "templates", "--json"],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert done.stderr == b""
    assert done.returncode == 1


def test_json_holds_no_nan_and_any_name(monkeypatch, capsys):
    from clip_adapter.cli.output import Output, to_json

    assert json.loads(to_json({"a": [float("nan"), float("inf"), 1.5]})) == {"a": [None, None, 1.5]}
    for name in ("花", "😀", "caf\udce9"):
        Output(True).result([name])
        assert json.loads(capsys.readouterr().out) == [name]
