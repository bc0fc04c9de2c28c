"""Runs become results: once, whatever fails or dies on the way."""

import contextlib
import dataclasses
import json
import multiprocessing
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clip_adapter.bench import benchmark
from clip_adapter.bench.benchmark import do_units, run_bench
from clip_adapter.bench.data import Named
from clip_adapter.bench.page import write_page
from clip_adapter.bench.plan import load_plans, make_plan, make_plans
from clip_adapter.bench.recipe import load_recipe
from clip_adapter.bench.results import FOLDER, Results
from clip_adapter.errors import DataError, UsageError

ALL = 2 * (1 + 2 + 2 + 2)  # two files; one run of zero-shot, two seeds of each other


def results_of(environment):
    return sorted(
        p for p in Path(environment.out, FOLDER).rglob("*.json") if "failed" not in p.name
    )


def numbers(environment):
    """{run: what must be the same however it was made}."""
    kept = ("top1", "zero_shot_top1", "mean_per_class", "chosen", "hyperparameters", "n")
    records = [json.loads(path.read_bytes()) for path in results_of(environment)]
    return {f["key"]: {k: f[k] for k in kept} for f in records}


def call(recipe, environment, jobs=1, **options):
    return run_bench([recipe], profile="features", environment=environment, jobs=jobs, **options)


def test_every_run_is_done_once(recipe, environment, inside):
    stages = []
    first = call(
        recipe(),
        environment,
        jobs=2,
        progress=lambda stage: stages.append((stage.done, stage.total)),
    )
    assert (first.done, first.present, first.failed, first.missing) == (ALL, 0, {}, {})
    assert stages[-1] == (ALL, ALL)
    before = {path: path.stat().st_mtime_ns for path in results_of(environment)}
    assert len(before) == ALL
    second = call(recipe(), environment)
    assert (second.done, second.present) == (0, ALL)
    assert {path: path.stat().st_mtime_ns for path in results_of(environment)} == before
    one = json.loads(next(path for path in before if "0.6" in path.name).read_bytes())
    assert one["run"]["options"] == {"visual_ratio": 0.6, "steps": 6}
    assert one["options"]["visual_ratio"] == 0.6
    assert one["options"]["reduction"] == 4  # what was not said is told resolved
    assert one["trained_parameters"] == 2 * 16 * 4
    assert one["hardware"]["cores"] >= 1
    assert one["peak_memory_mib"] > 50
    assert set(one["versions"]) >= {"python", "torch"}


@pytest.mark.slow
def test_two_jobs_give_the_same_as_none_and_so_does_again(recipe, done):
    here = numbers(done)  # made in this process
    assert len({json.dumps(v) for v in here.values()}) > 4
    before = {path: path.stat().st_mtime_ns for path in results_of(done)}
    assert call(recipe(), done, again=True, jobs=2).done == ALL
    assert numbers(done) == here
    assert all(path.stat().st_mtime_ns > time for path, time in before.items())


def test_a_run_that_fails_is_told_and_the_others_go_on(recipe, environment, inside, caplog):
    caplog.set_level("INFO", "clip_adapter")
    # The rate is beyond any use: its two seeds on each of two files diverge, alone or together.
    changed = recipe(("visual_ratio = 0.6, steps = 6", "visual_ratio = 0.6, steps = 6, lr = 1e30"))
    outcome = call(changed, environment)
    assert (outcome.done, len(outcome.failed)) == (ALL - 4, 4)
    assert all("lr=1e+30" in title for title in outcome.failed)
    assert all("NaN or infinite" in reason for reason in outcome.failed.values())
    assert sum(line.startswith("Failed:") for line in caplog.messages) == 1
    failures = list(Path(environment.out).rglob("*.failed.json"))
    assert len(failures) == 4
    run = next(r for r in outcome.plans[0].runs().values() if "lr" in r.options)
    assert "NaN" in outcome.results.failure(run)
    again = call(changed, environment)
    assert (again.done, again.present, len(again.failed)) == (0, ALL - 4, 4)


def test_a_failure_is_forgotten_when_the_run_succeeds(recipe, done, inside):
    environment = done
    run = next(iter(make_plans([recipe()], "features", environment)[0].runs().values()))
    results = Results(Path(environment.out) / FOLDER)
    results.path(run).unlink()
    results.fail(run, "once", "")
    assert results.failure(run) == "once"
    outcome = call(recipe(), environment)
    assert outcome.results.failure(run) is None
    assert list(Path(environment.out).rglob("*.failed.json")) == []


