"""ImageNet-A: pictures of 200 of ImageNet's classes that fool a ResNet-50, for testing only."""

from clip_adapter.datasets.catalog.base import IMAGENET_CLASSES, Archive, Benchmark

RECORD = Benchmark(
    name="imagenet_a",
    title="ImageNet-A",
    classes=200,
    sizes={"train": 0, "val": 0, "test": 7500},
    folder="imagenet-adversarial",
    licence="MIT",
    citation="Hendrycks et al., Natural Adversarial Examples, arXiv 1907.07174",
    homepage="https://github.com/hendrycks/natural-adv-examples",
    order=14,
    side_file=IMAGENET_CLASSES,
    split_folders={"test": "imagenet-a"},
    archives=(
        Archive(
            "imagenet-a.tar",
            {"imagenet-a/": "imagenet-adversarial/imagenet-a/"},
            url="https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",
            size=687_552_512,
            sha256="3bb3632277e6ba6392ea64c02ddbf4dd2266c9caffd6bc09c9656d28f012589e",
        ),
    ),
)
