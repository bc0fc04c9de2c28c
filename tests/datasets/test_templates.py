"""Prompt templates: the paper's, by name, or the user's own."""

import pytest

from clip_adapter.datasets.catalog import RECORDS
from clip_adapter.datasets.templates import TEMPLATES, fill, known_dataset, resolve_templates
from clip_adapter.errors import UsageError


def test_the_sets_of_the_paper_are_there():
    trained = {name for name, record in RECORDS.items() if record.sizes["train"]}
    assert set(TEMPLATES) == trained | {"imagenet-ensemble"}
    assert TEMPLATES["dtd"] == ("{} texture.",)
    assert len(TEMPLATES["imagenet-ensemble"]) == 7
    assert all(t.count("{}") == 1 for templates in TEMPLATES.values() for t in templates)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("EuroSAT", "eurosat"),
        ("euro_sat", "eurosat"),
        ("split_zhou_DescribableTextures", "dtd"),
        ("split_zhou_OxfordPets", "oxford_pets"),
        ("FGVCAircraft", "fgvc_aircraft"),
        ("oxford-flowers102", "oxford_flowers"),
        ("ImageNet-1k", "imagenet"),
        ("my_eurosat_copy", None),
        ("", None),
    ],
)
def test_known_names(name, key):
    assert known_dataset(name) == key


def test_the_data_set_picks_when_nothing_is_asked():
    assert resolve_templates(None, "dtd") == ["{} texture."]
    assert resolve_templates([], "anything") == ["a photo of a {}."]
    assert resolve_templates(None) == ["a photo of a {}."]


def test_prompts_are_templates_or_names():
    mine = ["a scan of {}.", "imagenet-ensemble", "a scan of {}."]
    assert resolve_templates(mine, "dtd") == ["a scan of {}.", *TEMPLATES["imagenet-ensemble"]]
    assert resolve_templates(["{}"]) == ["{}"]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a photo", "has 0 places"),
        ("{} or {}", "has 2 places"),
        ("a {c}", "has 0 places"),
        ("", "Unknown prompt template ''"),
        ("eurosatt", "Did you mean 'eurosat'"),
    ],
)
def test_other_prompts_are_refused(prompt, message):
    with pytest.raises(UsageError, match=message):
        resolve_templates([prompt])


def test_braces_in_names_and_templates_stay():
    assert fill("a {x} of {}.", "{} {0}") == "a {x} of {} {0}."