def test_damaged_results_are_kept_aside_and_made_again(recipe, done, inside, caplog):
    caplog.set_level("INFO", "clip_adapter")
    paths = [p for p in results_of(done) if "linear-probe" in p.name]
    paths += [p for p in results_of(done) if "zero-shot" in p.name]
    damages = [b"", b"{", b"[]", b'{"format": 1}', b"\xff\xfe", paths[0].read_bytes()]
    whole = numbers(done)
    for path, damage in zip(paths, damages, strict=True):
        path.write_bytes(damage)
    outcome = call(recipe(), done)
    # The last one was a whole result, of another run.
    assert (outcome.done, outcome.present) == (6, ALL - 6)
    for path, damage in zip(paths, damages, strict=True):
        assert path.with_name(path.name + ".damaged").read_bytes() == damage
        assert any(str(path) in line for line in caplog.messages)
    assert sum("done again" in line for line in caplog.messages) == 6
    assert numbers(done) == whole


def test_a_data_set_that_is_not_there_is_told(recipe, done):
    changed = recipe(('["toys", "others"]', '["toys", "nowhere"]'))
    outcome = call(changed, done)
    assert outcome.present == ALL / 2
    assert "no file of features 'nowhere'" in outcome.missing["nowhere"]
    assert "others, toys" in outcome.missing["nowhere"]


def test_shots_that_a_file_does_not_have_are_left_out(recipe, environment):
    plan = make_plans([recipe(("shots = [2]", "shots = [2, 3]"))], "features", environment)[0]
    assert len(plan.runs()) == ALL
    assert list(map(str, plan.left_out)) == ["toys: no 3 shots", "others: no 3 shots"]


def test_prompts_say_nothing_to_a_file_with_text(recipe, environment):
    changed = recipe(('method = "zero-shot"', 'method = "zero-shot"\nprompts = ["a {}."]'))
    plan = make_plans([changed], "features", environment)[0]
    assert len(plan.runs()) == ALL - 2
    reason = "zero-shot left out, its text weights are given, so other prompts would change nothing"
    assert list(map(str, plan.left_out)) == [f"toys: {reason}", f"others: {reason}"]


def test_a_folder_without_features_is_told(recipe, environment, tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path, Path(recipe())):
        wrong = dataclasses.replace(environment, features=str(folder))
        with pytest.raises(DataError, match="no folder with files of features"):
            call(recipe(), wrong)


def test_what_would_change_nothing_on_features_is_refused(recipe, environment):
    with pytest.raises(UsageError, match="--backbone with ready-made features"):
        call(recipe(), environment, overrides={"backbones": ["RN50/openai"]})
    for field, value in (("dtype", "float16"), ("root", "data")):
        with pytest.raises(UsageError, match=f"--{field} with ready-made features"):
            call(recipe(), dataclasses.replace(environment, **{field: value}))


def runs_of(name, profile="demo", dtype="float32", **overrides):
    return list(make_plan(load_recipe(name, profile, overrides), Named, dtype).runs().values())


def test_the_dtype_of_a_backbone_makes_another_run():
    usual, half = runs_of("table6"), runs_of("table6", dtype="float16")
    assert len(usual) == len(half)
    assert not {r.key for r in usual} & {r.key for r in half}
    assert "dtype" not in usual[0].to_dict()


def test_the_weights_of_a_file_make_another_run(tmp_path):
    keys = []
    for content in (b"one", b"other", b"one"):
        (tmp_path / "w.safetensors").write_bytes(content)
        run = runs_of("table6", backbones=[f"RN50/{tmp_path / 'w.safetensors'}"])[0]
        keys.append(run.key)
    assert keys[0] == keys[2] != keys[1]
    assert "weights" not in runs_of("table6")[0].to_dict()


def test_two_recipes_of_one_name_are_refused(recipe, environment, tmp_path):
    first = Path(recipe())
    second = tmp_path / "more" / first.name.upper().replace(".TOML", ".toml")
    second.parent.mkdir()
    second.write_bytes(first.read_bytes())
    with pytest.raises(UsageError, match="both called 'toys'"):
        run_bench([str(first), str(second)], profile="features", environment=environment)
    assert not (Path(environment.out) / "plans").exists()


