"""Prompts with tokenizers that frame a text otherwise than CLIP's does."""

import pytest
import torch

from clip_adapter.errors import UsageError
from clip_adapter.nn.prompt import Frame, SoftPrompts, common_start, context_tokens, lay_out

WORDS = {"a": 10, "cat": 11, "sea": 12, "eel": 13, "X": 14, ".": 15}


def tokenizer(start=(), end=(), padding=0, length=8):
    """Words to ids; a full stop is a word of its own."""

    def tokenize(texts):
        rows = []
        for text in texts:
            words = [WORDS[w] for w in text.replace(".", " .").split()]
            row = [*start, *words, *end]
            rows.append(row[:length] + [padding] * (length - len(row)))
        return torch.tensor(rows)

    return tokenize


# CLIP; SigLIP, which pads with what ends a text; SigLIP 2; no frame at all
FRAMES = [((1,), (2,), 0), ((), (1,), 1), ((), (1,), 0), ((), (), 0)]


@pytest.mark.parametrize(("start", "end", "padding"), FRAMES)
def test_other_frames(start, end, padding):
    tokenize = tokenizer(start, end, padding)
    tokens, columns = lay_out(tokenize, ["cat", "sea eel"], [20, 21], "middle")
    for row, name in zip(tokens.tolist(), ([11], [12, 13]), strict=True):
        expected = [*start, 20, *name, 21, WORDS["."], *end]
        assert row == expected + [padding] * (8 - len(expected))
    assert tokens.gather(1, columns).tolist() == [[20, 21], [20, 21]]
    assert context_tokens(tokenize, "a cat") == [10, 11]
    assert context_tokens(tokenize, 3) == [14, 14, 14]


def test_the_frame_of_clip():
    frame = Frame.of(tokenizer((1,), (2,)))
    assert frame == Frame([1], [2], 0, 8)
    assert frame.words([1, 11, 15, 2, 0, 0, 0, 0]) == [11, 15]


def test_a_prompt_that_just_fits_and_one_that_does_not():
    tokenize = tokenizer((1,), (2,))
    assert lay_out(tokenize, ["cat"], [20] * 4, "end")[0].tolist() == [[1, *[20] * 4, 11, 15, 2]]
    with pytest.raises(UsageError, match="'cat' and 5 context tokens make 9 tokens"):
        lay_out(tokenize, ["cat"], [20] * 5, "end")


def test_what_prompts_begin_with_in_common():
    tokens = torch.tensor([[1, 14, 14, 11, 2], [1, 14, 14, 12, 2]])
    assert common_start(tokens, torch.tensor([[1, 2], [1, 2]])) == 3
    # a word that is the placeholder itself is no context
    assert common_start(tokens, torch.tensor([[1], [2]])) == 1


def test_the_context_of_each_class_gets_its_own_gradient():
    embedded = torch.zeros(2, 4, 3)
    columns = torch.tensor([[1, 2], [2, 3]])
    shared = SoftPrompts(embedded, columns, torch.ones(2, 3))
    assert shared().sum(-1).tolist() == [[0, 3, 3, 0], [0, 0, 3, 3]]
    own = SoftPrompts(embedded, columns, torch.ones(2, 2, 3))
    own()[0].sum().backward()
    assert own.context.grad.sum((1, 2)).tolist() == [6, 0]
    shared()[0].sum().backward()
    assert shared.context.grad.sum() == 6
