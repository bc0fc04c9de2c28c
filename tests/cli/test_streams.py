"""What programs read of a command: standard output, whatever happens, and exit codes."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import save_file

from clip_adapter import Classifier
from clip_adapter.cli.main import main
from clip_adapter.cli.output import Output, table
from clip_adapter.heads import Head

FULL = Path("/dev/full")
full_disk = pytest.mark.skipif(not FULL.is_char_device(), reason="needs /dev/full")
LINE = "Error: Standard output cannot be written: No space left on device."


@full_disk
@pytest.mark.parametrize(
    ("as_json", "say"),
    [
        (True, lambda out: out.result({"a": 1})),
        (False, lambda out: out.show("a line", table(["a"], [["b"]]))),
        (False, lambda out: out.write("path,label\n")),
    ],
)
def test_a_full_disk_is_said_in_words(monkeypatch, capsys, as_json, say):
    with FULL.open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(typer.Exit) as stopped, Output(as_json) as out:
            say(out)
        assert stopped.value.exit_code == 1
    assert capsys.readouterr().err.splitlines()[0] == LINE


@full_disk
def test_help_on_a_full_disk():
    with FULL.open("w") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "clip_adapter", "--help"],
            stdout=stream,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, LINE)


def closed(streams, *words):
    """What a command does where the shell has closed some of its standard streams."""
    whole = ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "clip_adapter"]
    return subprocess.run([*whole, *words], capture_output=True, text=True, check=False)


needs_sh = pytest.mark.skipif(sys.platform == "win32", reason="needs a shell of POSIX")


@needs_sh
def test_closed_standard_output_is_as_a_full_one():
    done = closed(">&-", "ls", "templates", "--json")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Standard output cannot be written: Bad file descriptor.")
    assert done.stderr.count("\n") == 2


@needs_sh
@pytest.mark.parametrize(
    "streams",
    [
        "2>&-",
        pytest.param("<&- 2>&-", marks=pytest.mark.slow),
        pytest.param("2>/dev/full", marks=[full_disk, pytest.mark.slow]),
    ],
)
def test_lines_for_people_go_nowhere_where_standard_error_is_closed(streams):
    done = closed(streams, "fit", "no-such-folder", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["kind"] == "DataError"


@needs_sh
@pytest.mark.slow
def test_pictures_with_one_stream_closed(saved, photos, tmp_path):
    good, bad = Path(photos) / "test" / "red" / "00.png", tmp_path / "none.png"
    done = closed("2>&-", "predict", saved, good, bad, "--json")
    assert done.returncode == 0
    assert [*map(len, json.loads(done.stdout))] == [4, 3]
    done = closed(">&-", "predict", saved, good, "--out", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith(str(good))
    assert "No pictures were named" in closed("<&-", "predict", saved, "-").stderr


@pytest.mark.parametrize("end", ["none", "closed"])
def test_streams_that_a_program_took_away_are_there_again(end, monkeypatch):
    stream = None
    if end == "closed":
        stream = io.StringIO()
        stream.close()
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(sys, "argv", ["clip-adapter", "ls", "nothing"])
    monkeypatch.setattr("clip_adapter.cli.main._end_as_by_the_keyboard", lambda _: None)
    monkeypatch.setenv("GOMP_SPINCOUNT", "5000")
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert sys.stdin.readable()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["predict", "c", "x.jpg", "--out", ""], "--out"),
        (["predict", "c", "x.jpg", "--out="], "--out"),
        (["predict", "c", ""], "An argument"),
        (["fit", "x", "--hold-out", ""], "--hold-out"),
        (["scale", "embed", "in", "--out", ""], "--out"),
        (["bench", "run", "--out", ""], "--out"),
        (["embed", "x", "--out", "f.parquet", "--backbone", ""], "--backbone"),
    ],
)
def test_an_empty_word_is_refused(run, words, named):
    result = run(*words, "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"] == f"Invalid value: {named} is empty."


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["fit"], "Missing argument"),
        (["fit", "x", "--bogus"], "No such option"),
        (["predict", "c", "x.jpg", "--top", "0"], "Invalid value"),
        (["data", "get"], "Missing argument"),
        (["nothing"], "No such command"),
        (["--bogus"], "No such option"),
    ],
)
def test_wrong_words_are_json_too(run, words, error):
    result = run(*words, "--json")
    assert result.exit_code == 2
    printed = json.loads(result.stdout)
    assert printed.keys() == {"schema", "error", "allowed", "next", "kind"}
    assert error in printed["error"]
    assert printed["kind"] == "UsageError"
    assert error in result.stderr


def test_an_interrupted_predict_says_what_is_kept(run, saved, photos, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("clip_adapter.cli.predictions.of_pictures", interrupted)
    result = run("predict", saved, photos, "--json")
    assert result.exit_code == 130
    assert result.stderr == "Interrupted. Nothing is kept without --cache DIR.\n"
    printed = json.loads(result.stdout)
    assert (printed["schema"], printed["kind"]) == (1, "Interrupted")
    result = run("predict", saved, photos, "--cache", tmp_path)
    assert "Features made so far are kept" in result.stderr
    monkeypatch.setattr("clip_adapter.cli.ls.templates", interrupted)
    assert run("ls", "templates").stderr == "Interrupted.\n"


TOLD_TO_END = """
import os, signal, sys
import clip_adapter.cli.ls, clip_adapter.cli.main

