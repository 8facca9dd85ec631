"""The page of four leaderboards in a real browser, opened from disk."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from browser_page import CLOSING, HOSTILE, METHODS
from vtab_peft.benchmark.reporting.report import write
from vtab_peft.benchmark.spec import BackboneRef
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.tasks import suite_tasks

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
AUGREG = BackboneRef(name="vit_base_patch16_224.augreg_in21k", sha256="ab" * 32)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory, fake: SimpleNamespace) -> Path:
    """Store four leaderboards.

    One has six methods on 19 tasks with 3 seeds, of which BitFit lacks a task.  A small one has hostile names.  The
    third has only one complete row, the last procedural images and the most complete rows.
    """
    root = tmp_path_factory.mktemp("browser") / "results"
    store = Store(root)

    def put(task: str, method: str, seed: int, accuracy: float, title: str, group: str, params: int, **facts) -> None:
        record = fake.record(accuracy, title=title, group=group, params=params)
        record["provenance"] |= {"created": "2026-11-25T10:00:00+00:00", "git_sha": "c0ffee" * 6, "git_dirty": False}
        correct = np.arange(4) < 4 * accuracy  # predictions without a fault where the accuracy is 0.5
        store.save(fake.spec(task, method, seed, **facts), record, np.zeros(4, dtype=np.int64), correct)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        for method, (title, params, *levels) in METHODS.items():
            for task in suite_tasks("vtab1k").values():
                level = levels[("natural", "specialized", "structured").index(task.group)]
                for seed in range(3):
                    if (method, task.name) != ("bitfit", "dmlab"):
                        facts = {"suite": "vtab1k", "provenance": "lossless", "recipe": "uniform", "backbone": AUGREG}
                        put(task.name, method, seed, level + 0.01 * seed, title, task.group, params, **facts)
        for title, method in ((HOSTILE, "one"), (CLOSING, "two")):
            put("<b>bold", method, 0, 0.5, title, "<i>group", 10)
            put("cars", method, 0, 0.5, title, "other", 10)
        for number in range(40):
            for task in list(suite_tasks("vtab1k"))[: 4 if number else 5]:
                facts = {"suite": "zoo", "recipe": "smoke", "backbone": BackboneRef(name="toy_vit", sha256="70" * 32)}
                put(task, f"method_{number}", 0, 0.5, f"Method {number}", "other", 10, **facts)
        for method in map(str, range(80)):  # more runs than any other leaderboard, but no photographs
            facts = {"suite": "toy", "provenance": "lossless", "recipe": "toy"}
            for task in ("texture", "cells"):
                put(task, method, 0, 0.5, f"Method {method}", "natural", 10, **facts)
        write(store, root)
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api", reason='pip install "vtab-peft[browser]"')
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, results) -> Iterator:
    """Opens the page; when the test ends, nothing was asked of the network and nothing complained."""
    contexts, complaints = [], []

    def open_page(fragment: str = "", folder: Path = results, **settings):
        contexts.append(browser.new_context(**settings))
        contexts[-1].set_default_timeout(10_000)
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: complaints.append(request.url) if "file:" not in request.url[:5] else None)
        page.goto((folder / "index.html").as_uri() + fragment)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in complaints if not text.startswith("blob:")] == []
