"""docs/first-day.md from top to bottom: by commands, and by the Python API."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import vtab_peft
from in_process import LOCAL_BACKEND, InProcessBackend
from PIL import Image
from vtab_peft.benchmark.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "first-day.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.slow


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 90 pictures of three flowers, of several sizes and formats, told apart by their colours."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("daisy", "rose", "tulip")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 120, (40 + number, 50, 3))
            pixels[..., label] += 100
            ending = ("png", "jpg")[number % 2]
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pictures" / name / f"{number}.{ending}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTAB_PEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # one, as in all tests
    return tmp_path


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Return the logits of a run's test images, prepared as timm says."""
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    (folder,) = Path("cache/image_folders").iterdir()
    files = [folder / line.rsplit(" ", 1)[0] for line in (folder / "test.txt").read_text().splitlines()]
    assert len(files) == 18
    with torch.no_grad():
        return model(torch.stack([transform(Image.open(file).convert("RGB")) for file in files]))


def stored(row) -> list[int]:
    return np.load(Path(row.path).with_suffix(".npz"))["predictions"].tolist()


def test_day_by_commands(day: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = []
    for line in "\n".join(blocks("")).replace("\\\n", "").splitlines():
        if not line.startswith("vtab-peft "):
            continue
        if "RUN_ID" in line:
            frame = vtab_peft.load_results("my-results")
            row = next(frame[(frame["method"] == "lora") & (frame["seed"] == 1)].itertuples())
        words = shlex.split(line.replace("RUN_ID", row.key[:8]) if "RUN_ID" in line else line)[1:]
        assert main(words) == 0, capsys.readouterr().err
        ran.append(words[0])
    assert ran == ["run", "status", "compare", "export"]
    said = capsys.readouterr().out
    assert "A = LoRA, B = Linear probe" in said
    assert "needs at least 3 seeds" not in said
    assert set(frame["recipe"]) == {row.recipe}
    assert "epochs=3" in row.recipe
    names: dict = {}
    (block,) = blocks("py")
    exec(block, names)
    assert logits(names["model"]).argmax(1).tolist() == stored(row)
    assert not hasattr(names["model"], "peft_method")


def test_day_by_the_python_api(day: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("python")
    names: dict = {}
    exec(block, names)
    runs = names["runs"]
    assert sorted(zip(runs["method"], runs["seed"], strict=True)) == [
        *(("linear", 0), ("linear", 1), ("linear", 2), ("lora", 0), ("lora", 1), ("lora", 2))
    ]
    assert "A = LoRA, B = Linear probe" in capsys.readouterr().out
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=64, **TOY)
    plain.load_state_dict(torch.load("my-model.pt", weights_only=True))
    plain.pretrained_cfg = names["model"].pretrained_cfg
    row = next(runs[runs["key"] == names["run_id"]].itertuples())
    assert logits(plain.eval()).argmax(1).tolist() == stored(row)


TOY = {"patch_size": 16, "embed_dim": 128, "depth": 4, "num_heads": 4}
"""The shape of `toy_vit`."""
