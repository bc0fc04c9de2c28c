"""Trainings that differ in ratio and seed: one pass gives what each gives alone."""

import pytest
import torch

from clip_adapter.errors import UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.fitting import fit_task, fit_tasks
from clip_adapter.methods import FewShotTask, clip_adapter, make_method

C, D, K, V = 3, 16, 4, 2


def a_task(seed, views=1, shots=K):
    draw = torch.Generator().manual_seed(100 + seed)
    labels = torch.arange(C).repeat(shots)
    rows = torch.randn(views, len(labels), D, generator=draw) + 2 * torch.eye(D)[labels]
    text = torch.randn(C, D, generator=torch.Generator().manual_seed(9))
    return FewShotTask(FeatureSet(rows, labels, list("abc")), text, 30.0, seed)


def jobs(options, views=1):
    """Two ratios by two seeds."""
    ratios = [{k: r if k.endswith("_ratio") else v for k, v in options.items()} for r in (0.2, 0.7)]
    methods = [make_method("clip-adapter", own) for own in ratios for _ in range(2)]
    tasks = [a_task(seed, views) for seed in (1, 2)]
    return methods, tasks * 2


OPTIONS = {
    "visual": {"visual_ratio": 0, "steps": 12},
    "text": {"branch": "text", "text_ratio": 0, "steps": 12},
    "both": {"branch": "both", "visual_ratio": 0, "text_ratio": 0, "steps": 12},
    "official": {"visual_ratio": 0, "recipe": "official", "epochs": 4, "batch_size": 5},
}


@pytest.mark.parametrize("views", [1, V])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_together_is_as_alone(options, views):
    methods, tasks = jobs(options, views)
    alone = [fit_task(m, t, {}) for m, t in zip(methods, tasks, strict=True)]
    together = fit_tasks(methods, tasks, {})
    inputs = a_task(5).train.plain_view
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(other.logits(inputs), one.logits(inputs), rtol=1e-4, atol=1e-4)
        assert other.info["hyperparameters"] == one.info["hyperparameters"]
        assert other.info["seed"] == one.info["seed"]
        assert other.parameters == one.parameters
    # The ratio and the seed both matter, or the test would show nothing.
    scores = [c.logits(inputs) for c in together]
    assert not torch.allclose(scores[0], scores[1], atol=1e-2)
    assert not torch.allclose(scores[0], scores[2], atol=1e-2)


@pytest.mark.parametrize("word", ["learnable", "hypernetwork"])
def test_learnt_ratios_go_together_over_seeds(word):
    methods = [make_method("clip-adapter", {"visual_ratio": word, "steps": 12})] * 2
    tasks = [a_task(1), a_task(2)]
    inputs = a_task(5).train.plain_view
    together = fit_tasks(methods, tasks, {})
    for method, task, other in zip(methods, tasks, together, strict=True):
        one = fit_task(method, task, {})
        torch.testing.assert_close(other.logits(inputs), one.logits(inputs), rtol=1e-4, atol=1e-4)


def test_large_steps_are_trained_one_by_one(monkeypatch):
    methods, tasks = jobs(OPTIONS["visual"])
    batched = fit_tasks(methods, tasks, {})
    monkeypatch.setattr(clip_adapter, "TOGETHER", 0)
    seen = []
    real = clip_adapter.CLIPAdapter.fit
    monkeypatch.setattr(
        clip_adapter.CLIPAdapter,
        "fit",
        lambda self, task: seen.append(task) or real(self, task),
    )
    single = fit_tasks(methods, tasks, {})
    assert seen == tasks
    inputs = a_task(5).train.plain_view
    for one, other in zip(single, batched, strict=True):
        torch.testing.assert_close(other.logits(inputs), one.logits(inputs), rtol=1e-4, atol=1e-4)


def test_what_differs_in_more_is_refused():
    tasks = [a_task(1), a_task(2)]
    for pair in (
        [{"visual_ratio": 0.2}, {"visual_ratio": 0.2, "reduction": 2}],
        [{"visual_ratio": 0.2}, {"visual_ratio": "learnable"}],
        [{}, {}],
        [{"visual_ratio": 0.0}, {"visual_ratio": 0.0}],
    ):
        with pytest.raises(UsageError, match="more than ratio and seed"):
            fit_tasks([make_method("clip-adapter", own) for own in pair], tasks, {})
    with pytest.raises(UsageError, match="more than ratio and seed"):
        fit_tasks(
            [make_method("clip-adapter", {"visual_ratio": 0.2})] * 2,
            [a_task(1), a_task(2, shots=K + 1)],
            {},
        )
    with pytest.raises(UsageError, match="more than ratio and seed"):
        fit_tasks([make_method("gda"), make_method("gda")], tasks, {})
