"""ImageNetV2, matched frequency: a second test set for ImageNet's classes."""

from clip_adapter.datasets.catalog.base import IMAGENET_CLASSES, Archive, Benchmark

RECORD = Benchmark(
    name="imagenetv2",
    title="ImageNetV2",
    classes=1000,
    sizes={"train": 0, "val": 0, "test": 10_000},
    folder="imagenetv2",
    licence="MIT",
    citation="Recht et al., Do ImageNet Classifiers Generalize to ImageNet?, ICML 2019",
    homepage="https://github.com/modestyachts/ImageNetV2",
    order=12,
    side_file=IMAGENET_CLASSES,
    split_folders={"test": "imagenetv2-matched-frequency-format-val"},
    numbered=True,
    per_class={"test": 10},
    archives=(
        # A plain tar, whatever its ending says.
        Archive(
            "imagenetv2-matched-frequency.tar.gz",
            {
                "imagenetv2-matched-frequency-format-val/": "imagenetv2/"
                "imagenetv2-matched-frequency-format-val/"
            },
            url="https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/"
            "d626240be2538720e83103a0e1178d24aca8b12c/imagenetv2-matched-frequency.tar.gz",
            size=1_264_079_360,
            sha256="f0c37fdf925916b19ea1323cd9a2208cdb6959ba2c32eef2a7fc393835c9ca7c",
        ),
    ),
)
