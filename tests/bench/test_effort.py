"""What the real sets take, from the records alone."""

import pytest

from clip_adapter.bench.effort import ADAPTER, COOP, effort
from clip_adapter.bench.recipe import recipe_names


def test_table_6_is_counted_by_hand():
    found = effort(["table6"])
    assert found.runs == 2 * 6 * 3
    # Six ratios share their features: three draws of 16 shots in ten views, and each test set once.
    dtd, imagenet = 47 * 16 * 10 * 3 + 1_692, 1000 * 16 * 10 * 3 + 50_000
    assert found.pictures == {"RN50/openai": dtd + imagenet}
    on_dtd = ADAPTER * 47 / 1000 * 200 / 50  # 200 epochs where ImageNet has 50
    assert found.hours == pytest.approx(18 * (ADAPTER + on_dtd))
    assert found.by_hand == ["imagenet"]


def test_learnt_prompts_take_longer_by_the_classes():
    found = effort(["table8"])
    assert found.hours > 3 * 4 * COOP
    assert set(found.pictures) == {
        *("RN50/openai", "RN101/openai", "ViT-B-32/openai", "ViT-B-16/openai")
    }


def test_all_recipes_together_count_a_run_once():
    every = effort(recipe_names())
    assert every.runs < sum(effort([name]).runs for name in recipe_names())
    assert every.download > 50e9
    text = "\n".join(every.lines())
    for word in ("GB of archives", "imagenet", "Runs:", "A100"):
        assert word in text
