"""The field's own findings on the demo task, from the shipped CLIP: three draws, bounds with slack.

Nothing here is tuned: draws are CoOp's seeds 1 to 3, and the methods are at their defaults.
"""

from statistics import mean

import pytest

from clip_adapter import evaluate, load_backbone, make_method
from clip_adapter.api import fit_task
from clip_adapter.data.demo_task import DEMO_TEMPLATES, demo_task
from clip_adapter.data.splits import sample_few_shot
from clip_adapter.evaluation import held_out_features
from clip_adapter.methods import FewShotTask
from clip_adapter.options import SourceOptions
from clip_adapter.sources import PictureSource

SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def score(tmp_path_factory):
    """score(method, shots, **options): mean accuracy of three draws on the test pictures."""
    root = tmp_path_factory.mktemp("demo")
    options = SourceOptions(prompts=DEMO_TEMPLATES, cache=root / "cache")
    source = PictureSource(str(demo_task(root)), options)
    source.use(load_backbone("demo"))
    train, _ = source.features("train")
    test, text = held_out_features(source), source.text_weights()
    known = {}

    def run(method, shots, **chosen):
        key = (method, shots, *sorted(chosen.items()))
        if key not in known:
            runs = []
            for seed in SEEDS:
                draw = sample_few_shot(train.labels.tolist(), shots=shots, seed=seed).train
                task = FewShotTask(train.subset(draw), text, source.logit_scale, seed)
                classifier = fit_task(make_method(method, chosen), task, source.facts())
                runs.append(evaluate(classifier, test).top1)
            known[key] = mean(runs)
        return known[key]

    return run


def test_zero_shot_knows_something_and_not_everything(score):
    assert 40 <= score("zero-shot", 1) <= 75


def test_a_one_shot_probe_is_below_zero_shot_and_the_adapter_is_not(score):
    assert score("linear-probe", 1) < score("zero-shot", 1)
    assert score("clip-adapter", 1) >= score("zero-shot", 1)


def test_sixteen_shots_gain_ten_points_over_zero_shot_and_the_one_shot_probe(score):
    adapter = score("clip-adapter", 16)
    assert adapter >= score("zero-shot", 16) + 10
    assert adapter >= score("linear-probe", 1) + 10
    assert adapter > score("linear-probe", 16)


def test_the_best_ratio_is_inside(score):
    curve = {r: score("clip-adapter", 16, visual_ratio=r) for r in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)}
    best = max(curve, key=curve.get)
    assert 0 < best < 1
    assert curve[best] > curve[1.0] + 2  # the residual matters
    assert curve[0.0] == score("zero-shot", 16)


def test_both_branches_are_not_above_the_visual_one_by_a_margin(score):
    assert score("clip-adapter", 16, branch="both") <= score("clip-adapter", 16) + 2
