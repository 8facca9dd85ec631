"""Download weights from the Hugging Face hub."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import BackboneError
from .evaluate import ProgressFn, no_progress

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Files of weights in repositories of the hub; timm's have the first."""

HUB = "hf:"
"""Prefix of `--weights` that names a repository: `hf:OWNER/NAME`, or `hf:OWNER/NAME@REVISION`."""


def download(
    repository: str,
    name: str,
    on_progress: ProgressFn = no_progress,
    revision: str | None = None,
    may_download: bool = True,
) -> Path:
    """Return the file of the weights in a repository, from the local cache if it is there.

    name: of the weights, for messages.  on_progress: called before and after a download.  may_download: False to use
    only the local cache, and never to ask the hub.

    Raises:
        BackboneError: the repository or its file cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    pinned: dict[str, Any] = {} if revision is None else {"revision": revision}
    what = f"downloading weights of {name}"
    files = HUB_FILES if name.startswith(HUB) else HUB_FILES[:1]  # another file would give another run ID
    found = [try_to_load_from_cache(repository, file, **pinned) for file in files]
    cached = [file for file in found if isinstance(file, str)]
    if not may_download:
        if cached:
            return Path(cached[0])
        raise BackboneError(
            f"the weights of {name} are not on this machine, and the name comes from a file; give --backbone {name} "
            f"to download them, or as --weights a file of them, or random[:SEED] if the run was trained on those"
        )
    is_new = not cached
    if is_new:
        on_progress(what, 0, 1)
    reason = f"it has no {' and no '.join(files)}"
    for filename in files:
        try:
            file = Path(hf_hub_download(repository, filename, **pinned))
        except LocalEntryNotFoundError as error:  # offline; the other file may be in the cache
            reason = _first_line(error)
            continue
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, OSError, ValueError) as error:
            reason = _first_line(error)
            break
        if is_new:
            on_progress(what, 1, 1)
        return file
    advice = "Download the weights in another way and pass the file as --weights FILE"
    raise BackboneError(f"cannot download weights of {name} from the hub ({repository}): {reason}. {advice}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def download_address(address: str, on_progress: ProgressFn = no_progress) -> Path:
    """Return the file of the weights at `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`.

    The configuration beside it, which names the number of heads, is downloaded if there is one.

    Raises:
        BackboneError: the address is malformed, or its weights cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download

    repository, _, revision = address.removeprefix(HUB).partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise BackboneError(f"--weights {address}: write hf:OWNER/NAME, or hf:OWNER/NAME@REVISION")
    file = download(repository, address, on_progress, revision or None)
    with suppress(Exception):  # a repository need not have one
        hf_hub_download(repository, "config.json", revision=revision or None)
    return file
