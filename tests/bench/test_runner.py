"""Runs become results: once, whatever fails or dies on the way."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from clip_adapter.bench import runner
from clip_adapter.bench.child import Child
from clip_adapter.bench.page import write_page
from clip_adapter.bench.plans import load_plans
from clip_adapter.bench.recipe import load_recipe
from clip_adapter.bench.results import Results
from clip_adapter.bench.runner import make_plans, run_bench
from clip_adapter.bench.runs import Run, Unopened, plan
from clip_adapter.bench.worker import RESULTS
from clip_adapter.errors import DataError, UsageError

ALL = 2 * (1 + 2 + 2 + 2)  # two files; one run of zero-shot, two seeds of each other


def results_of(place):
    return sorted(p for p in Path(place.out, RESULTS).rglob("*.json") if "failed" not in p.name)


def numbers(place):
    """{run: what must be the same however it was made}."""
    kept = ("top1", "zero_shot_top1", "mean_per_class", "chosen", "hyperparameters", "n")
    found = [json.loads(path.read_bytes()) for path in results_of(place)]
    return {f["key"]: {k: f[k] for k in kept} for f in found}


def call(recipe, place, jobs=1, **options):
    return run_bench([recipe], profile="features", place=place, jobs=jobs, **options)


def test_every_run_is_done_once(recipe, place, inside):
    told = []
    first = call(recipe(), place, jobs=2, progress=lambda *count: told.append(count))
    assert (first.done, first.present, first.failed, first.missing) == (ALL, 0, {}, {})
    assert told[-1] == (ALL, ALL)
    before = {path: path.stat().st_mtime_ns for path in results_of(place)}
    assert len(before) == ALL
    second = call(recipe(), place)
    assert (second.done, second.present) == (0, ALL)
    assert {path: path.stat().st_mtime_ns for path in results_of(place)} == before
    one = json.loads(next(path for path in before if "0.6" in path.name).read_bytes())
    assert one["run"]["options"] == {"visual_ratio": 0.6, "steps": 6}
    assert one["options"]["visual_ratio"] == 0.6
    assert one["options"]["reduction"] == 4  # what was not said is told resolved
    assert one["trained_parameters"] == 2 * 16 * 4
    assert one["hardware"]["cores"] >= 1
    assert one["peak_memory_mib"] > 50
    assert set(one["versions"]) >= {"python", "torch"}


def test_one_job_or_two_give_the_same_and_so_does_again(recipe, done_place):
    two = numbers(done_place)  # made by two
    assert len({json.dumps(v) for v in two.values()}) > 4
    before = {path: path.stat().st_mtime_ns for path in results_of(done_place)}
    assert call(recipe(), done_place, again=True).done == ALL
    assert numbers(done_place) == two
    assert all(path.stat().st_mtime_ns > time for path, time in before.items())


def test_a_run_that_fails_is_told_and_the_others_go_on(recipe, place, inside):
    # The rate is beyond any use: its two seeds on each of two files diverge, alone or together.
    changed = recipe(("visual_ratio = 0.6, steps = 6", "visual_ratio = 0.6, steps = 6, lr = 1e30"))
    said = []
    found = call(changed, place, say=said.append)
    assert (found.done, len(found.failed)) == (ALL - 4, 4)
    assert all("lr=1e+30" in title for title in found.failed)
    assert all("NaN or infinite" in reason for reason in found.failed.values())
    assert sum(line.startswith("Failed:") for line in said) == 2
    failures = list(Path(place.out).rglob("*.failed.json"))
    assert len(failures) == 4
    plan = found.plans[0]
    run = next(r for r in plan.runs if "lr" in r.options)
    assert "NaN" in found.results.failure(run)
    again = call(changed, place)
    assert (again.done, again.present, len(again.failed)) == (0, ALL - 4, 4)


def test_a_failure_is_forgotten_when_the_run_succeeds(recipe, done_place, inside):
    place = done_place
    plan = make_plans([recipe()], "features", place)[0]
    results = Results(Path(place.out) / RESULTS, print)
    results.path(plan.runs[0]).unlink()
    results.fail(plan.runs[0], "once", "")
    assert results.failure(plan.runs[0]) == "once"
    found = call(recipe(), place)
    assert found.results.failure(plan.runs[0]) is None
    assert list(Path(place.out).rglob("*.failed.json")) == []


def test_damaged_results_are_kept_aside_and_made_again(recipe, done_place, inside):
    paths = [p for p in results_of(done_place) if "linear-probe" in p.name]
    paths += [p for p in results_of(done_place) if "zero-shot" in p.name]
    damages = [b"", b"{", b"[]", b'{"format": 1}', b"\xff\xfe", paths[0].read_bytes()]
    whole = numbers(done_place)
    for path, damage in zip(paths, damages, strict=True):
        path.write_bytes(damage)
    said = []
    found = call(recipe(), done_place, say=said.append)
    # The last one was a whole result, of another run.
    assert (found.done, found.present) == (6, ALL - 6)
    for path, damage in zip(paths, damages, strict=True):
        assert path.with_name(path.name + ".damaged").read_bytes() == damage
        assert any(str(path) in line for line in said)
    assert sum("done again" in line for line in said) == 6
    assert numbers(done_place) == whole


def test_a_data_set_that_is_not_there_is_told(recipe, done_place):
    changed = recipe(('["toys", "others"]', '["toys", "nowhere"]'))
    found = call(changed, done_place)
    assert found.present == ALL / 2
    assert "nowhere.safetensors" in found.missing["nowhere"]
    assert "others, toys" in found.missing["nowhere"]


def test_shots_that_a_file_does_not_have_are_left_out(recipe, place):
    made = make_plans([recipe(("shots = [2]", "shots = [2, 3]"))], "features", place)[0]
    assert len(made.runs) == ALL
    assert made.left_out == ["toys: no 3 shots", "others: no 3 shots"]


def test_prompts_say_nothing_to_a_file_with_text(recipe, place):
    changed = recipe(('method = "zero-shot"', 'method = "zero-shot"\nprompts = ["a {}."]'))
    made = make_plans([changed], "features", place)[0]
    assert len(made.runs) == ALL - 2
    told = "zero-shot left out, its text weights are given, so other prompts would change nothing"
    assert made.left_out == [f"toys: {told}", f"others: {told}"]


def test_a_folder_without_features_is_told(recipe, place, tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path, Path(recipe())):
        wrong = dataclasses.replace(place, features=str(folder))
        with pytest.raises(DataError, match=r"no folder with \.safetensors files"):
            call(recipe(), wrong)


def test_what_would_change_nothing_on_features_is_refused(recipe, place):
    with pytest.raises(UsageError, match="--backbone with ready-made features"):
        call(recipe(), place, overrides={"backbones": ["RN50/openai"]})
    for field, value in (("dtype", "float16"), ("root", "data")):
        with pytest.raises(UsageError, match=f"--{field} with ready-made features"):
            call(recipe(), dataclasses.replace(place, **{field: value}))


def test_the_dtype_of_a_backbone_makes_another_run():
    made = load_recipe("table6", "demo")
    usual, half = plan(made, Unopened), plan(made, Unopened, "float16")
    assert len(usual.runs) == len(half.runs)
    assert not {r.key for r in usual.runs} & {r.key for r in half.runs}
    assert "dtype" not in usual.runs[0].to_dict()
    assert Run.from_dict(half.runs[0].to_dict()) == half.runs[0]


def test_the_weights_of_a_file_make_another_run(tmp_path):
    file = tmp_path / "w.safetensors"
    named = f"RN50/{file}"
    keys = []
    for content in (b"one", b"other", b"one"):
        file.write_bytes(content)
        run = plan(load_recipe("table6", "demo", {"backbones": [named]}), Unopened).runs[0]
        assert Run.from_dict(run.to_dict()) == run
        keys.append(run.key)
    assert keys[0] == keys[2] != keys[1]
    usual = plan(load_recipe("table6", "demo"), Unopened).runs[0]
    assert "weights" not in usual.to_dict()


def test_two_recipes_of_one_name_are_refused(recipe, place, tmp_path):
    first = Path(recipe())
    second = tmp_path / "more" / first.name.upper().replace(".TOML", ".toml")
    second.parent.mkdir()
    second.write_bytes(first.read_bytes())
    with pytest.raises(UsageError, match="both called 'toys'"):
        run_bench([str(first), str(second)], profile="features", place=place)
    assert not (Path(place.out) / "plans").exists()


def test_a_file_in_the_place_of_the_folder_is_told(recipe, place, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="is no folder"):
        call(recipe(), place)


def test_failures_that_differ_in_prompts_alone_are_two():
    made = plan(load_recipe("table7", "demo"), Unopened)
    assert len({run.title for run in made.runs}) == len(made.runs)
    every = plan(load_recipe("table8", "paper"), Unopened)
    assert len({run.title for run in every.runs}) == len(every.runs)


def test_two_at_once_in_one_folder_is_refused(recipe, place):
    with runner._alone(Path(place.out)), pytest.raises(UsageError, match="Another benchmark"):
        call(recipe(), place)


def test_features_need_their_profile(recipe, place):
    with pytest.raises(UsageError, match="with a folder of features"):
        run_bench([recipe()], profile="demo", place=place)


def test_a_process_that_dies_costs_its_run_alone(recipe, done_place, monkeypatch, request):
    place, died = done_place, []
    for path in results_of(place)[:-1]:
        path.unlink()

    class Dying(Child):
        def do(self, unit, say):
            if unit[0].method == "linear-probe" and not died:
                died.append(unit)
                self._process.kill()
                self._process.wait()
            return super().do(unit, say)

    monkeypatch.setattr(runner, "Child", Dying)
    found = call(recipe(), place, jobs=1)
    assert len(found.failed) == 1
    assert "signal 9" in next(iter(found.failed.values()))
    assert (found.done, found.present) == (ALL - 2, 1)
    request.getfixturevalue("inside")
    assert call(recipe(), place).done == 1


def gone(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_a_worker_does_not_outlive_who_started_it(tmp_path):
    code = f"""
        import time
        from clip_adapter.bench.child import Child
        from clip_adapter.bench.data import Place
        child = Child(Place(out={str(tmp_path)!r}))
        print(child._process.pid, flush=True)
        time.sleep(60)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
    until = time.monotonic() + 20
    while not gone(pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert gone(pid)


QUOTA = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from clip_adapter.cli.main import main
sys.argv[:2] = ["clip-adapter"]
main()
"""


def bench(place, recipe, *, quota=None):
    words = ["bench", "run", recipe, "--features", place.features, "--out", place.out, "--json"]
    if quota is None:
        start = [sys.executable, "-m", "clip_adapter"]
    else:
        start = [sys.executable, "-c", QUOTA, str(quota)]
    return subprocess.run([*start, *words], capture_output=True, text=True, timeout=120)


def test_a_full_disk_stops_with_a_message_and_loses_nothing(recipe, done_place, inside):
    for path in results_of(done_place)[::2]:
        path.unlink()
    before = {path: path.read_bytes() for path in results_of(done_place)}
    # A file of more than so many bytes cannot be written, as on a full disk: no result fits.
    done = bench(done_place, recipe(), quota=500)
    assert done.returncode == 1, done.stderr
    assert "The benchmark stopped" in done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert "same command goes on" in json.loads(done.stdout)["next"]
    assert {path: path.read_bytes() for path in results_of(done_place)} == before
    assert list(Path(done_place.out).rglob("*.tmp")) == []
    assert not call(recipe(), done_place).failed
    assert len(results_of(done_place)) == ALL


def killed(place, recipe, when):
    """Starts the command, and kills it after ``when(process)``."""
    words = [sys.executable, "-m", "clip_adapter", "bench", "run", recipe]
    words += ["--features", place.features, "--out", place.out]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    when(process)
    with contextlib.suppress(OSError):
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_and_resumed_gives_the_same_tables(recipe, done_place, tmp_path, inside):
    def after_three_results(process):
        while process.poll() is None and len(results_of(place)) < 3:
            time.sleep(0.01)

    place = dataclasses.replace(done_place, out=str(tmp_path / "killed"))
    killed(place, recipe(), after_three_results)
    there = len(results_of(place))
    assert 3 <= there < ALL
    found = call(recipe(), place)
    # A worker may end its run and write it in the moment after the command is gone.
    assert there <= found.present < ALL
    assert found.done + found.present == ALL
    assert numbers(place) == numbers(done_place)
    pages = []
    for out in (Path(place.out), Path(done_place.out)):
        write_page(load_plans(out), Results(out / RESULTS, print), out)
        pages.append((out / "TABLES.md").read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.slow
def test_killed_at_ten_moments_and_resumed_gives_the_same_tables(recipe, place, tmp_path):
    start = time.monotonic()
    calm = dataclasses.replace(place, out=str(tmp_path / "calm"))
    assert bench(calm, recipe()).returncode == 0
    taken = time.monotonic() - start
    for number in range(10):
        killed(place, recipe(), lambda _, part=(number + 1) / 11: time.sleep(taken * part))
    assert bench(place, recipe()).returncode == 0
    assert Path(place.out, "TABLES.md").read_bytes() == Path(calm.out, "TABLES.md").read_bytes()
    assert numbers(place) == numbers(calm)
