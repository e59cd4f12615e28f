"""Pack models as zip files, install them after all files are verified, and remove them."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from ..errors import ModelError, OutputError
from ..system.files import UNZIP_ERRORS, check_writable, exists, staged
from .bundle import check_name
from .folder import MODEL_FILES, LiverModel, open_model
from .store import model_folders

__all__ = ["install_model", "is_own", "pack_model", "remove_model"]

LARGEST_FILE_BYTES = 500 * 2**20


def pack_model(model: LiverModel, path: Path, *, overwrite: bool = False) -> None:
    """Verify a model and write it as a zip, completely or not at all.

    Raises:
        ModelError: its weights were changed.
        OutputError: the file exists or cannot be written.
    """
    check_writable(path, overwrite=overwrite)
    model.verify()
    with staged(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in model.files():
            archive.write(model.folder / name, f"{model.card.name}/{name}")


def install_model(source: Path, *, overwrite: bool = False) -> LiverModel:
    """Copy a model from a zip or a folder to the user's own models.

    Nothing in it is executed. All files are checked before anything is installed: the checksums, that the
    weights hold no code, and that they fit the network.

    Raises:
        ModelError: the source is not a model, is damaged, or is a zip with other files.
        OutputError: a model of that name is bundled or installed, or the folder cannot be written.
    """
    if not exists(source, ModelError):
        raise ModelError(f"{source} does not exist.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = source if source.is_dir() else _unpack(source, Path(scratch) / "model")
        model = open_model(folder)
        check_name(model.card.name)
        model.check()
        missing = [name for name in model.files() if not (folder / name).is_file()]
        if missing:
            raise ModelError(f"{source} lacks {', '.join(missing)}; pack the model again.")
        *bundled, own = model_folders()
        target = own / model.card.name
        if any((parent / model.card.name).exists() for parent in bundled):
            raise OutputError(
                f"{model.card.name} is the name of a bundled model, which would be used instead; "
                "export yours under another name."
            )
        if target.exists() and not overwrite:
            raise OutputError(
                f"A model {model.card.name} is already installed in {target}; remove it first, or allow replacing it."
            )
        with staged(target) as temporary:
            for name in model.files():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, temporary / name)
    return open_model(target)


def is_own(name: str) -> bool:
    """Whether the user's own models have a folder of that name, broken or not; only those can be removed."""
    return bool(name.strip(".")) and Path(name).name == name and (model_folders()[-1] / name).is_dir()


def remove_model(name: str) -> Path:
    """Delete one of the user's own models, broken or not; return its folder.

    Raises:
        ModelError: the user has no model of that name.
        OutputError: it cannot be deleted.
    """
    own = model_folders()[-1]
    folder = own / name
    if not is_own(name):
        raise ModelError(f"There is no model {name!r} among your own in {own}; bundled models cannot be removed.")
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(f"{folder} could not be removed ({error.strerror}).") from error
    return folder


def _unpack(path: Path, folder: Path) -> Path:
    """Extract the files of a model from a zip, from any folder in it; refuse all other files."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.is_dir():
                    continue
                target = folder / _member(entry, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("xb") as copy:
                    shutil.copyfileobj(source, copy)
    except UNZIP_ERRORS as error:
        raise ModelError(f"{path} is not a usable zip ({error}).") from error
    return folder


def _member(entry: zipfile.ZipInfo, path: Path) -> str:
    """The file of a model that an entry holds."""
    name = PurePosixPath(entry.filename.replace("\\", "/"))
    kind = stat.S_IFMT(entry.external_attr >> 16)
    inside = next((known for known in MODEL_FILES if name.parts[-2:] == PurePosixPath(known).parts), None)
    if ".." in name.parts or name.is_absolute() or kind not in (0, stat.S_IFREG) or len(name.parts) > 3 or not inside:
        raise ModelError(f"{path} holds {entry.filename!r}, which is not a file of a model; nothing was installed.")
    if entry.file_size > LARGEST_FILE_BYTES:
        raise ModelError(
            f"{entry.filename} in {path} is larger than {LARGEST_FILE_BYTES >> 20} MiB; nothing was installed."
        )
    return inside
