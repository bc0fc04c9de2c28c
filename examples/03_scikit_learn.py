"""Features in scikit-learn: any method is an estimator for cross-validation and grid search.

python examples/03_scikit_learn.py [PHOTOS [BACKBONE]]
"""

import sys
from pathlib import Path

from sklearn.model_selection import GridSearchCV

from clip_adapter import FewShotClassifier, load_backbone, load_dataset
from clip_adapter.demo.task import demo_task
from clip_adapter.features.embed import embed
from clip_adapter.features.store import FeatureStore
from clip_adapter.features.text import text_weights


def main(photos: Path, backbone_name: str) -> None:
    """Chooses the ratio by scikit-learn's own search, on the training pictures."""
    backbone, data, store = load_backbone(backbone_name), load_dataset(photos), FeatureStore()
    text = text_weights(backbone, data.class_names, data.templates, store=store)
    train, test = (
        embed(backbone, data.splits[split], data.class_names, store=store)[0]
        for split in ("train", "test")
    )
    # Labels are indices into class_names, and so are the rows of the text weights.
    x, y = train.plain_view.numpy(), train.labels.numpy()

    estimator = FewShotClassifier(
        "clip-adapter", text_weights=text.numpy(), logit_scale=backbone.logit_scale
    )
    grid = {"options": [{"visual_ratio": ratio} for ratio in (0.0, 0.2, 0.6)]}
    search = GridSearchCV(estimator, grid, cv=3).fit(x, y)
    print(f"chosen: {search.best_params_['options']}, {search.best_score_:.1%} held out")
    accuracy = search.score(test.plain_view.numpy(), test.labels.numpy())
    print(f"test: {accuracy:.1%}")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        Path(given[0]) if given else demo_task(Path("demo-output")),
        given[1] if len(given) > 1 else "demo",
    )
