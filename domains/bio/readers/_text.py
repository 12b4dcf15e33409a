"""Bytes of a user's file to text, under caps and with every repair stated."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from core.errors import UserError
from domains.base import named

SIZE_CAP = 1 << 30
# Real sequence files shrink by 3 to 50 times; below the slack a ratio says nothing.
RATIO_CAP = 200
RATIO_SLACK = 1 << 22
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_ARCHIVES = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_BOM = b"\xef\xbb\xbf"


def head(path: str | Path, size: int = 1 << 14) -> str:
    """The beginning of the text, for recognising a format; "" where there is none to read."""
    try:
        with open(path, "rb") as file:
            start = file.read(size)
        if start.startswith(_GZIP):
            start = zlib.decompressobj(wbits=31).decompress(start, size)
    except (OSError, zlib.error):
        return ""
    return start.removeprefix(_BOM).decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n").lstrip()


def read_text(path: str | Path, encoding: str = "utf-8") -> tuple[str, list[str]]:
    """The whole text with `\\n` line ends, and statements about how it was obtained.

    Raises `UserError` for a file that is missing, empty, an archive, truncated, too large, in
    another encoding than the one declared, or a web page.
    """
    statements: list[str] = []
    raw = _content(Path(path), statements)
    _refuse_archive(path, raw)
    if raw.startswith(_BOM):
        raw = raw[len(_BOM) :]
        statements.append("a UTF-8 byte order mark was removed")
    text = _decode(path, raw, encoding)
    if encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
        statements.append(f"decoded as {encoding}, as told")
    if "\0" in text:
        raise UserError(f"{named(path)}: NUL bytes: this is a binary file, not text")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        statements.append("line ends were CRLF or CR")
    if not text.strip():
        raise UserError(f"{named(path)}: the file is empty")
    if text.lstrip()[:200].lower().startswith(("<!doctype", "<html", "<?xml")):
        raise UserError(f"{named(path)}: this is a web page, not sequences: download the raw file instead")
    return text, statements


def _content(path: Path, statements: list[str]) -> bytes:
    if path.is_dir():
        raise UserError(f"{named(path)}: this is a folder: name one file in it")
    try:
        size = path.stat().st_size
        if size > SIZE_CAP:
            raise UserError(
                f"{named(path)}: {size} bytes, more than the {SIZE_CAP} that are read at once: split the file"
            )
        with open(path, "rb") as file:
            start = file.read(2)
            if start != _GZIP:
                return start + file.read()
    except OSError as error:
        raise UserError(f"{named(path)}: {error.strerror or error}") from None
    statements.append("decompressed from gzip")
    return _gunzip(path, size)


def _gunzip(path: Path, size: int) -> bytes:
    limit = min(SIZE_CAP, max(RATIO_SLACK, size * RATIO_CAP))
    pieces: list[bytes] = []
    total = 0
    try:
        with gzip.open(path, "rb") as file:
            while piece := file.read(_CHUNK):
                total += len(piece)
                if total > limit:
                    raise UserError(
                        f"{named(path)}: unpacks to more than {limit} bytes: unpack it yourself if that is meant"
                    )
                pieces.append(piece)
    except EOFError:
        raise UserError(f"{named(path)}: the gzip file is truncated: download it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{named(path)}: the gzip file is damaged ({error}): download it again") from None
    return b"".join(pieces)


def _refuse_archive(path: str | Path, raw: bytes) -> None:
    kind = next((name for magic, name in _ARCHIVES.items() if raw.startswith(magic)), None)
    if raw[257:262] == b"ustar":
        kind = "tar"
    elif raw.startswith(_GZIP):
        kind = "twice compressed gzip"
    if kind is not None:
        raise UserError(f"{named(path)}: this is a {kind} archive: unpack it and name one file of it")


def _decode(path: str | Path, raw: bytes, encoding: str) -> str:
    try:
        return raw.decode(encoding)
    except LookupError:
        raise UserError(f"{named(path)}: unknown encoding {encoding!r}") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        place = f"byte {error.start} (line {line})"
        raise UserError(
            f"{named(path)}: not {encoding} at {place}: declare the right one, such as encoding=latin-1"
        ) from None
    except ValueError as error:
        raise UserError(f"{named(path)}: cannot be decoded as {encoding}: {error}") from None
