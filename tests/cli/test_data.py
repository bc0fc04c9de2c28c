"""``clip-adapter data``: tables, exit codes, and JSON that has everything."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from clip_adapter.cli.data import MOST_LINES
from clip_adapter.datasets.catalog import benchmark_names, get_benchmark


@pytest.fixture
def aircraft(tmp_path):
    """Sixty pictures in the layout of FGVC-Aircraft, which has 10,000."""
    folder = tmp_path / "fgvc_aircraft"
    (folder / "images").mkdir(parents=True)
    (folder / "variants.txt").write_text("A320\n747-400\n")
    for k, split in enumerate(("train", "val", "test")):
        names = [f"{i:03d}" for i in range(20 * k, 20 * k + 20)]
        lines = "".join(f"{n} {('A320', '747-400')[int(n) % 2]}\n" for n in names)
        (folder / f"images_variant_{split}.txt").write_text(lines)
        for name in names:
            Image.new("RGB", (4, 4), (int(name), 0, 0)).save(folder / f"images/{name}.jpg")
    return tmp_path


def test_ls(run, run_json):
    rows = run_json("data", "ls", "--json")
    assert [row["name"] for row in rows] == list(benchmark_names())
    eurosat = next(row for row in rows if row["name"] == "eurosat")
    assert (eurosat["classes"], eurosat["train"], eurosat["test"]) == (10, 13_500, 8100)
    shown = run("data", "ls").stdout
    for row in rows:
        assert row["name"] in shown
        assert get_benchmark(row["name"]).licence in shown
    assert "39.1 GB" in shown
    assert "by hand" in shown


def test_check_says_what_is_wrong_and_fails(run, aircraft):
    result = run("data", "check", "fgvc_aircraft", "--root", aircraft)
    assert result.exit_code == 1
    assert "60 of them decoded whole" in result.stdout
    assert "2 classes; FGVCAircraft has 100." in result.stdout
    assert "20 pictures in train; FGVCAircraft has 3,334." in result.stdout


def test_long_lists_are_cut_but_not_in_json(run, aircraft):
    for path in sorted((aircraft / "fgvc_aircraft/images").iterdir())[:30]:
        path.unlink()
    result = run("data", "check", "fgvc_aircraft", "--root", aircraft)
    assert "30 missing:" in result.stdout
    assert result.stdout.count("  images/") == MOST_LINES
    assert "and 10 more; --json has all of them." in result.stdout
    whole = json.loads(run("data", "check", "fgvc_aircraft", "--root", aircraft, "--json").stdout)
    assert len(whole["missing"]) == 30
    assert whole["ok"] is False


def test_check_of_a_whole_set_succeeds(run, run_json, aircraft, monkeypatch):
    import clip_adapter.datasets.download.check as module

    record = get_benchmark("fgvc_aircraft")
    sizes = {"train": 20, "val": 20, "test": 20}
    small = replace(record, classes=2, sizes=sizes)
    monkeypatch.setattr(module, "get_benchmark", lambda name: small)
    result = run("data", "check", "fgvc_aircraft", "--root", aircraft, "--fast")
    assert result.exit_code == 0
    assert "All is as it should be." in result.stdout
    assert run_json("data", "check", "fgvc_aircraft", "--root", aircraft, "--json")["ok"] is True


def test_what_is_not_there_is_an_error(run, tmp_path):
    result = run("data", "check", "eurosat", "--root", tmp_path)
    assert result.exit_code == 1
    assert "clip-adapter data get eurosat" in result.stderr
    assert run("data", "check", "eurosad", "--root", tmp_path).exit_code == 2
    assert run("data", "get", "eurosad", "--root", tmp_path).exit_code == 2


def test_get_says_what_is_left_to_do(run, run_json, tmp_path, monkeypatch):
    from clip_adapter.errors import DataError

    def unreachable(url, *_, **__):
        raise DataError(f"{url} cannot be downloaded: no network")

    monkeypatch.setattr("clip_adapter.datasets.download.get.download", unreachable)
    result = run("data", "get", "imagenet", "--root", tmp_path)
    assert result.exit_code == 0
    assert "Left to do by hand" in result.stdout
    assert "classnames.txt" in result.stdout
    assert "https://image-net.org" in result.stdout
    report = run_json("data", "get", "imagenet", "--root", tmp_path, "--json")
    assert report["complete"] is False
    assert len(report["to_do"]) == 3
    failed = run("data", "get", "dtd", "--root", tmp_path)
    assert failed.exit_code == 1
    assert "cannot be downloaded" in failed.stderr


def test_fit_reads_a_set_by_its_name(run, aircraft, tiny):
    result = run(
        "embed", "fgvc_aircraft", "--root", aircraft, "--backbone", tiny,
        "--out", aircraft / "features.safetensors",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "features.safetensors#train: 20 pictures" in result.stdout
    fitted = run(
        "fit", "fgvc_aircraft", "--root", aircraft, "--backbone", tiny, "--method", "zero-shot",
        "--out", aircraft / "made",
    )  # fmt: skip
    assert fitted.exit_code == 0, fitted.stderr
    assert f"evaluate {aircraft / 'made'} fgvc_aircraft --root {aircraft}" in fitted.stdout
    missing = run("fit", "ucf101")
    assert missing.exit_code == 2
    assert "--root DIR" in missing.stderr
