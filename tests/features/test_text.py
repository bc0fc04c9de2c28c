import pytest
import torch

from clip_adapter.errors import UsageError
from clip_adapter.features.store import FeatureStore
from clip_adapter.features.text import alike_note, text_weights
from clip_adapter.nn.cosine import normalize

NAMES = ["cat", "dog"]


class Counting:
    def __init__(self, inner):
        self._inner, self.texts = inner, []

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def encode_text(self, texts):
        self.texts += texts
        return self._inner.encode_text(texts)


def test_one_template_is_the_plain_text_feature(tiny):
    weights = text_weights(tiny, NAMES, ["a photo of a {}."])
    raw = tiny.encode_text(["a photo of a cat.", "a photo of a dog."])
    torch.testing.assert_close(weights, normalize(raw), rtol=1e-6, atol=1e-7)


def test_an_ensemble_averages_unit_features(tiny):
    weights = text_weights(tiny, NAMES, ["a {}", "many {} here"])
    raw = tiny.encode_text(["a dog", "many dog here"])
    expected = normalize((raw[0] / raw[0].norm() + raw[1] / raw[1].norm()) / 2)
    torch.testing.assert_close(weights[1], expected)


def test_descriptions_count_each_as_much_as_a_template(tiny):
    described = [["It purrs."], ["It barks.", "It wags.", "It digs."]]
    weights = text_weights(tiny, NAMES, ["a {}"], descriptions=described)
    raw = tiny.encode_text(["a dog", *described[1]])
    torch.testing.assert_close(weights[1], normalize(normalize(raw).sum(0)))
    alone = text_weights(tiny, NAMES, [], descriptions=described)
    torch.testing.assert_close(alone[0], normalize(tiny.encode_text(["It purrs."]))[0])


def test_descriptions_are_kept_too_and_encoded_once(tiny, tmp_path):
    counting = Counting(tiny)
    described = [["It runs.", "It purrs."], ["It runs."]]
    for _ in range(2):
        text_weights(counting, NAMES, [], descriptions=described, store=FeatureStore(tmp_path))
    assert counting.texts == ["It runs.", "It purrs."]


def test_names_with_braces_and_percent_signs(tiny):
    weights = text_weights(tiny, ["{0} 100%", "dog"], ["a {}"])
    torch.testing.assert_close(weights[0], normalize(tiny.encode_text(["a {0} 100%"]))[0])


def test_the_store_keeps_texts(tiny, tmp_path):
    counting = Counting(tiny)
    first = text_weights(counting, NAMES, ["a {}"], store=FeatureStore(tmp_path))
    again = text_weights(counting, ["eel", *NAMES], ["a {}"], store=FeatureStore(tmp_path))
    assert counting.texts == ["a cat", "a dog", "a eel"]
    torch.testing.assert_close(again[1:], first)


@pytest.mark.parametrize("keep", [True, False])
def test_a_name_that_is_too_long_is_said(tiny, tmp_path, lines, keep):
    store = FeatureStore(tmp_path) if keep else None
    fits = " ".join(["cat"] * 14)  # with start and end exactly the 16 tokens of this text tower
    names = ["cat", "x" * 300, fits, fits + " cat"]
    weights = text_weights(tiny, names, ["{}"], store=store)
    assert weights.shape == (4, 16)
    (line,) = lines.messages
    assert "16 tokens" in line
    assert line.count("...") == 2


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "a {name}"])
def test_a_template_needs_one_place(tiny, template):
    with pytest.raises(UsageError, match="template"):
        text_weights(tiny, NAMES, [template])


def test_nothing_to_encode(tiny):
    with pytest.raises(UsageError):
        text_weights(tiny, [], ["a {}"])
    with pytest.raises(UsageError):
        text_weights(tiny, NAMES, [])


SPELLINGS = ["red circle", "Red Circle", "red\N{NO-BREAK SPACE}circle", "red  circle"]


def test_names_that_the_text_tower_reads_alike_are_named(tiny):
    names = [*SPELLINGS, "cats & dogs", "blue square", "cats &amp; dogs"]
    note = alike_note(text_weights(tiny, names, ["a photo of a {}."]), names)
    assert (
        "'red circle' and 'Red Circle' and 'red\\xa0circle', 'cats & dogs' and 'cats &amp" in note
    )
    assert "blue" not in note


def test_names_that_differ_beyond_the_limit_are_named(tiny):
    names = ["so " * 30 + end for end in ("red", "blue")]
    assert "cannot tell" in alike_note(text_weights(tiny, names, ["a {}"]), names)


def test_only_text_that_is_nearly_the_same_is_named():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2000, 16, generator=generator, dtype=torch.float64)
    names = [f"n{i}" for i in range(2000)]
    weights[1500] = weights[3] * 7
    assert "'n3' and 'n1500'" in alike_note(weights, names)
    assert alike_note(weights, names).count("'") == 4
    aside = normalize(weights[1500] - weights[1500].roll(1)) * weights[1500].norm()
    for angle, named in ((0.005, True), (0.05, False)):
        weights[3] = weights[1500] + aside * angle
        assert bool(alike_note(weights, names)) == named
    assert alike_note(None, names) == ""
    assert "3 are called 'a', 2 are called 'b'" in alike_note(None, ["a", "b", "a", "c", "b", "a"])
