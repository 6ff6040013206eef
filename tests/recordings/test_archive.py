"""Hostile archives: none of them writes outside its folder, and each is refused for the right reason."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any, Final

import pytest

from scalelite.edge.archive import Limits, unpack
from scalelite.edge.disk import Disk
from scalelite.errors import ArchiveIncomplete, RecordingInvalid

if TYPE_CHECKING:
    from pathlib import Path

    from tests.recordings.conftest import Desk

ID: Final = f"{1:040x}-1700000100000"
INSIDE: Final = f"presentation/{ID}"


def member(name: str, content: bytes = b"x", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def archive(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return buffer.getvalue()


def link(name: str, target: str, kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, b"", type=kind, linkname=target)


def with_size(size: int) -> bytes:
    """A file whose header claims a size that is not there; negative sizes send some readers back."""
    info = tarfile.TarInfo(f"{INSIDE}/a")
    info.size = abs(size)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (
        (b"\x80" + size.to_bytes(11, "big")) if size >= 0 else b"\xff" + size.to_bytes(11, "big", signed=True)
    )
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(10240)


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr(f"{INSIDE}/a", bytes(10240))
    return buffer.getvalue()


LONG_HEADER: Final = member("././@LongLink", b"", type=tarfile.GNUTYPE_LONGNAME)[0]

HOSTILE: Final = {
    "absolute": archive(member("/etc/passwd")),
    "absolute in a format": archive(member(f"//{INSIDE}/a")),
    "parent": archive(member(f"{INSIDE}/../../../a")),
    "parent first": archive(member(f"../{INSIDE}/a")),
    "parent as format": archive(member(f"../../{ID}/a")),
    "dot inside": archive(member(f"{INSIDE}/./a")),
    "empty part": archive(member(f"{INSIDE}//a")),
    "backslash": archive(member(f"{INSIDE}/..\\a")),
    "control character": archive(member(f"{INSIDE}/a\nb")),
    "not UTF-8": archive(member(f"{INSIDE}/a\udcff")),
    "too long a name": archive(member(f"{INSIDE}/{'a' * 300}")),
    "too long a path": archive(member(f"{INSIDE}/{'/'.join(['a' * 100] * 12)}")),
    "too deep": archive(member(f"{INSIDE}/{'/'.join('a' * 40)}")),
    "file at the top": archive(member("a")),
    "file as recording": archive(member(INSIDE)),
    "record id with a dot": archive(member("presentation/a.b/a")),
    "record id too long": archive(member(f"presentation/{'a' * 129}/a")),
    "symbolic link": archive(link(f"{INSIDE}/a", "/etc/passwd", tarfile.SYMTYPE)),
    "symbolic link and a file through it": archive(
        link(f"{INSIDE}/a", "/tmp", tarfile.SYMTYPE), member(f"{INSIDE}/a/b")
    ),
    "hard link": archive(link(f"{INSIDE}/a", "/etc/passwd", tarfile.LNKTYPE)),
    "link as recording": archive(link(INSIDE, "/etc", tarfile.SYMTYPE)),
    "character device": archive(member(f"{INSIDE}/a", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3)),
    "block device": archive(member(f"{INSIDE}/a", b"", type=tarfile.BLKTYPE)),
    "fifo": archive(member(f"{INSIDE}/a", b"", type=tarfile.FIFOTYPE)),
    "sparse": archive(
        member(f"{INSIDE}/a", b"x", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.name": "a"}),
        format=tarfile.PAX_FORMAT,
    ),
    "twice": archive(member(f"{INSIDE}/a"), member(f"{INSIDE}/a")),
    "a file and a folder": archive(member(f"{INSIDE}/a"), member(f"{INSIDE}/a/b")),
    "a folder and a file": archive(member(f"{INSIDE}/a/b"), member(f"{INSIDE}/a")),
    "negative size": with_size(-512),
    "path in a pax header": archive(member(f"{INSIDE}/a", pax_headers={"path": "../../a"}), format=tarfile.PAX_FORMAT),
    "huge pax header": archive(
        member(f"{INSIDE}/a", pax_headers={"comment": "x" * (2 << 20)}), format=tarfile.PAX_FORMAT
    ),
    "headers for headers": LONG_HEADER.tobuf(tarfile.GNU_FORMAT) * 5000 + bytes(10240),
    "size in a pax header": archive(member(f"{INSIDE}/a", pax_headers={"size": "-5"}), format=tarfile.PAX_FORMAT),
    "huge size in a pax header": archive(
        member(f"{INSIDE}/a", pax_headers={"size": "9" * 30}), format=tarfile.PAX_FORMAT
    ),
    "NUL in a pax header": archive(
        member(f"{INSIDE}/a", pax_headers={"path": f"{INSIDE}/a\0b"}), format=tarfile.PAX_FORMAT
    ),
    "right to left": archive(member(f"{INSIDE}/a\u202eb")),
    "contiguous file": archive(member(f"{INSIDE}/a", type=tarfile.CONTTYPE)),
    "unknown type": archive(member(f"{INSIDE}/a", b"", type=b"Z")),
    "file that ends as a folder": archive(member(f"{INSIDE}/a/")),
    "zip": zipped(),
    "compressed": b"\x1f\x8b" + bytes(2000),
    "no archive": b"not a tar archive, but long enough" * 100,
    "garbage in between": archive(member(f"{INSIDE}/a"))[:1024] + b"?" * 1024 + bytes(10240),
}


@pytest.mark.shows("RE-4", "recordings: archives are hostile", "issue F: hostile archives")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_and_write_nothing_outside(name: str, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "down" / "target"
    with pytest.raises(RecordingInvalid):
        unpack(io.BytesIO(HOSTILE[name]), target, Disk())
    outside = [path for path in tmp_path.rglob("*") if not path.is_relative_to(target) and path not in target.parents]
    assert not outside
    assert not any(path.is_symlink() for path in target.rglob("*"))


@pytest.mark.shows("RE-4", "issue F: hostile archives")
@pytest.mark.parametrize("size", [1 << 40, (1 << 62) + 7], ids=str)
def test_a_size_that_is_only_claimed_is_not_believed(size: int, tmp_path: Path) -> None:
    with pytest.raises((RecordingInvalid, ArchiveIncomplete)):
        unpack(io.BytesIO(with_size(size)), tmp_path / "target", Disk())


@pytest.mark.shows("RE-4", "recordings: archives are hostile")
def test_bounds_hold(tmp_path: Path) -> None:
    many = archive(*(member(f"{INSIDE}/{number}") for number in range(20)))
    for place, limits in enumerate((Limits(bytes=19), Limits(members=19))):
        with pytest.raises(RecordingInvalid):
            unpack(io.BytesIO(many), tmp_path / str(place), Disk(), limits)
    assert unpack(io.BytesIO(many), tmp_path / "fits", Disk(), Limits(bytes=20, members=20))


@pytest.mark.shows("RE-4", "recordings: archives are hostile")
def test_modes_and_owners_are_not_taken_over(tmp_path: Path) -> None:
    content = archive(
        member(f"{INSIDE}/", b"", type=tarfile.DIRTYPE, mode=0o7777),
        member(f"{INSIDE}/a", mode=0o6777, uid=12345),
        member(f"{INSIDE}/b", mode=0o000),
    )
    (found,) = unpack(io.BytesIO(content), tmp_path / "target", Disk())
    assert {path.name: path.stat().st_mode & 0o7777 for path in found.folder.iterdir()} == {"a": 0o644, "b": 0o644}
    assert found.folder.stat().st_mode & 0o7000 == 0
    assert (found.folder / "a").stat().st_uid != 12345


@pytest.mark.shows("RE-4", "RE-1")
async def test_a_hostile_archive_is_set_aside_and_the_others_go_on(desk: Desk) -> None:
    (desk.spool / "a.tar").write_bytes(HOSTILE["symbolic link and a file through it"])
    (desk.spool / "b.tar").write_bytes(
        archive(member(f"{INSIDE}/metadata.xml", b"<!DOCTYPE r [<!ENTITY e 'x'>]><recording/>"))
    )
    (desk.spool / "c.tar").write_bytes(archive())
    (desk.spool / "d.tar").write_bytes(archive(member(f"statistics/{ID}/metadata.xml", b"<recording/>")))
    (desk.spool / "e.tar").symlink_to("/etc/passwd")
    outcomes = {outcome.archive: outcome.failed for outcome in await desk.run()}
    assert outcomes.keys() == {"a.tar", "b.tar", "c.tar", "d.tar"}
    assert all(outcomes.values())
    assert "DTD" in outcomes["b.tar"][0]
    assert desk.files("published") == []
    assert desk.files("work") == []
    assert len(desk.files("spool/failed")) == 8
