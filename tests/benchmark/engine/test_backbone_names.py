"""`list backbones` lists what `run` accepts; names without weights in timm, models of plug-ins and of the hub."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from raises import raises_naming
from timm.models.vision_transformer import VisionTransformer
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.engine.backbone import MODULES, BackboneError, load, names, refusal
from vtab_peft.benchmark.reporting.origins import plugin_notes
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.methods.plugin import load_plugin

PLUGIN = Path(__file__).parents[2] / "plugins" / "own_backbone.py"


def on_meta(architecture: str) -> torch.nn.Module:
    """Build a model without memory, with as few blocks as possible."""
    swin = timm.models.model_entrypoint(architecture).__module__.endswith("swin_transformer")
    small = {"depths": (1,) * 4} if swin else {"depth": 1}
    more = {"num_kv_heads": 1} if architecture.endswith("sapiens2") else {}  # a number for each block
    with torch.device("meta"):
        return timm.create_model(architecture, num_classes=0, **small, **more)


def compared(pattern: str) -> dict[str, tuple[bool, bool]]:
    """Return whether each architecture of timm's modules is listed, and whether `run` accepts it."""
    listed = {name.partition(".")[0] for name in names()}
    known = sorted({name.partition(".")[0] for name in timm.list_pretrained(pattern)})
    modules = {name: timm.models.model_entrypoint(name).__module__.rpartition(".")[2] for name in known}
    return {
        name: (name in listed, not refusal(on_meta(name)))
        for name, module in modules.items()
        if module in (*MODULES, "vision_transformer_hybrid", "vitamin")
    }


@pytest.mark.parametrize(
    "pattern",
    [
        "vit_*wee*",
        "vit_*rpn*",
        "test_vit*",
        "deit_tiny*",
        "beit3*",
        "vit_giant*",
        "swin_t*",
        "eva02_*",
        "vit_base*rope*",
    ],
)
def test_what_is_listed_is_accepted(pattern: str) -> None:
    found = compared(pattern)
    assert found
    assert [name for name, (listed, accepted) in found.items() if listed is not accepted] == []


@pytest.mark.slow
def test_all_that_is_listed_is_accepted_and_the_rest_is_not() -> None:
    found = compared("*")
    assert len(found) > 150
    assert [name for name, (listed, accepted) in found.items() if listed is not accepted] == []


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("vit_pwee_patch16_reg1_gap_256.sbb_in1k", "ParallelScalingBlock"),
        ("vit_small_r26_s32_224.augreg_in21k", "HybridEmbed"),
        ("deit_tiny_distilled_patch16_224.fb_in1k", "VisionTransformerDistilled"),
        ("vit_small_patch16_rope_mixed_224.naver_in1k", "rotary"),
    ],
)
def test_other_models_are_refused_with_the_reason(name: str, fact: str) -> None:
    with raises_naming(BackboneError, name, fact):
        load(name, "random")


def test_a_name_without_tag_needs_weights(tmp_path: Path) -> None:
    """A model of timm without weights, and one whose tag would be ambiguous."""
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "w.pth")
    found = load("test_vit", str(tmp_path / "w.pth"))
    assert found.ref.name == "test_vit"
    (note,) = found.notes
    assert "mean 0.5/0.5/0.5" in note
    assert "--normalisation" in note
    with raises_naming(BackboneError, "test_vit", "test_vit.r160_in1k", "--weights"):
        load("test_vit")
    assert not timm.list_pretrained("vit_small_patch16_36x1_224.*")
    with raises_naming(BackboneError, "vit_small_patch16_36x1_224", "--weights"):
        load("vit_small_patch16_36x1_224")
    assert load("test_vit", "random").notes != ()


def mini_vit(file: Path) -> Path:
    """Save random weights of the plug-in's model, made without the plug-in."""
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)
    torch.save(vit.state_dict(), file)
    return file


def test_a_plug_in_registers_a_backbone(tmp_path: Path) -> None:
    file = mini_vit(tmp_path / "w.pth")
    with raises_naming(BackboneError, "vit_mini_patch8_32"):
        load("vit_mini_patch8_32", str(file))
    assert load_plugin(PLUGIN) == []
    found = load("vit_mini_patch8_32", str(file))
    assert found.plugin == hashlib.sha256(PLUGIN.read_bytes()).hexdigest()
    weights = hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.ref.sha256 == hashlib.sha256(f"{weights} {found.plugin}".encode()).hexdigest()
    assert (found.image_size, found.mean) == (32, (0.5, 0.5, 0.5))
    assert load("vit_mini_patch8_32", str(file), image_size=64).vit.patch_embed.img_size == (64, 64)
    assert "vit_mini_patch8_32" in names()
    assert main(["list", "backbones", "vit_mini_patch8_32", "--plugin", str(PLUGIN)]) == 0


