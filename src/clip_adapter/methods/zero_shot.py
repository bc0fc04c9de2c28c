"""Zero-shot CLIP: the class names are the classifier.

    logits = logit_scale * normalize(f) @ normalize(W).T

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
2021 (arXiv 2103.00020), section 3.1; CLIP-Adapter, equation 2.
"""

from clip_adapter.methods.base import FewShotTask, Fitted, Head, Method, register


@register(
    name="zero-shot",
    summary="the class names alone, no training",
    citation="Radford et al. 2021, arXiv 2103.00020",
    trains="nothing",
    one_vector_per_class=True,
)
class ZeroShot(Method):
    """The text weights as they are; the shots are not read."""

    def fit(self, task: FewShotTask) -> Fitted:  # noqa: D102
        return Fitted(Head(task.require_text(self.name), logit_scale=task.logit_scale))
