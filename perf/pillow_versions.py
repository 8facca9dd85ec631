"""Compare the pixels of task folders under the installed Pillow and another version.

    pip install --target OLD --no-deps pillow==12.3.0
    python perf/pillow_versions.py --other OLD TASK_FOLDER...

Every listed image is decoded, and resized to 224 pixels if it is larger than images that the device resizes, by both
versions.  Writes perf/results/pillow_versions.json: for each task the images, those that the versions decode or resize
differently, and the stored runs by the version that they recorded.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

SIZE = 224
"""Side of the model's input in the stored runs on photos."""
NATIVE_LIMIT = 96
"""Largest side of images that the device resizes (datasets/cache.py)."""


def digests(folders: list[str]) -> dict[str, Any]:
    """Return, for each task, the hashes of all images as decoded and as resized.  Needs Pillow alone."""
    import PIL
    from PIL import Image

    found: dict[str, Any] = {"pillow": PIL.__version__, "tasks": {}}
    for folder in map(Path, folders):
        lines = [line for name in ("train800", "val200", "test") for line in (folder / f"{name}.txt").open()]
        hashes = []
        for file in (line.rsplit(maxsplit=1)[0] for line in lines):
            with Image.open(folder / file) as image:
                decoded = image.convert("RGB")
            small = max(decoded.size) <= NATIVE_LIMIT
            resized = decoded if small else decoded.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            hashes.append([hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in (decoded, resized)])
        found["tasks"][folder.name] = hashes
    return found


def compare(folders: list[str], other: Path) -> dict[str, Any]:
    """Return the counts of `perf/results/pillow_versions.json`."""
    from vtab_peft.benchmark.storage.store import Store

    command = [sys.executable, __file__, "--digests", *folders]
    texts = [
        subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True, capture_output=True).stdout
        for path in (os.environ.get("PYTHONPATH", ""), str(other))
    ]
    new, old = map(json.loads, texts)
    runs, _ = Store(Path(__file__).parents[1] / "results").load_runs()
    tasks = {}
    for name, hashes in new["tasks"].items():
        pairs = list(zip(hashes, old["tasks"][name], strict=True))
        versions = Counter(run.provenance["versions"]["pillow"] for run in runs if run.spec.task.name == name)
        tasks[name] = {
            "images": len(pairs),
            "decoded_differently": sum(a[0] != b[0] for a, b in pairs),
            "resized_differently": sum(a[1] != b[1] for a, b in pairs),
            "stored_runs": dict(sorted(versions.items())),
        }
    return {"versions": [new["pillow"], old["pillow"]], "size": SIZE, "tasks": tasks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tasks", nargs="+", metavar="TASK_FOLDER")
    parser.add_argument("--other", type=Path, metavar="FOLDER", help="where another version of Pillow is installed")
    parser.add_argument("--digests", action="store_true", help="only print the hashes of this version, as JSON")
    options = parser.parse_args()
    if options.digests:
        print(json.dumps(digests(options.tasks)))
    elif options.other is None:
        parser.error("--other is needed: a folder with another version of Pillow")
    else:
        import torch
        from measured import save

        save("pillow_versions", compare(options.tasks, options.other), torch.device("cpu"))


if __name__ == "__main__":
    main()
