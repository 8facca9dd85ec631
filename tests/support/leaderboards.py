"""Leaderboards of a test's store, the 19 tasks of VTAB-1k, and a name that tries to break tables."""

from vtab_peft.benchmark.reporting.leaderboard_id import by_leaderboard
from vtab_peft.benchmark.reporting.leaderboards import Leaderboard, leaderboard
from vtab_peft.benchmark.storage.schema import Run
from vtab_peft.benchmark.storage.store import Store

HOSTILE = "a|b_c&d\n$x^2$ 100% {#} ~ \\input{/etc/passwd} **bold** `code` [link](http://x) <script>alert(1)</script>"

# Independent of the project's task table; order of https://arxiv.org/abs/1910.04867.
NATURAL = ["cifar", "caltech101", "dtd", "oxford_flowers102", "oxford_iiit_pet", "svhn", "sun397"]
SPECIALIZED = ["patch_camelyon", "eurosat", "resisc45", "diabetic_retinopathy"]
STRUCTURED = [
    *("clevr_count", "clevr_dist", "dmlab", "kitti"),
    *("dsprites_loc", "dsprites_ori", "smallnorb_azi", "smallnorb_ele"),
]
VTAB = {
    **dict.fromkeys(NATURAL, "natural"),
    **dict.fromkeys(SPECIALIZED, "specialized"),
    **dict.fromkeys(STRUCTURED, "structured"),
}


def leaderboards(store: Store) -> list[Leaderboard]:
    return [leaderboard(board, runs) for board, runs in by_leaderboard(store.load_runs()[0])]


def only_with_runs(store: Store) -> tuple[Leaderboard, list[Run]]:
    ((board, runs),) = by_leaderboard(store.load_runs()[0])
    return leaderboard(board, runs), runs


def only(store: Store) -> Leaderboard:
    return only_with_runs(store)[0]


def put_vtab(put, method="lora", skip=(), accuracy=lambda place: place / 100, **facts):
    for place, (name, group) in enumerate(VTAB.items()):
        if name not in skip:
            suite = {"suite": "vtab1k", "provenance": "lossless", "group": group}
            put(name, method, 0, accuracy(place), **suite | facts)
