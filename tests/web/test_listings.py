"""Long lists: pages of recordings in a stable order, and the meetings of many servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.web.conftest import Answer, Cluster

RECORDINGS = """
INSERT INTO recording (record_id, tenant, meeting_id, name, state, published, start_ms, end_ms)
SELECT 'r' || lpad(number::text, 6, '0'), t.id, 'room-' || number %% 100, 'Recording', 'published', true,
       number / 3, number + 1
  FROM tenant t, generate_series(1, %s) AS number WHERE t.name = %s
"""
METADATA = """
INSERT INTO recording_metadata (recording, key, value)
SELECT id, 'course', CASE WHEN id % 2 = 0 THEN 'even' ELSE 'odd' END FROM recording
"""


async def record(cluster: Cluster, count: int, tenant: str = "tenant1") -> None:
    """Have so many recordings, of which always three begin at the same time."""
    await cluster.connection.execute(RECORDINGS, (count, tenant))


def ids(answer: Answer) -> list[str]:
    assert answer.succeeded
    return [str(found) for found in answer.root.xpath("recordings/recording/recordID/text()")]


@pytest.mark.shows("CR-14", "recordings: getRecordings")
async def test_pages_of_recordings_join_into_one_list_newest_first(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await record(cluster, 10)
    whole = ids(await service.call("getRecordings"))
    begins = {f"r{number:06}": number // 3 for number in range(1, 11)}
    assert whole == sorted(begins, key=lambda record_id: (-begins[record_id], record_id))
    pages = [await service.call("getRecordings", {"offset": str(offset), "limit": "4"}) for offset in (0, 4, 8, 12)]
    assert [ids(page) for page in pages] == [whole[0:4], whole[4:8], whole[8:10], []]
    assert {page.text("pagination/totalElements") for page in pages} == {"10"}
    assert pages[1].text("pagination/pageable/offset") == "4"
    assert pages[1].text("pagination/pageable/limit") == "4"


@pytest.mark.shows("CR-14")
@pytest.mark.parametrize(("page", "count"), [({"limit": "1000"}, 100), ({"offset": "100"}, 20), ({}, 120)])
async def test_a_page_has_at_most_a_hundred_recordings(cluster: Cluster, page: dict[str, str], count: int) -> None:
    service = await cluster.start(1)
    await record(cluster, 120)
    assert len(ids(await service.call("getRecordings", page))) == count


@pytest.mark.shows("CR-14", "bbb-api: checksum")
async def test_odd_filters_and_pages_match_nothing_or_are_refused(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await record(cluster, 3)
    for params, key, count in (
        ({"offset": "9" * 30}, "noRecordings", 0),
        ({"offset": "-5", "limit": "0"}, "", 1),
        ({"limit": "none"}, "", 3),
        ({"recordID": "%"}, "noRecordings", 0),
        ({"recordID": "_"}, "noRecordings", 0),
        ({"state": "bogus"}, "noRecordings", 0),
        ({"meta_%": "%"}, "noRecordings", 0),
        ({"meta_\0": "x"}, "validationError", 0),
        ({"meta_x": "\0"}, "validationError", 0),
        ({"recordID": "\0"}, "validationError", 0),
        ({"meetingID": "a\nb"}, "validationError", 0),
    ):
        answer = await service.call("getRecordings", params)
        assert (answer.key or "", answer.body.count(b"<recording>")) == (key, count), params


@pytest.mark.shows("RE-9", "recordings: getRecordings")
async def test_a_page_of_fifty_thousand_recordings_is_read_without_a_write(cluster: Cluster) -> None:
    await cluster.start(1)
    await record(cluster, 50_000)
    await cluster.connection.execute(METADATA)
    await cluster.connection.execute("ANALYZE recording, recording_metadata")
    read_only = f"{cluster.conninfo} options='-c default_transaction_read_only=on'"
    service = await cluster.serve(read_only)
    answer = await service.call("getRecordings", {"meta_course": "even", "offset": "200", "limit": "100"})
    assert len(ids(answer)) == 100
    assert answer.text("pagination/totalElements") == "25000"
    assert answer.took_s < 5  # figures are in benchmarks/recordings.py


@pytest.mark.shows("CR-11")
async def test_the_meetings_of_a_hundred_servers_are_one_list(cluster: Cluster) -> None:
    service = await cluster.start(100)
    (row,) = await (await cluster.connection.execute("SELECT id FROM tenant WHERE name = 'tenant1'")).fetchall()
    for place, server in enumerate(cluster.servers):
        for number in range(20):
            server.create_meeting(f"room-{place}-{number}", params={"meta_tenant-id": str(row["id"])})
    answer = await service.call("getMeetings")
    assert len(answer.meeting_ids) == len(set(answer.meeting_ids)) == 2000
    assert answer.took_s < 5  # all servers at once: one after the other would not take less than they do together
    cluster.servers[0].fail("status", calls=["getMeetings"])
    assert len((await service.call("getMeetings")).meeting_ids) == 1980
