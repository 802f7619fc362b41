"""Files that are complete or not there."""

import contextlib
import os
from pathlib import Path


def free(path, overwrite) -> Path:
    """The path of a file that may be written.

    Raises:
        FileExistsError: it exists and is not to be overwritten.
    """
    path = Path(path)
    if path.exists() and not path.is_dir() and not overwrite:
        raise FileExistsError(
            f"There is a file already. Received: {path}. Name another, or use overwrite=True."
        )
    return path


@contextlib.contextmanager
def written(path, mode="wb"):
    """Opens a file beside `path`, which becomes `path` when the block has ended without an error.

    So a file of this name is always complete; a failure leaves what was there before.

    Args:
        path: where the file goes; its folder must exist.
        mode: "wb" or "w", which writes UTF-8.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: `path` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"A file is wanted, and this is a folder. Received: {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"There is no folder {path.parent}. Received: {path}. Make the folder first."
        )
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