def test_a_file_in_the_place_of_the_folder_is_told(recipe, environment, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="is no folder"):
        call(recipe(), environment)


def test_failures_that_differ_in_prompts_alone_are_two():
    for runs in (runs_of("table7"), runs_of("table8", "paper")):
        assert len({run.title for run in runs}) == len(runs)


def test_two_at_once_in_one_folder_is_refused(recipe, environment):
    with (
        benchmark.alone(Path(environment.out)),
        pytest.raises(UsageError, match="Another benchmark"),
    ):
        call(recipe(), environment)


def test_features_need_their_profile(recipe, environment):
    with pytest.raises(UsageError, match="with a folder of features"):
        run_bench([recipe()], profile="demo", environment=environment)


@pytest.mark.slow
def test_a_process_that_dies_costs_its_unit_alone(recipe, environment):
    Path(environment.out).mkdir()
    slow = recipe(("steps = 6 }", "steps = 9_999_999 }"))
    [plan] = make_plans([slow], "features", environment)
    quick, endless = ([r for r in plan.runs().values() if r.method == m] for m in METHODS)
    ends = []
    for unit, done in do_units([quick[:1], endless[:1], quick[1:]], environment, jobs=1):
        ends.append((unit, done.error))
        if len(ends) == 1:
            time.sleep(0.5)  # the process has begun with the next one
            [process] = multiprocessing.active_children()
            process.kill()
    assert [unit for unit, _ in ends] == [quick[:1], endless[:1], quick[1:]]
    assert [error for _, error in ends] == ["", DIED, ""]


METHODS = ("zero-shot", "clip-adapter")
DIED = "The process ended by signal 9, maybe for want of memory."


def bench(environment, recipe):
    """The command as a process."""
    words = ["bench", "run", recipe, "--features", environment.features, "--out", environment.out]
    return subprocess.Popen(
        [sys.executable, "-m", "clip_adapter", *words, "--jobs", "1", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def quota(size):
    """A file of more than so many bytes cannot be written, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_stops_with_a_message_and_loses_nothing(recipe, done, inside):
    for path in results_of(done)[::2]:
        path.unlink()
    before = {path: path.read_bytes() for path in results_of(done)}
    with pytest.raises(DataError, match="The benchmark stopped") as error, quota(1000):
        call(recipe(), done)
    assert "cannot be written" in str(error.value)
    assert "same command goes on" in str(error.value)
    assert {path: path.read_bytes() for path in results_of(done)} == before
    assert list(Path(done.out).rglob("*.tmp")) == []
    assert not call(recipe(), done).failed
    assert len(results_of(done)) == ALL


def gone(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_killed_and_resumed_gives_the_same_tables(recipe, done, tmp_path, inside):
    environment = dataclasses.replace(done, out=str(tmp_path / "killed"))
    with bench(environment, recipe()) as process:
        while process.poll() is None and len(results_of(environment)) < 3:
            time.sleep(0.01)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers = workers.read_text().split() if workers.exists() else []
        process.kill()
    until = time.monotonic() + 20
    while not all(map(gone, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert all(map(gone, workers)), "a worker outlives who started it"
    there = len(results_of(environment))
    assert 3 <= there < ALL
    outcome = call(recipe(), environment)
    assert outcome.present <= there  # of a unit that was half there, all runs are made again
    assert outcome.done + outcome.present == ALL
    assert numbers(environment) == numbers(done)
    pages = []
    for out in (Path(environment.out), Path(done.out)):
        write_page(load_plans(out), Results(out / FOLDER), out)
        pages.append((out / "TABLES.md").read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.slow
def test_killed_at_ten_moments_and_resumed_gives_the_same_tables(recipe, environment, tmp_path):
    start = time.monotonic()
    calm = dataclasses.replace(environment, out=str(tmp_path / "calm"))
    with bench(calm, recipe()) as process:
        process.communicate()
    taken = time.monotonic() - start
    for number in range(10):
        with bench(environment, recipe()) as process:
            time.sleep(taken * (number + 1) / 11)
            process.kill()
    with bench(environment, recipe()) as process:
        process.communicate()
    assert process.returncode == 0
    assert (
        Path(environment.out, "TABLES.md").read_bytes() == Path(calm.out, "TABLES.md").read_bytes()
    )
    assert numbers(environment) == numbers(calm)
