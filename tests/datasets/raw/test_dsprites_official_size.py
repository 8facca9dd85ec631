"""Tests of both dSprites tasks at official size, from the 737,280 re-rendered images if available."""

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from vtab_peft.benchmark.cli import main

RAW = Path(__file__).parents[4] / "shared" / "data" / "dsprites_rerendered"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (RAW / "dsprites_regen_packed.npz").exists(),
        reason="no ../shared/data/dsprites_rerendered beside the checkout",
    ),
]


def listed(folder: Path, name: str) -> list[tuple[Path, int]]:
    lines = [line.split() for line in (folder / f"{name}.txt").read_text().splitlines()]
    return [(folder / file, int(label)) for file, label in lines]


def test_both_tasks_are_built_and_right(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "dsprites").symlink_to(RAW)
    data = ["--data", str(tmp_path / "data")]
    assert main(["data", "build", "dsprites", "--raw", str(tmp_path / "raw"), *data]) == 0
    assert main(["data", "check", "--suite", "vtab1k", "--tasks", "dsprites_loc", "dsprites_ori", *data]) == 0
    assert capsys.readouterr().out.count("found        800    200   73728  own") == 2

    ranked = sorted(range(737_280), key=lambda row: hashlib.md5(f"train{row}".encode()).digest())
    rows = {"train800": ranked[:800], "val200": ranked[589_824:590_024], "test": ranked[663_552:]}
    with np.load(RAW / "dsprites_regen_packed.npz") as arrays:
        packed = arrays["imgs_packed"]
    # the last latents of a row, slowest first: 40 orientations, 32 places in x, 32 in y
    truth = {"dsprites_loc": lambda row: row // 32 % 32 // 2, "dsprites_ori": lambda row: int(row // 1024 % 40 / 2.5)}
    for task, label in truth.items():
        folder = tmp_path / "data" / task
        manifest = json.loads((folder / "manifest.json").read_text())
        assert (manifest["source"], manifest["provenance"]) == ("re-rendered dSprites", "own")
        for name, expected in rows.items():
            found = listed(folder, name)
            assert [number for _, number in found] == [label(row) for row in expected]
            for (file, _), row in list(zip(found, expected, strict=True))[::37]:
                with Image.open(file) as picture:
                    seen = np.asarray(picture.convert("RGB"))
                assert np.array_equal(seen, 255 * np.unpackbits(packed[row]).reshape(64, 64, 1).repeat(3, axis=2))

    columns: dict[int, list[float]] = {}
    for file, number in listed(tmp_path / "data" / "dsprites_loc", "train800"):
        with Image.open(file) as picture:
            columns.setdefault(number, []).append(np.nonzero(np.asarray(picture))[1].mean())
    means = [np.mean(columns[number]) for number in range(16)]
    assert all(left < right for left, right in itertools.pairwise(means)), "labels do not follow the place in x"
