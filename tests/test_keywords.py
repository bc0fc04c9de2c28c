"""What type checkers are told of ``**keywords`` is what the functions take."""

import inspect
from typing import get_type_hints

from clip_adapter import Classifier
from clip_adapter.keywords import AnswerKeywords, SourceKeywords
from clip_adapter.options import SourceOptions


def test_those_of_a_source_are_the_fields_of_its_options():
    fields = get_type_hints(SourceOptions)
    del fields["PANEL"]
    assert get_type_hints(SourceKeywords) == fields


def test_those_of_an_answer_are_what_logits_takes():
    parameters = inspect.signature(Classifier.logits).parameters.values()
    names = {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}
    hints = get_type_hints(Classifier.logits)
    assert get_type_hints(AnswerKeywords) == {name: hints[name] for name in names}
