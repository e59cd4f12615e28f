"""Check that a file is complete: checksums of gzip and zlib, and sizes that headers claim."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

__all__ = ["DAMAGED", "GZIP_MAGIC", "LARGEST_RATIO", "claim", "damage", "unpacked"]

# Raised by `unpacked`.
DAMAGED = (zlib.error, EOFError)
GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot do better: 258 bytes from 2 bits, see RFC 1951 and zlib's technical details.
LARGEST_RATIO = 1032
EITHER_FORMAT = 47  # zlib's manual, inflateInit2: 32 to detect gzip or zlib, 15 for the largest window
PIECE_BYTES = 2**18


def unpacked(file: BinaryIO) -> Iterator[bytes]:
    """Yield the unpacked bytes of a gzip or zlib stream from the current position of a file, piece by piece.

    As in `gzip`, consecutive members form one stream, and other bytes after the end are ignored.

    Raises:
        zlib.error: it cannot be unpacked, or its checksum or length, which come last, is wrong.
        EOFError: it is cut short.
    """
    packed = file.read(PIECE_BYTES)
    while True:
        member = zlib.decompressobj(EITHER_FORMAT)
        while not member.eof:
            if not packed:
                raise EOFError("it is cut short")
            yield member.decompress(packed)
            packed = member.unused_data if member.eof else file.read(PIECE_BYTES)
        packed += file.read(PIECE_BYTES)
        if not packed.startswith(GZIP_MAGIC):
            return


def damage(error: Exception) -> str:
    """Describe an error of `unpacked`, for a message."""
    if isinstance(error, EOFError):
        return "it is cut short"
    return "its checksum is wrong" if " check" in str(error) else "it cannot be unpacked"


def claim(path: Path, shape_ijk: Sequence[int], fault: str) -> str:
    """The message for a header that claims more voxels than there are."""
    size = " x ".join(map(str, shape_ijk))
    return f"{path} cannot be read: its header claims {size} voxels, but {fault}; copy or convert it again."
