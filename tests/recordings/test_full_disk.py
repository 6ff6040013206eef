"""A disk that is really full: a small file system of its own, for a folder of the importer."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from scalelite.errors import RecordingNotMoved
from scalelite.flows import recordings
from tests.recordings.conftest import recorded
from tests.recordings.test_changes import FORMATS, change

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.recordings.conftest import Desk

SIZE: Final = 512 << 10
LARGE: Final = f"podcast/{recorded().record_id}/large.bin"


@contextmanager
def small(folder: Path) -> Iterator[Path]:
    """Mount a file system of half a megabyte there; yields a file in it that takes up nearly all of it."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=True)
    try:
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(SIZE - (32 << 10)))
        yield ballast
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.needs("mount -t tmpfs")
@pytest.mark.shows("RE-1", "issue F: a disk that is full")
@pytest.mark.parametrize("full", ["work", "published"])
async def test_an_archive_waits_while_a_disk_is_full(desk: Desk, full: str) -> None:
    with small(desk.folder / full) as ballast:
        archive = desk.send(recorded(), FORMATS, replaced={LARGE: bytes(64 << 10)})
        (outcome,) = await desk.run()
        assert "No space left" in outcome.waits
        assert archive.exists()
        assert await desk.listed() == []
        ballast.unlink()
        (outcome,) = await desk.run()
        assert outcome.imported == (recorded().record_id,)
        assert not await desk.problems()
        assert not archive.exists()


@pytest.mark.needs("mount -t tmpfs")
@pytest.mark.shows("RE-1", "issue F: a disk that is full", "recordings: publishRecordings")
async def test_a_recording_stays_whole_while_the_disk_that_it_is_to_go_to_is_full(desk: Desk) -> None:
    desk.send(recorded(), FORMATS, replaced={LARGE: bytes(64 << 10)})
    await desk.run()
    with small(desk.folder / "unpublished") as ballast:
        with pytest.raises(RecordingNotMoved):
            await change(desk.services, recorded().record_id, "unpublished")
        assert not await desk.problems()
        assert (desk.folder / "published" / LARGE).exists()
        ballast.unlink()
        await recordings.repair(desk.services)
        (found,) = await desk.listed()
        assert found.state == "unpublished"
        assert (desk.folder / "unpublished" / LARGE).exists()
        assert desk.files("published") == []