def end():
    if not os.fork():  # what a copy of the process does, is not to be what it does
        os.kill(os.getpid(), number)
        os._exit(0)
    assert os.WTERMSIG(os.wait()[1]) == number
    os.kill(os.getpid(), number)

clip_adapter.cli.ls.templates = end
ignored, number = sys.argv.pop(), getattr(signal, sys.argv.pop())
if ignored:
    signal.signal(getattr(signal, ignored), signal.SIG_IGN)
clip_adapter.cli.main.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGTERM")
@pytest.mark.parametrize(
    ("told", "ignored", "code"),
    [
        ("SIGTERM", "", 143),
        ("SIGHUP", "", 129),
        pytest.param("SIGTERM", "SIGINT", 143, marks=pytest.mark.slow),
    ],
)
def test_told_to_end_it_ends_as_by_the_keyboard(told, ignored, code):
    done = subprocess.run(
        [sys.executable, "-c", TOLD_TO_END, "ls", "templates", "--json", told, ignored],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert done.stderr == "Interrupted.\n"
    assert json.loads(done.stdout)["kind"] == "Interrupted"


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGHUP")
@pytest.mark.slow
def test_nohup_is_heeded():
    code = """if 1:
    import os, signal, sys
    import clip_adapter.cli.main
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    clip_adapter.cli.ls.templates = lambda: os.kill(os.getpid(), signal.SIGHUP) or {"a": ["b"]}
    clip_adapter.cli.main.main()"""
    words = [sys.executable, "-c", code, "ls", "templates", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_strict_ends_where_a_picture_cannot_be_read(run, saved, photos, tmp_path):
    good = Path(photos) / "test" / "red" / "00.png"
    (tmp_path / "bad.png").write_text("no picture")
    for bad in (tmp_path / "bad.png", tmp_path / "none.png"):
        words = ["predict", saved, good, bad, "--out", tmp_path / "out.json"]
        assert run(*words).exit_code == 0
        (tmp_path / "out.json").unlink()
        result = run(*words, "--strict", "--json")
        assert result.exit_code == 1
        assert str(bad) in json.loads(result.stdout)["error"]
        assert not (tmp_path / "out.json").exists()
    assert run("predict", saved, good, "--strict").exit_code == 0


def test_class_names_do_nothing_to_a_terminal(run, tmp_path):
    names = ["\x1b]0;title\x07red\n\x9b2J", "blue\u202e"]
    head = Head(torch.eye(2, 4), bias=torch.zeros(2), kind="linear")
    folder = Classifier(head, names, train_digests=["a"]).save(tmp_path / "forged")
    file = tmp_path / "f.safetensors"
    rows = {"test.features": 3 * torch.eye(2, 4), "text": torch.eye(2, 4)}
    rows["test.labels"] = torch.arange(2)
    save_file(rows, file, metadata={"classes": json.dumps(names)})
    spec = f"{file}#test"
    shown = [
        run("predict", folder, spec, "--top", "2"),
        run("predict", folder, spec, "--format", "csv"),
        run("predict", folder, spec, "--json"),
        run("evaluate", folder, spec),
        run("evaluate", folder, spec, "--json"),
        run("fit", spec, "--method", "zero-shot", "--out", tmp_path / "made"),
    ]
    for result in shown:
        assert result.exit_code == 0, result.stderr
        text = (result.stdout + result.stderr).replace("\n", "")
        assert not [c for c in text if c in "\u202e" or ord(c) < 32 or 126 < ord(c) < 160]
    assert {one["label"] for one in json.loads(shown[2].stdout)} == set(names)
    assert set(json.loads(shown[4].stdout)["class_names"]) == set(names)
    labels = [row["label"] for row in csv.DictReader(io.StringIO(shown[1].stdout))]
    assert labels[0].startswith("\\u001b]0;title\\u0007red\\u000a\\u009b2J")
    assert "\x1b" not in (folder / "README.md").read_text("utf-8")
