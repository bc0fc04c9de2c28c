"""ImageNet-Sketch: sketches of ImageNet's classes, for testing only."""

from clip_adapter.datasets.catalog.base import IMAGENET_CLASSES, Archive, Benchmark

RECORD = Benchmark(
    name="imagenet_sketch",
    title="ImageNet-Sketch",
    classes=1000,
    sizes={"train": 0, "val": 0, "test": 50_889},
    folder="imagenet-sketch",
    licence="MIT",
    citation="Wang et al., Learning Robust Global Representations by Penalizing Local Predictive "
    "Power, NeurIPS 2019",
    homepage="https://github.com/HaohanWang/ImageNet-Sketch",
    order=13,
    side_file=IMAGENET_CLASSES,
    split_folders={"test": "images"},
    archives=(
        Archive(
            "ImageNet-Sketch.zip",
            {"sketch/": "imagenet-sketch/images/"},
            url="https://huggingface.co/datasets/songweig/imagenet_sketch/resolve/"
            "bee800b13e5902e5dc77861fce441a6986b840ca/data/ImageNet-Sketch.zip",
            size=7_593_573_012,
            sha256="4d3ce6b82a7c48aabf14aeac105eb533e75707f152cc858f55bfc022031a72ed",
        ),
    ),
)
