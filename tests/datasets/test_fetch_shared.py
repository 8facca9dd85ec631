"""Tests of fetching the shared vtab-1k archive through the hub's client."""

import hashlib
import inspect
import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fileserver import zipped
from PIL import Image
from raises import raises_naming
from vtab_peft.benchmark.cli import main
from vtab_peft.datasets import shared as module
from vtab_peft.datasets.check import check
from vtab_peft.datasets.download import ProgressFn
from vtab_peft.datasets.official import VTAB1K
from vtab_peft.datasets.shared import PNG, fetch_shared
from vtab_peft.datasets.task import DataError, Task
from vtab_peft.datasets.tasks import find

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


LIST = b"images/1.jpg 0\n"
TASK = {"test.txt": LIST, "train800.txt": b"images/2.jpg 0\n", "val200.txt": b"images/3.jpg 1\n"}
TASK |= {f"images/{number}.jpg": jpeg(number) for number in (1, 2, 3)}
NAMES = {*TASK, "manifest.json"}


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of any size are complete."""
    for name in ("cifar", "dtd", "svhn"):
        monkeypatch.setitem(VTAB1K, name, replace(VTAB1K[name], sizes={}))


class Silent:
    """Nobody wants to know."""

    def begin(self, what: str) -> ProgressFn:
        return lambda _done, _total: None

    def note(self, text: str) -> None:
        pass


SILENT = Silent()


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands for the hub's client: writes what it is told to, and remembers what it was asked for."""
    hub = SimpleNamespace(asked=[], archive=shared("cifar", "dtd"))

    def hf_hub_download(**asked: Any) -> str:
        hub.asked.append(asked)
        if isinstance(hub.archive, Exception):
            raise hub.archive
        path = Path(asked["local_dir"]) / asked["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hub.archive)
        return str(path)

    def snapshot_download(**asked: Any) -> str:
        hub.asked.append(asked)
        path = Path(asked["local_dir"])
        path.mkdir()
        (path / "all.zip").write_bytes(hub.archive)
        if not hub.packed:
            shutil.unpack_archive(path / "all.zip", path)
            (path / "all.zip").unlink()
        return str(path)

    client = SimpleNamespace(hf_hub_download=hf_hub_download, snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    return hub


def test_incomplete_tasks_are_refused(hub: SimpleNamespace, tmp_path: Path) -> None:
    hub.archive = zipped({f"cifar/{name}": data for name, data in TASK.items() if name != "images/2.jpg"})
    with raises_naming(DataError, "cifar", "images/2.jpg"):
        fetch_shared(located(tmp_path, "cifar"), tmp_path, SILENT)
    assert names(tmp_path) == {"vtab-1k.zip"}


def test_manifest_has_revision_and_checksums(hub: SimpleNamespace, tmp_path: Path) -> None:
    note = tmp_path / ".cache" / "huggingface" / "download" / "vtab-1k.zip.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{COMMIT}\netag\n1764000000.0\n")
    fetch_shared(located(tmp_path, "cifar"), tmp_path, SILENT)
    known = json.loads((tmp_path / "cifar" / "manifest.json").read_text())
    assert (known["revision"], known["provenance"]) == (COMMIT, "jpeg75")
    digest = hashlib.sha256(f"{hashlib.sha256(TASK['images/1.jpg']).hexdigest()} 0\n".encode()).hexdigest()
    assert known["checksums"]["test"] == digest
    (task,) = located(tmp_path, "cifar")
    assert check(task, deep=True).state == "found"
    (tmp_path / "cifar" / "images" / "1.jpg").write_bytes(jpeg(9))
    result = check(task, deep=True)
    assert result.state == "wrong"
    assert "test" in result.problems[0]
    assert check(task).state == "found"


def test_later_tasks_come_from_the_same_revision(hub: SimpleNamespace, tmp_path: Path) -> None:
    fetch_shared(located(tmp_path, "cifar"), tmp_path, SILENT, revision=COMMIT)
    assert hub.asked[-1]["revision"] == COMMIT
    path = tmp_path / "cifar" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"revision": COMMIT}))
    (tmp_path / "vtab-1k.zip").unlink()
    fetch_shared(located(tmp_path, "dtd"), tmp_path, SILENT)
    assert hub.asked[-1]["revision"] == COMMIT


@pytest.mark.parametrize("packed", [True, False])
def test_png_copy_is_taken_packed_or_as_folders(packed: bool, hub: SimpleNamespace, tmp_path: Path) -> None:
    hub.packed = packed
    fetch_shared(located(tmp_path, "cifar", "dtd"), tmp_path, SILENT, PNG)
    (asked,) = hub.asked
    assert asked["repo_id"] == "iridescentttt/vtab-1k-png"
    assert asked["repo_type"] == "dataset"
    assert {"*cifar/*", "*dtd/*", "*.zip"} <= set(asked["allow_patterns"])
    assert names(tmp_path / "dtd") == NAMES
    assert check(located(tmp_path, "dtd")[0], deep=True).provenance == "own"


