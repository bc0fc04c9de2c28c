"""ImageNet-R: paintings, toys and other renditions of 200 classes, for testing only."""

from clip_adapter.datasets.catalog.base import IMAGENET_CLASSES, Archive, Benchmark

RECORD = Benchmark(
    name="imagenet_r",
    title="ImageNet-R",
    classes=200,
    sizes={"train": 0, "val": 0, "test": 30_000},
    folder="imagenet-rendition",
    licence="none seen; see the homepage",
    citation="Hendrycks et al., The Many Faces of Robustness, arXiv 2006.16241",
    homepage="https://github.com/hendrycks/imagenet-r",
    order=15,
    side_file=IMAGENET_CLASSES,
    split_folders={"test": "imagenet-r"},
    archives=(
        Archive(
            "imagenet-r.tar",
            {"imagenet-r/": "imagenet-rendition/imagenet-r/"},
            url="https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",
            size=2_191_079_936,
            sha256="18c6bf493b39a0d975d48e587437f562caab9c52ae6327dcfa9dd8eb54aa1b52",
        ),
    ),
)
