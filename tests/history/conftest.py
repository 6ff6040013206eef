"""A cluster that an inventory and people's hands change in turn, on a real Postgres."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from scalelite.core.model import SECTION_OF, Declared, Key, Kind, Secret, ServerSpec, SettingSpec, TenantSpec
from scalelite.core.plan import diff, in_order
from scalelite.flows import reconcile
from scalelite.store import db, history, specs
from scalelite.store.specs import Author

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scalelite.core.drift import Past
    from scalelite.core.model import AnySpec
    from scalelite.store.db import Connection

    Entry = tuple[Key, AnySpec]

INVENTORY = Author("ci", "reviewed", {"inventory": [{"path": "inv.yml", "sha256": "0" * 64}]})


def server(name: str, **fields: Any) -> Entry:
    url = f"https://{name}/bigbluebutton/api"
    return Key(Kind.SERVER, name), ServerSpec(id=name, url=url, secret=fields.pop("secret", Secret("s")), **fields)


def tenant(name: str, **fields: Any) -> Entry:
    return Key(Kind.TENANT, name), TenantSpec(name=name, **fields)


def setting(tenant: str, param: str, value: str) -> Entry:
    return Key(Kind.SETTING, tenant, param), SettingSpec(param=param, value=value)


def declared(objects: Iterable[Entry]) -> Declared:
    return Declared(dict(objects))


class Cluster:
    """What is done to it, by an inventory or by hand; both end in a revision."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def live(self) -> Declared:
        """What is declared, but for the tenant that stands for having none."""
        objects = (await specs.load_live(self.connection)).declared.objects
        return Declared({key: spec for key, spec in objects.items() if key != Key(Kind.TENANT)})

    async def apply(self, *objects: Entry, author: Author = INVENTORY) -> int:
        """Apply an inventory, as the command does it; returns the revision, 0 where nothing changed."""
        wanted = declared(objects)
        planned = await reconcile.plan(self.connection, wanted, "cordon")
        done = await reconcile.apply(self.connection, wanted, planned.plan, author, uuid.uuid4, lock_timeout_s=5)
        return done.revision

    async def change(self, changed: Mapping[Key, AnySpec | None], actor: str = "ops@lb1") -> int:
        """Change objects by hand (None: remove them), as commands and the management API do."""
        live = await self.live()
        rest = {key: spec for key, spec in live.objects.items() if key not in changed}
        objects = rest | {key: spec for key, spec in changed.items() if spec is not None}
        wanted = Declared(objects, frozenset(SECTION_OF.values()))
        async with db.apply_lock(self.connection, 5):
            changes = in_order(diff(live, wanted).changes)
            return await specs.write(self.connection, changes, Author(actor), uuid.uuid4)

    async def pasts(self) -> dict[Key, Past]:
        return await history.load_pasts(self.connection)


@pytest.fixture
def cluster(connection: Connection) -> Cluster:
    return Cluster(connection)
