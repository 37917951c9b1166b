"""Reading folders of images: which entries are images, which are left out, and a count of those.

Names are bytes here, as the file system has them: a file name need not be UTF-8. Nothing is opened, so that a
named pipe called x.jpg cannot stop us; each image costs one `stat`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from striate.errors import DataError, UserError

IMAGE_TYPES = frozenset({b"jpg", b"jpeg", b"png", b"webp", b"gif", b"bmp"})
# Images of a kind that striate does not decode: rare in training sets, and their decoders have a record of holes.
OTHER_IMAGE_TYPES = frozenset(b"tif tiff jp2 j2k jpf jxl avif heic heif svg svgz pdf eps ps psd ico raw cr2 nef arw dng".split())
JUNK = frozenset(
    {b"__MACOSX", b"__pycache__", b"@eaDir", b"lost+found", b"$RECYCLE.BIN", b"System Volume Information"}
    | {b"Thumbs.db", b"thumbs.db", b"desktop.ini", b"Desktop.ini"}
)

Found = tuple[bytes, int, int]  # path, size in bytes, time of change in ns


@dataclass
class Tally:
    """What a reading of folders left out, by kind, for the notes of the index."""

    junk: Counter[bytes] = field(default_factory=Counter)
    other_files: Counter[bytes] = field(default_factory=Counter)
    other_images: Counter[bytes] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)
    first_odd: dict[str, bytes] = field(default_factory=dict)
    images: int = 0
    folders: int = 0

    def note_odd(self, reason: str, where: bytes) -> None:
        """Counts an entry that looks like an image or a folder and is not one; remembers the first of its kind."""
        self.odd[reason] += 1
        self.first_odd.setdefault(reason, where)

    def note_file(self, name: bytes) -> None:
        """Counts a file whose name is not that of an image we read."""
        kind = extension(name)
        (self.other_images if kind in OTHER_IMAGE_TYPES else self.other_files)[kind] += 1

    def take_back(self, name: bytes) -> None:
        """Uncounts a file that was read after all, as a table of boxes beside the folders."""
        self.other_files[extension(name)] -= 1
        self.other_files += Counter()  # drops what is zero

    def notes(self) -> tuple[str, ...]:
        """The counts as sentences; empty where nothing was left out."""
        said = []
        if self.junk:
            said.append(f"ignored {self.junk.total():,} hidden or junk entries ({_counted(self.junk)})")
        if self.other_files:
            kinds = Counter({b"." + kind if kind else b"no extension": n for kind, n in self.other_files.items()})
            said.append(f"ignored {kinds.total():,} files that are not named as images ({_counted(kinds)})")
        if self.other_images:
            kinds = Counter({b"." + kind: n for kind, n in self.other_images.items()})
            said.append(
                f"not read: {kinds.total():,} images of unsupported types ({_counted(kinds)}); convert them to JPEG or PNG"
            )
        said += [f"left out: {n:,} {reason}, the first is {shown(self.first_odd[reason])}" for reason, n in self.odd.items()]
        return tuple(said)


def _counted(kinds: Counter[bytes], most: int = 5) -> str:
    words = [f"{shown(kind, quoted=False)} {n:,}" for kind, n in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join(words[:most]) + (", …" if len(words) > most else "")


def shown(path: bytes | str | Path, quoted: bool = True) -> str:
    """A path for a message: line feeds and bytes that are not UTF-8 are escaped, so that a message stays one line of text."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    text = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
    return f"'{text}'" if quoted else text


def extension(name: bytes) -> bytes:
    """The extension in lower case without its dot; empty where there is none."""
    return name[name.rfind(b".") + 1 :].lower() if b"." in name else b""


def is_junk(name: bytes) -> bool:
    """Whether an entry is hidden, or one that systems and tools leave behind."""
    return name.startswith(b".") or name in JUNK


@dataclass
class Listing:
    """One folder: its subfolders and its images, both sorted by name, without junk."""

    folders: list[bytes]
    images: list[Found]  # paths are names here