def shared(*tasks: str, top: str = "vtab-1k/") -> bytes:
    return zipped({f"{top}{task}/{name}": data for task in tasks for name, data in TASK.items()})


def located(data: Path, *wanted: str) -> list[Task]:
    return find(list(wanted), "vtab1k", data)


def test_the_hub_is_asked_for_the_archive_as_a_data_set(hub: SimpleNamespace, tmp_path: Path) -> None:
    assert fetch_shared(located(tmp_path, "cifar"), tmp_path, SILENT) == ["cifar"]
    asked = {"repo_id": "XiN0919/VTAB-1k", "filename": "vtab-1k.zip", "repo_type": "dataset", "local_dir": tmp_path}
    assert hub.asked == [asked]
    assert names(tmp_path) == {"vtab-1k.zip", *(f"cifar/{name}" for name in NAMES)}


def test_the_hubs_client_takes_what_it_is_given(hub: SimpleNamespace, tmp_path: Path) -> None:
    fetch_shared(located(tmp_path, "cifar"), tmp_path, SILENT)
    del sys.modules["huggingface_hub"]
    real = pytest.importorskip("huggingface_hub", reason="the extra `data` is not installed")
    inspect.signature(real.hf_hub_download).bind(**hub.asked[0])


def test_the_archive_serves_later_tasks_until_all_are_there(
    hub: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VTAB1K", {name: VTAB1K[name] for name in ("cifar", "dtd")})
    fetch_shared(located(tmp_path, "cifar"), tmp_path, SILENT)
    (tmp_path / "cifar" / "test.txt").write_text("corrected by hand\n")
    fetch_shared(located(tmp_path, "cifar", "dtd"), tmp_path, SILENT)
    assert len(hub.asked) == 1
    assert (tmp_path / "cifar" / "test.txt").read_text() == "corrected by hand\n"
    assert (tmp_path / "dtd" / "test.txt").read_bytes() == LIST
    assert not (tmp_path / "vtab-1k.zip").exists()


@pytest.mark.parametrize("top", ["", "data/vtab-1k/"])
def test_tasks_are_found_however_deep_they_lie(top: str, hub: SimpleNamespace, tmp_path: Path) -> None:
    hub.archive = shared("dtd", top=top)
    fetch_shared(located(tmp_path, "dtd"), tmp_path, SILENT)
    assert (tmp_path / "dtd" / "images" / "1.jpg").read_bytes() == jpeg(1)


def test_macos_shadow_files_are_skipped(hub: SimpleNamespace, tmp_path: Path) -> None:
    files = {f"vtab-1k/cifar/{name}": data for name, data in TASK.items()}
    hub.archive = zipped({"__MACOSX/vtab-1k/cifar/._test.txt": b""} | files)
    fetch_shared(located(tmp_path, "cifar"), tmp_path, SILENT)
    assert names(tmp_path / "cifar") == NAMES


def test_a_task_missing_in_the_archive_is_named(hub: SimpleNamespace, tmp_path: Path) -> None:
    with raises_naming(DataError, tmp_path / "vtab-1k.zip", "svhn"):
        fetch_shared(located(tmp_path, "cifar", "svhn"), tmp_path, SILENT)
    assert names(tmp_path) == {"vtab-1k.zip", *(f"cifar/{name}" for name in NAMES)}


def test_an_archive_that_leads_out_is_refused(hub: SimpleNamespace, tmp_path: Path) -> None:
    hub.archive = zipped({"vtab-1k/cifar/../../../evil": b""})
    with raises_naming(DataError, "vtab-1k.zip", "evil"):
        fetch_shared(located(tmp_path, "cifar"), tmp_path, SILENT)


def test_errors_of_the_hub_are_reported(hub: SimpleNamespace, tmp_path: Path) -> None:
    hub.archive = RuntimeError("401 Client Error")
    with raises_naming(DataError, "RuntimeError: 401 Client Error", tmp_path / "vtab-1k.zip"):
        fetch_shared(located(tmp_path, "cifar"), tmp_path, SILENT)


def test_a_missing_hub_client_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with raises_naming(DataError, 'pip install "vtab-peft[data]"'):
        fetch_shared(located(tmp_path, "cifar"), tmp_path, SILENT)


def test_the_command_takes_the_archive(
    hub: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["data", "fetch", "cifar", "--archive", "--data", str(tmp_path / "vtab-1k")]
    assert main([*arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["cifar", "to", "fetch"]
    assert hub.asked == []
    assert main(arguments) == 0
    assert f"next: vtab-peft data check --suite vtab1k --data {tmp_path / 'vtab-1k'}" in capsys.readouterr().out
    with_fgvc = ["data", "fetch", "cub", "--suite", "fgvc", "--archive", "--data", str(tmp_path)]
    assert main(with_fgvc) == 2
    assert "fgvc/cub" in capsys.readouterr().err
