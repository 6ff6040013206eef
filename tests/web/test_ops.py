"""Health and metrics, over HTTP: what they tell, to whom, and that they ask no server."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from scalelite.core import commands
from scalelite.core.model import Declared
from scalelite.flows import admin, reconcile
from scalelite.store.specs import Author
from tests.web.conftest import DOMAIN
from tests.web.test_admin import OPS, change

if TYPE_CHECKING:
    from tests.web.conftest import Answer, Cluster, Service

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(answer: Answer) -> Samples:
    """Values by name and labels."""
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.body.decode())
    return {
        (sample.name.removeprefix("scalelite_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


async def scrape(service: Service) -> Samples:
    return samples(await service.send("/metrics"))


def of(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))


@pytest.mark.shows("MO-2", "bbb-api: health")
@pytest.mark.parametrize("path", ["/health_check", "/health/live", "/health/ready"])
async def test_health_is_told_whatever_the_host(cluster: Cluster, path: str) -> None:
    service = await cluster.start(1)
    for host in (DOMAIN, "tenant1." + DOMAIN, "10.0.0.7:3000", "elsewhere.example.com"):
        answer = await service.send(path, host=host)
        assert (answer.status, answer.body) == (200, b"success"), host
    assert (await service.send(path, method="HEAD", host="x")).status == 200


@pytest.mark.shows("MO-2", "bbb-api: health", "data: a worker that starts while Postgres is away is not ready")
async def test_without_postgres_the_service_lives_and_is_not_ready(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await service.app.ctx.proxy.services.database.close()
    assert (await service.send("/health/live")).status == 200
    for path in ("/health_check", "/health/ready"):
        answer = await service.send(path)
        assert answer.status == 503
        assert answer.body.startswith(b"Health Check Failure: ")
    found = await scrape(service)
    assert found[of("database_up")] == 0
    assert of("server_load", server="bbb1") not in found


@pytest.mark.shows("MO-1", "PO-5", "PO-12")
async def test_metrics_tell_of_servers_tenants_queues_and_the_poller_and_ask_no_server(cluster: Cluster) -> None:
    service = await cluster.start(3)
    await service.create("room")
    meeting = cluster.hosts_of("room")[0]
    other, another = (server for server in cluster.servers if server is not meeting)
    meeting.add_users("room", 3)
    other.fail("status")
    another.fail("status")
    await cluster.poll()
    await change(cluster.connection, commands.set_state(other.name, "cordoned"))
    asked = cluster.asked("getMeetings")
    found = await scrape(service)
    assert cluster.asked("getMeetings") == asked
    expected = {
        of("database_up"): 1,
        of("server_meetings", server=meeting.name): 1,
        of("server_users", server=meeting.name): 3,
        of("server_load", server=meeting.name): 15,
        of("server_load", server=other.name): 0,
        of("server_state", server=meeting.name, state="enabled"): 1,
        of("server_state", server=other.name, state="cordoned"): 1,
        of("server_health", server=meeting.name, health="online"): 1,
        of("server_health", server=other.name, health="unhealthy"): 1,
        of("tenant_meetings", tenant="tenant1"): 1,
        of("tenant_users", tenant="tenant1"): 3,
        of("tenant_meetings", tenant="tenant2"): 0,
        of("queue_depth", queue="callback waiting"): 0,
        of("poll_servers"): 3,
        of("poll_failed_servers"): 2,
        of("poll_suspect"): 1,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert 0 < found[of("tasks")] < 100
    assert of("server_state", server=other.name, state="enabled") not in found
    polled = found[of("server_last_poll_timestamp_seconds", server=meeting.name)]
    assert 0 <= found[of("poll_last_cycle_timestamp_seconds")] - polled < 60
    assert 0 < found[of("poll_duration_seconds")] < 60


@pytest.mark.shows("MO-1", "MO-4")
async def test_the_manual_names_every_metric(cluster: Cluster) -> None:
    service = await cluster.start(1)
    manual = (Path(__file__).parents[2] / "docs" / "how-to" / "monitoring.md").read_text()
    told = text_string_to_metric_families((await service.send("/metrics")).body.decode())
    families = [family.name for family in told if not family.name.endswith("_created")]
    names = {name.removeprefix("scalelite_") for name in families if name.startswith("scalelite_")}
    assert {"server_load", "requests", "poll_suspect"} <= names
    assert [name for name in sorted(names) if f"`{name}`" not in manual and f"`{name}_total`" not in manual] == []


@pytest.mark.shows("MO-1", "DE-10")
async def test_drift_is_counted(cluster: Cluster) -> None:
    service = await cluster.start(1)
    cluster.server(0, max_users=500)
    wanted = Declared(dict(cluster.specs))
    planned = await reconcile.plan(cluster.connection, wanted, "cordon")
    author = Author("ci", source={"inventory": "inventories/production"})
    await reconcile.apply(cluster.connection, wanted, planned.plan, author, uuid.uuid4, lock_timeout_s=5)
    assert (await scrape(service))[of("drift_objects")] == 0
    await change(cluster.connection, commands.update_server(cluster.servers[0].name, {"tag": "gpu"}))
    assert (await scrape(service))[of("drift_objects")] == 1


@pytest.mark.shows("MO-1")
async def test_calls_are_counted_by_name_and_outcome_and_unknown_names_are_one(cluster: Cluster) -> None:
    service = await cluster.start(1)
    before = await scrape(service)
    await service.create("room")
    await service.call("create", {"name": "no id"})
    await service.send("/bigbluebutton/api/create?meetingID=x&checksum=wrong")
    for name in ("foo", "bar"):
        await service.send(f"/bigbluebutton/api/{name}")
    await service.send("/scalelite/api/getServers")
    cluster.servers[0].fail("status", calls=["getMeetingInfo"])
    await service.about("getMeetingInfo", "room")
    after = await scrape(service)

    def more(name: str, **labels: str) -> float:
        return after.get(of(name, **labels), 0) - before.get(of(name, **labels), 0)

    assert more("requests_total", api="bigbluebutton", call="create", outcome="answered") == 1
    assert more("requests_total", api="bigbluebutton", call="create", outcome="refused") == 2
    assert more("requests_total", api="bigbluebutton", call="other", outcome="refused") == 2
    assert more("requests_total", api="management", call="getServers", outcome="refused") == 1
    assert more("requests_total", api="bigbluebutton", call="getMeetingInfo", outcome="upstream_failed") == 1
    assert more("request_duration_seconds_count", api="bigbluebutton", call="create") == 3
    assert not [key for key in after if "foo" in str(key)]


@pytest.mark.shows("bbb-api: metrics", "MO-3")
async def test_metrics_ask_for_a_token_if_one_is_set_and_hold_no_secret(cluster: Cluster) -> None:
    open_one = await cluster.start(1, environment={"LOADBALANCER_SECRET": "canary-of-cluster"})
    body = (await open_one.send("/metrics", host="elsewhere.example.com")).body
    for secret in ("canary-of-cluster", cluster.servers[0].secret, "tenant1-secret"):
        assert secret.encode() not in body
    closed = await cluster.serve(METRICS_TOKEN="canary-of-metrics")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "canary-of-metrics"}):
        answer = await closed.send("/metrics", headers=headers)
        assert (answer.status, b"scalelite" in answer.body) == (401, False)
    samples(await closed.send("/metrics", headers={"Authorization": "Bearer canary-of-metrics"}))


@pytest.mark.shows("MO-1", "RE-1")
async def test_archives_that_wait_and_those_that_failed_are_queues(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("a.tar", "failed/b.tar", "failed/c.tar", "failed/b.tar.reason"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    service = await cluster.start(1, environment={"RECORDING_SPOOL_DIR": str(tmp_path)})
    found = await scrape(service)
    assert (found[of("queue_depth", queue="archive waiting")], found[of("queue_depth", queue="archive failed")]) == (
        1,
        2,
    )


@pytest.mark.shows("MO-1", "DR-4")
async def test_what_a_panic_leaves_to_be_ended_is_a_queue(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await service.create("room")
    cluster.servers[0].fail("status", calls=["end"])
    await admin.panic(await cluster.poller(), OPS, cluster.servers[0].name)
    assert (await scrape(service))[of("queue_depth", queue="tombstone")] == 1
