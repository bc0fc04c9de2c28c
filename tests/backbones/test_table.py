"""The table of backbones: every row can be had, and what is recommended follows from the rows."""

import json
import runpy

import open_clip
import pytest
import torch

from clip_adapter.backbones import load_backbone
from clip_adapter.backbones.rates import measure, rates_file
from clip_adapter.backbones.table import SOURCES, better_one, find, recommended, rows
from clip_adapter.options import DEFAULT_BACKBONE

ARCHITECTURES = list(dict.fromkeys(row.arch for row in rows()))


def test_every_row_names_weights_that_open_clip_has():
    names = [row.name for row in rows()]
    assert len(set(names)) == len(names) > 20
    assert set(names) <= {f"{arch}/{tag}" for arch, tag in open_clip.list_pretrained()}
    assert {"open_clip"} < {row.source for row in rows()} <= set(SOURCES)


def test_figures_are_percent_millions_and_the_cheapest_come_first():
    for row in rows():
        assert 30 < row.imagenet < 100
        assert row.mean_38 is None or 30 < row.mean_38 < row.imagenet
        assert 50 < row.parameters < 3000
    costs = [row.multiply_adds for row in rows()]
    assert costs == sorted(costs)
    assert 1 < costs[0] < costs[-1] < 1000


def test_only_weights_that_all_may_use_are_recommended():
    refused = {row.licence for row in rows()} - {row.licence for row in recommended()}
    assert refused == {"apple-amlr", "cc-by-nc-4.0", "unknown"}
    assert {row.licence for row in recommended()} == {"mit", "apache-2.0"}


@pytest.mark.parametrize("extra", ["", "siglip"])
def test_what_is_recommended_costs_more_only_where_it_is_better(extra):
    front = [row for row in recommended() if row.extra == extra]
    scores = [row.imagenet for row in front]
    assert len(front) > 3
    assert scores == sorted(scores)
    others = [r for r in rows() if r.commercial and r.extra == extra and r not in front]
    assert others
    for row in others:
        assert any(map(row.beaten_by, front)), row.name


def test_the_default_has_a_better_one_at_its_cost():
    better, own = better_one(DEFAULT_BACKBONE), find(DEFAULT_BACKBONE)
    assert better.name == "ViT-B-32/datacomp_xl_s13b_b90k"
    assert (round(own.imagenet, 1), round(better.imagenet, 1)) == (63.3, 69.2)
    assert (own.multiply_adds, own.parameters) == (better.multiply_adds, better.parameters)
    assert better_one(better.name) is None
    assert better_one("local-dir:mine") is None


@pytest.mark.slow
def test_costs_are_those_of_the_architectures(root, capsys):
    main = runpy.run_path(str(root / "tools/backbone_table.py"))["main"]
    assert main(["--check"]) == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_embeds_a_picture_and_a_text(arch):
    backbone = load_backbone(f"{arch}/random", device="cpu")
    row = next(row for row in rows() if row.arch == arch)
    assert round(backbone.parameters / 1e6, 1) == row.parameters
    size = backbone.preprocess.image_size
    image = backbone.encode_images(torch.rand(1, 3, size, size))
    if row.extra:  # its tokenizer is on the hub
        words = backbone.model.text.token_embedding.num_embeddings
        tokens = torch.randint(1, words, (1, backbone.model.text.context_length))
        with torch.inference_mode():
            text = backbone.model.encode_text(tokens)
    else:
        text = backbone.encode_text(["a photo of a dog."])
    assert image.shape == text.shape == (1, backbone.embed_dim)
    assert image.isfinite().all()
    assert text.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RN50/openai", "ViT-B-32-SigLIP2-256/webli"])
def test_rates_are_measured_and_kept(name):
    row = find(name)
    known = measure([row], "cpu", "float32")
    assert list(known) == [row.arch]
    assert 0 < known[row.arch] < 1e5
    (machine,) = json.loads(rates_file().read_text())
    assert machine.startswith("cpu: ")
    assert "float32" in machine
    assert measure([row], "cpu", "float32") == known  # not measured again
