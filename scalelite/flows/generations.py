"""Generations of files in the storage: which are tried where rows are made anew, and which are swept up.

An import that was killed leaves one that no row counts, and one that could not remove the former one leaves that.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from scalelite.store import imports

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from scalelite.edge.folders import Place
    from scalelite.flows.services import Services
    from scalelite.store.imports import Files

log = logging.getLogger(__name__)

AT_ONCE: Final = 100


def batches(places: Iterable[Place]) -> Iterator[dict[str, list[Place]]]:
    """Yield the places by record id, of so many recordings at a time."""
    found: dict[str, list[Place]] = {}
    for place in places:
        found.setdefault(place.record_id, []).append(place)
    ids = sorted(found)
    for start in range(0, len(ids), AT_ONCE):
        yield {record_id: found[record_id] for record_id in ids[start : start + AT_ONCE]}


def in_order(places: Sequence[Place], files: Files) -> dict[str, list[Place]]:
    """Return the places of one recording by format, the one that counts first, and then from the newest on."""
    found: dict[str, list[Place]] = {}
    for place in sorted(places, key=lambda each: each.generation, reverse=True):
        found.setdefault(place.format, []).append(place)
    for format_name, each in found.items():
        each.sort(key=lambda place: place.generation != files.generations.get(format_name))
    return found


async def sweep(services: Services, before_s: float) -> int:
    """Remove the generations that were begun before that time (seconds since 1970) and do not count; returns how many.

    What no row knows stays: rows that are lost are made anew from the files.
    """
    places = await services.recordings.places()
    if not any(place.generation for place in places):
        return 0
    swept = 0
    for batch in batches(places):
        async with services.database.use() as connection:
            rows = await imports.files_of(connection, list(batch))
        for record_id, files in rows.items():
            for place in _uncounted(batch[record_id], files, before_s):
                await services.recordings.discard(record_id, place.format, place.generation)
                swept += 1
    if swept:
        log.info("%d old generations of files are removed", swept)
    return swept


def _uncounted(places: Sequence[Place], files: Files, before_s: float) -> Iterator[Place]:
    """Yield what may go: of recordings that are deleted, and where the generation that counts is there, too."""
    counted = {place.format for place in places if files.generations.get(place.format) == place.generation}
    for place in places:
        counts = files.generations.get(place.format) == place.generation
        may_go = files.state == "deleted" or place.format in counted
        if may_go and not counts and _began_s(place.generation) < before_s:
            yield place


def _began_s(generation: str) -> float:
    """Return when a generation was begun: its name starts with that, in milliseconds; one without a name is old."""
    began_ms = generation.partition("-")[0]
    return int(began_ms) / 1000 if began_ms.isdecimal() else 0.0