@pytest.mark.slow
def test_methods_of_the_suite_run_on_a_backbone_of_a_plug_in(
    make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plug-in is loaded by the worker only, also for methods of the suite."""
    file = mini_vit(tmp_path / "w.pth")
    ask = ["run", "--tasks", str(make_task()), "--backbone", "vit_mini_patch8_32", "--weights", str(file)]
    ask += ["--recipe", "smoke", "--threads", "1", "--methods", "linear", "lora(rank=2)", "--seeds", "0"]
    assert main([*ask, "--results", str(tmp_path / "r"), "--plugin", str(PLUGIN)]) == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / "r" / "runs").rglob("*.json")]
    assert {record["spec"]["method"]["name"] for record in records} == {"linear", "lora"}
    for record in records:
        assert record["spec"]["backbone"]["name"] == "vit_mini_patch8_32"
        assert [(own["file"], own["backbone"]) for own in record["provenance"]["plugins"]] == [(PLUGIN.name, True)]
    assert plugin_notes(Store(tmp_path / "r").load_runs()[0]) == []  # their run IDs cover the file
    changed = tmp_path / "changed.py"
    changed.write_text(PLUGIN.read_text() + "\n# another file\n")
    capsys.readouterr()
    assert main([*ask, "--results", str(tmp_path / "r"), "--plugin", str(changed), "--dry-run"]) == 0
    assert "2 of 2 runs to do" in capsys.readouterr().out


def test_a_backbone_without_configuration_has_the_defaults_of_timm(tmp_path: Path) -> None:
    source = PLUGIN.read_text().replace("vit_mini_patch8_32", "vit_bare_patch8_32").replace("default_cfgs", "unused")
    (tmp_path / "bare.py").write_text(source)
    load_plugin(tmp_path / "bare.py")
    found = load("vit_bare_patch8_32", str(mini_vit(tmp_path / "w.pth")))
    assert (found.image_size, found.mean) == (32, (0.485, 0.456, 0.406))
    assert "mean 0.485/0.456/0.406" in found.notes[0]


@pytest.mark.slow
def test_a_plug_in_cannot_replace_a_model_of_timm(tmp_path: Path) -> None:
    source = PLUGIN.read_text().replace("vit_mini_patch8_32", "test_vit")
    (tmp_path / "own.py").write_text(source)
    code = f"""
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from vtab_peft.methods.plugin import PluginError, load_plugin
try:
    load_plugin(Path({str(tmp_path / "own.py")!r}))
except PluginError as error:
    sys.exit(0 if "test_vit" in str(error) else 1)
sys.exit(2)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("address", ["hf:", "hf:owner", "hf:owner/name/more", "hf:/name"])
def test_malformed_addresses_are_refused(address: str) -> None:
    with raises_naming(BackboneError, address, "hf:OWNER/NAME"):
        load("test_vit.r160_in1k", address)


@pytest.mark.parametrize("revision", ["", "@v2"])
def test_weights_come_from_a_repository_of_the_hub(
    revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import EntryNotFoundError

    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "pytorch_model.bin")
    asked: list[tuple[Any, ...]] = []

    def download(repository: str, filename: str, **more: str) -> str:
        asked.append((repository, filename, more.get("revision")))
        if not (tmp_path / filename).exists():
            raise EntryNotFoundError(f"no {filename}")
        return str(tmp_path / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    reported: list[object] = []
    found = load("test_vit.r160_in1k", f"hf:owner/name{revision}", on_progress=lambda *update: reported.append(update))
    assert found.ref == load("test_vit.r160_in1k", str(tmp_path / "pytorch_model.bin")).ref
    files = ["model.safetensors", "pytorch_model.bin", "config.json"]
    assert asked == [("owner/name", file, revision.removeprefix("@") or None) for file in files]
    assert len(reported) == 2
    (tmp_path / "pytorch_model.bin").unlink()
    with raises_naming(BackboneError, f"hf:owner/name{revision}", "model.safetensors", "--weights FILE"):
        load("test_vit.r160_in1k", f"hf:owner/name{revision}")


OTHERS = """
from timm.models import build_model_with_cfg, register_model
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer

default_cfgs = {"own_resnet32": {"input_size": (3, 32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}}


class Changed(VisionTransformer):
    pass


@register_model
def own_resnet(pretrained=False, **kwargs):
    return build_model_with_cfg(ResNet, "own_resnet", pretrained, block=BasicBlock, layers=[1, 1, 1, 1], **kwargs)


@register_model
def own_resnet32(pretrained=False, **kwargs):
    return own_resnet(pretrained, **kwargs)


@register_model
def own_changed(pretrained=False, **kwargs):
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return build_model_with_cfg(Changed, "own_changed", pretrained, **(sizes | kwargs))
"""


def test_a_plug_in_with_a_model_of_another_kind_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "others.py").write_text(OTHERS)
    load_plugin(tmp_path / "others.py")
    for name, kind in (("own_resnet", "ResNet"), ("own_resnet32", "ResNet"), ("own_changed", "Changed")):
        with raises_naming(BackboneError, name, f"its class is {kind}", "others.py", "docs/backbones.md"):
            load(name, "random")