def look(folder: Path | bytes, tally: Tally, ancestors: tuple[tuple[int, int], ...] | None = None) -> Listing:
    """Reads one folder.

    ancestors: (device, inode) of the folders above that a link must not lead back to; None follows no link to a folder.
    What is left out is counted in `tally`. Raises UserError when the folder must not be read, DataError when it cannot.
    """
    place = os.fsencode(folder)
    listing = Listing([], [])
    folders, images = listing.folders, listing.images
    junk, kinds = JUNK, IMAGE_TYPES
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == 46 or name in junk:  # 46 is the dot of a hidden entry
                    tally.junk[name] += 1
                elif name[name.rfind(b".") + 1 :].lower() in kinds and b"." in name:
                    found = entry.stat() if not entry.is_symlink() else _target(entry, tally)
                    if found is None:
                        continue
                    if stat.S_ISREG(found.st_mode):
                        images.append((name, found.st_size, found.st_mtime_ns))
                    elif stat.S_ISDIR(found.st_mode):
                        _note_folder(entry, found, folders, tally, ancestors)
                    else:
                        tally.note_odd(_KINDS.get(stat.S_IFMT(found.st_mode), "entries that are no files"), entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif entry.is_symlink():
                    found = _target(entry, tally)
                    if found is not None and stat.S_ISDIR(found.st_mode):
                        _note_folder(entry, found, folders, tally, ancestors)
                    elif found is not None:
                        tally.note_file(name)
                else:
                    tally.note_file(name)
    except OSError as error:
        raise unreadable(error, error.filename or place) from error
    folders.sort()
    images.sort()
    tally.images += len(images)
    tally.folders += len(folders)
    return listing


_KINDS = {stat.S_IFIFO: "named pipes", stat.S_IFSOCK: "sockets", stat.S_IFCHR: "devices", stat.S_IFBLK: "devices"}


def _target(entry: os.DirEntry[bytes], tally: Tally) -> os.stat_result | None:
    """What a link points to; None, counted, where it points nowhere or round in a circle."""
    try:
        return entry.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            tally.note_odd("links that lead round in a circle", entry.path)
        elif error.errno in {errno.ENOENT, errno.ENOTDIR}:
            tally.note_odd("links to nothing", entry.path)
        elif error.errno in {errno.EACCES, errno.EPERM}:
            tally.note_odd("links to where there is no permission", entry.path)
        else:
            raise
        return None


def _note_folder(
    entry: os.DirEntry[bytes],
    found: os.stat_result,
    folders: list[bytes],
    tally: Tally,
    ancestors: tuple[tuple[int, int], ...] | None,
) -> None:
    """Takes a subfolder, unless it is a link that may not be followed."""
    if not entry.is_symlink():
        folders.append(entry.name)
    elif ancestors is None:
        tally.note_odd("links to folders within a class, not followed", entry.path)
    elif (found.st_dev, found.st_ino) in ancestors:
        tally.note_odd("links that lead back to a folder above", entry.path)
    else:
        folders.append(entry.name)


def identity(folder: Path | bytes) -> tuple[int, int]:
    """(device, inode): the same folder however it is reached."""
    try:
        found = os.stat(folder)
    except OSError as error:
        raise unreadable(error, folder) from error
    return found.st_dev, found.st_ino


def below(folder: bytes, prefix: bytes, tally: Tally) -> list[Found]:
    """All images in a folder and its subfolders, sorted by path, each path with `prefix` (ends with a slash, or empty).

    Links to folders are not followed here: one to "/" would index the whole machine.
    """
    top = look(folder, tally)
    found = [(prefix + name, size, mtime) for name, size, mtime in top.images]
    waiting = [(folder + b"/" + name, prefix + name + b"/") for name in top.folders]
    while waiting:
        place, where = waiting.pop()
        listing = look(place, tally)
        found += [(where + name, size, mtime) for name, size, mtime in listing.images]
        waiting += [(place + b"/" + name, where + name + b"/") for name in listing.folders]
    if top.folders:
        found.sort()
    return found


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Within the block an OSError (a folder that may be listed but not entered, a failing disk) becomes an error with words."""
    try:
        yield
    except OSError as error:
        raise unreadable(error, error.filename or path) from error


def unreadable(error: OSError, path: bytes | str | Path) -> UserError | DataError:
    """The error for a folder or file that the system would not let us read."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return UserError(
            f"{shown(path)}: no permission to read it ({reason}). Change its rights (chmod -R u+rX), or read it as its owner."
        )
    if error.errno == errno.ENOENT:
        return DataError(
            f"{shown(path)}: vanished while the data was being indexed ({reason}). Is something still writing to it?"
        )
    return DataError(f"{shown(path)}: cannot be read ({reason}).")
