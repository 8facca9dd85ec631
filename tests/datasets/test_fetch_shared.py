"""Tests of fetching the shared vtab-1k archive through the hub's client."""

import inspect
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fileserver import zipped
from raises import raises_naming
from vtab_peft.benchmark.cli import main
from vtab_peft.datasets import fetch as module
from vtab_peft.datasets.download import ProgressFn
from vtab_peft.datasets.fetch import fetch_shared
from vtab_peft.datasets.official import VTAB1K
from vtab_peft.datasets.task import DataError, Task
from vtab_peft.datasets.tasks import find

LIST = b"images/1.jpg 0\n"
TASK = {"test.txt": LIST, "train800.txt": LIST, "val200.txt": LIST, "images/1.jpg": b"jpeg"}


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

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=hf_hub_download))
    return hub


def shared(*tasks: str, top: str = "vtab-1k/") -> bytes:
    return zipped({f"{top}{task}/{name}": data for task in tasks for name, data in TASK.items()})


def located(data: Path, *wanted: str) -> list[Task]:
    return find(list(wanted), "vtab1k", data)


def test_the_hub_is_asked_for_the_archive_as_a_data_set(hub: SimpleNamespace, tmp_path: Path) -> None:
    assert fetch_shared(located(tmp_path, "cifar"), tmp_path, SILENT) == ["cifar"]
    asked = {"repo_id": "XiN0919/VTAB-1k", "filename": "vtab-1k.zip", "repo_type": "dataset", "local_dir": tmp_path}
    assert hub.asked == [asked]
    assert names(tmp_path) == {"vtab-1k.zip", *(f"cifar/{name}" for name in TASK)}


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
    assert (tmp_path / "dtd" / "images" / "1.jpg").read_bytes() == b"jpeg"


def test_macos_shadow_files_are_skipped(hub: SimpleNamespace, tmp_path: Path) -> None:
    hub.archive = zipped({"__MACOSX/vtab-1k/cifar/._test.txt": b"", "vtab-1k/cifar/test.txt": LIST})
    fetch_shared(located(tmp_path, "cifar"), tmp_path, SILENT)
    assert names(tmp_path / "cifar") == {"test.txt"}


def test_a_task_missing_in_the_archive_is_named(hub: SimpleNamespace, tmp_path: Path) -> None:
    with raises_naming(DataError, tmp_path / "vtab-1k.zip", "svhn"):
        fetch_shared(located(tmp_path, "cifar", "svhn"), tmp_path, SILENT)
    assert names(tmp_path) == {"vtab-1k.zip"}


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
