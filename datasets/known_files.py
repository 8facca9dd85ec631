"""What is stated about the files that tasks are made of, by those who publish or load them: lengths, checksums, and
where a file lies when its home is gone.  Nothing here was measured by this project.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from .raw.source import RawFile
from .task import DataError


@dataclass(frozen=True)
class KnownFile:
    """What is known of a file before it is downloaded."""

    size: int | None = None
    """Bytes."""
    sha256: str | None = None
    md5: str | None = None
    """Used where there is no SHA-256: good against damage, not against malice."""

    def verify(self, path: Path) -> None:
        """Compare a file with what is known of it.

        Raises:
            DataError: it has another length or checksum, or cannot be read.
        """
        kind, wanted = ("sha256", self.sha256) if self.sha256 else ("md5", self.md5)
        try:
            size = path.stat().st_size
            if self.size is not None and size != self.size:
                raise DataError(f"{path} has {size:,} bytes; published are {self.size:,}")
            if wanted is None:
                return
            with path.open("rb") as file:
                found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        if found != wanted:
            raise DataError(f"{path} has the {kind.upper()} {found}; published is {wanted}")


def known_file(file: RawFile) -> KnownFile:
    return KnownFile(SIZES.get(file.sha256 or ""), file.sha256)


SIZES = {
    # All of tensorflow/datasets, tensorflow_datasets/url_checksums/<data set>.txt, which states both.
    # cifar100
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec": 168_513_733,
    # dtd
    "e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205": 625_239_812,
    # oxford_flowers102
    "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246": 344_862_509,
    "4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d": 502,
    "46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd": 14_989,
    # oxford_iiit_pet
    "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d": 791_918_971,
    "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91": 19_173_078,
    # svhn_cropped
    "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8": 182_040_794,
    "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b": 64_275_384,
    # sun397
    "f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec": 39_077_296_924,
    # patch_camelyon
    "d619e741468a7ab35c7e4a75e6821b7e7e6c9411705d45708f2a0efc8960656c": 6_421_353_462,
    "b74126d2c01b20d3661f9b46765d29cf4e4fba6faba29c8e0d09d406331ab75a": 21_378,
    "f82ee1670d027b4ec388048d9eabc2186b77c009655dae76d624c0ecb053ccb2": 805_965_320,
    "ce1ae30f08feb468447971cfd0472e7becd0ad96d877c64120c72571439ae48c": 3_038,
    "79174c2201ad521602a5888be8f36ee10875f37403dd3f2086caf2182ef87245": 800_875_929,
    "0a522005fccc8bbd04c5a117bfaf81d8da2676f03a29d7499f71d0a0bd6068ef": 3_040,
    # eurosat
    "8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd": 94_280_567,
    # diabetic_retinopathy_detection
    "a6af3d66804e81887da89b9261bcfb7da4f5bacedb070f1b5db83fa879ab60c9": 1_181_257,
    # clevr
    "5cd61cf1096ed20944df93c9adb31e74d189b8459a94f54ba00090e5c59936d1": 19_021_600_724,
    # dmlab
    "638b18fa69a5d61bbc310cd0b87ac603a39f41de0fdb07b6e77de274a24480a4": 3_017_022_789,
    # kitti
    "351c5a2aa0cd9238b50174a3a62b846bc5855da256b82a196431d60ff8d43617": 12_569_945_557,
    "4efc76220d867e1c31bb980bbf8cbc02599f02a9cb4350effa98dbb04aaed880": 5_601_213,
    # dsprites
    "729fa22e884c9c500e1f17415d580746b4c5894fbbb780a1319bbcfa39a745bb": 28_024_106,
    # smallnorb
    "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873": 131_896_188,
    "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32": 71_052,
    "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474": 130_799_817,
    "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2": 10_428,
    # caltech_birds2011
    "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081": 1_150_585_339,
    # stanford_dogs
    "a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58": 793_579_520,
    # cars196
    "512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288": 979_269_282,
    "bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243": 977_350_468,
}
"""Bytes of a file by its SHA-256."""

MIRRORS: dict[str, tuple[str, KnownFile]] = {
    # torchvision/datasets/eurosat.py (0.29) gets the same archive there, and states the MD5.
    "https://madm.dfki.de/files/sentinel/EuroSAT.zip": (
        "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
        KnownFile(md5="c8fa014336c82ac7804f0398fcb19387"),
    ),
}
"""Where else a file lies, and what is known of it there: for homes that do not answer any more."""
