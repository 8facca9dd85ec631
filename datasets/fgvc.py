"""The five fine-grained tasks that PEFT papers report as "FGVC", in the order and sizes of VPT (arXiv:2203.12119).

The validation images are carved at random out of the official training sets, so two groups' splits of equal size
can differ; the data hash in every result tells them apart.
"""

from .archive import load
from .task import Task


def _row(name: str, classes: int, sizes: tuple[int, int, int], source: str, licence: str, citation: str) -> Task:
    train, val, test = sizes
    return Task(
        suite="fgvc",
        name=name,
        group="fgvc",
        classes=classes,
        sizes={"train": (train,), "val": (val,), "test": (test,)},
        load=load,
        source=source,
        licence=licence,
        citation=citation,
        provenance="lossless",
    )


FGVC: dict[str, Task] = {
    task.name: task
    for task in (
        _row(
            "cub",
            200,
            (5_394, 600, 5_794),
            "https://www.vision.caltech.edu/datasets/cub_200_2011/",
            "non-commercial research and education",
            "Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001",
        ),
        _row(
            "nabirds",
            555,
            (21_536, 2_393, 24_633),
            "https://dl.allaboutbirds.org/nabirds",
            "non-commercial research and education",
            "Van Horn et al., Building a Bird Recognition App and Large Scale Dataset, CVPR 2015",
        ),
        _row(
            "oxfordflowers",
            102,
            (1_020, 1_020, 6_149),
            "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
            "none stated",
            "Nilsback, Zisserman, Automated Flower Classification over a Large Number of Classes, ICVGIP 2008",
        ),
        _row(
            "stanforddogs",
            120,
            (10_800, 1_200, 8_580),
            "http://vision.stanford.edu/aditya86/ImageNetDogs/",
            "none stated (images of ImageNet)",
            "Khosla et al., Novel Dataset for Fine-Grained Image Categorization, CVPR-W 2011",
        ),
        _row(
            "stanfordcars",
            196,
            (7_329, 815, 8_041),
            "https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
            "non-commercial research",
            "Krause et al., 3D Object Representations for Fine-Grained Categorization, 3dRR 2013",
        ),
    )
}
