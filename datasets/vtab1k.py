"""The 19 tasks of VTAB-1k (Zhai et al., arXiv:1910.04867), in the order papers print them.

Names are those of the shared `vtab-1k` archive.  Counts are those of the TFDS versions that VPT pinned;
caltech101's test set has 6,084 images there and 6,085 in the shared archive, which counts one more file.
"""

from typing import Literal

from .archive import load
from .task import Task


def _row(
    name: str,
    group: Literal["natural", "specialized", "structured"],
    classes: int,
    test: int | tuple[int, ...],
    source: str,
    licence: str,
    citation: str,
    archive_only: bool = False,
) -> Task:
    tests = (test,) if isinstance(test, int) else test
    return Task(
        suite="vtab1k",
        name=name,
        group=group,
        classes=classes,
        sizes={"train": (800,), "val": (200,), "test": tests},
        load=load,
        source=source,
        licence=licence,
        citation=citation,
        provenance="lossless",
        archive_only=archive_only,
    )


_CLEVR = (
    "https://cs.stanford.edu/people/jcjohns/clevr/",
    "CC BY 4.0",
    "Johnson et al., CLEVR: A Diagnostic Dataset, CVPR 2017, arXiv:1612.06890",
)
_DSPRITES = (
    "https://github.com/google-deepmind/dsprites-dataset",
    "Apache-2.0",
    "Matthey et al., dSprites: Disentanglement testing Sprites dataset, 2017",
)
_SMALLNORB = (
    "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/",
    "research only, not to be sold",
    "LeCun, Huang, Bottou, Learning Methods for Generic Object Recognition, CVPR 2004",
)

VTAB1K: dict[str, Task] = {
    task.name: task
    for task in (
        _row(
            "cifar",
            "natural",
            100,
            10_000,
            "https://www.cs.toronto.edu/~kriz/cifar.html",
            "none stated",
            "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        ),
        _row(
            "caltech101",
            "natural",
            102,
            (6_084, 6_085),
            "https://data.caltech.edu/records/mzrjq-6wc02",
            "CC BY 4.0",
            "Fei-Fei, Fergus, Perona, Learning Generative Visual Models from Few Training Examples, CVPR-W 2004",
            archive_only=True,
        ),
        _row(
            "dtd",
            "natural",
            47,
            1_880,
            "https://www.robots.ox.ac.uk/~vgg/data/dtd/",
            "research only",
            "Cimpoi et al., Describing Textures in the Wild, CVPR 2014, arXiv:1311.3618",
        ),
        _row(
            "oxford_flowers102",
            "natural",
            102,
            6_149,
            "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
            "none stated",
            "Nilsback, Zisserman, Automated Flower Classification over a Large Number of Classes, ICVGIP 2008",
        ),
        _row(
            "oxford_iiit_pet",
            "natural",
            37,
            3_669,
            "https://www.robots.ox.ac.uk/~vgg/data/pets/",
            "CC BY-SA 4.0",
            "Parkhi et al., Cats and Dogs, CVPR 2012",
        ),
        _row(
            "svhn",
            "natural",
            10,
            26_032,
            "http://ufldl.stanford.edu/housenumbers/",
            "non-commercial use only",
            "Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, NIPS-W 2011",
        ),
        _row(
            "sun397",
            "natural",
            397,
            21_750,
            "https://vision.princeton.edu/projects/2010/SUN/",
            "none stated",
            "Xiao et al., SUN Database: Large-scale Scene Recognition from Abbey to Zoo, CVPR 2010",
        ),
        _row(
            "patch_camelyon",
            "specialized",
            2,
            32_768,
            "https://github.com/basveeling/pcam",
            "CC0",
            "Veeling et al., Rotation Equivariant CNNs for Digital Pathology, MICCAI 2018, arXiv:1806.03962",
        ),
        _row(
            "eurosat",
            "specialized",
            10,
            5_400,
            "https://github.com/phelber/EuroSAT",
            "MIT",
            "Helber et al., EuroSAT: A Novel Dataset for Land Use Classification, JSTARS 2019, arXiv:1709.00029",
        ),
        _row(
            "resisc45",
            "specialized",
            45,
            6_300,
            "https://gcheng-nwpu.github.io/#Datasets",
            "none stated",
            "Cheng, Han, Lu, Remote Sensing Image Scene Classification, Proc. IEEE 2017, arXiv:1703.00121",
        ),
        _row(
            "diabetic_retinopathy",
            "specialized",
            5,
            42_670,
            "https://www.kaggle.com/c/diabetic-retinopathy-detection",
            "rules of the Kaggle competition",
            "EyePACS and Kaggle, Diabetic Retinopathy Detection, 2015",
        ),
        _row("clevr_count", "structured", 8, 15_000, *_CLEVR),
        _row("clevr_dist", "structured", 6, 15_000, *_CLEVR),
        _row(
            "dmlab",
            "structured",
            6,
            22_735,
            "https://github.com/google-research/task_adaptation",
            "none stated",
            "Zhai et al., 2019, arXiv:1910.04867; frames of DeepMind Lab, Beattie et al., arXiv:1612.03801",
        ),
        _row(
            "kitti",
            "structured",
            4,
            711,
            "https://www.cvlibs.net/datasets/kitti/",
            "CC BY-NC-SA 3.0",
            "Geiger, Lenz, Urtasun, Are We Ready for Autonomous Driving?, CVPR 2012",
        ),
        _row("dsprites_loc", "structured", 16, 73_728, *_DSPRITES),
        _row("dsprites_ori", "structured", 16, 73_728, *_DSPRITES),
        _row("smallnorb_azi", "structured", 18, 12_150, *_SMALLNORB),
        _row("smallnorb_ele", "structured", 9, 12_150, *_SMALLNORB),
    )
}
