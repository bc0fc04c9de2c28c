"""``score``: percent of the demo task at a method's defaults, the mean of CoOp's three draws."""

from statistics import mean

import pytest

from clip_adapter import evaluate, load_backbone, make_method
from clip_adapter.datasets.open import parse_spec
from clip_adapter.demo.task import DEMO_TEMPLATES, demo_task
from clip_adapter.evaluation import held_out_features
from clip_adapter.fitting import fit_task, make_task
from clip_adapter.options import SourceOptions
from clip_adapter.sources import PictureSource

SEEDS = (1, 2, 3)


@pytest.fixture(scope="session")
def score(tmp_path_factory):
    """score(method, shots, prompts=..., **options): percent of the test pictures, three draws."""
    root = tmp_path_factory.mktemp("demo")
    folder, backbone = demo_task(root), load_backbone("demo", device="cpu")
    sources, known = {}, {}

    def source_of(prompts):
        if prompts not in sources:
            options = SourceOptions(prompts=prompts, cache=root / "cache", device="cpu")
            source = PictureSource(parse_spec(folder), options)
            source.use(backbone)
            sources[prompts] = source, held_out_features(source)
        return sources[prompts]

    def run(name, shots, prompts=DEMO_TEMPLATES, **chosen):
        key = (name, shots, prompts, *sorted(chosen.items()))
        if key not in known:
            runs = []
            source, test = source_of(prompts)
            method = make_method(name, chosen)
            for seed in SEEDS:
                task, facts = make_task(source, shots=shots, seed=seed, method=method)
                classifier = fit_task(method, task, facts)
                inside = classifier.tower_adapter is not None
                runs.append(evaluate(classifier, folder if inside else test).top1)
            known[key] = mean(runs)
        return known[key]

    return run
