"""Playing recordings: what a path means, the cookie that opens a protected recording, and which browsers take it.

Nothing here says whether a recording may be played: that is in its row.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote_to_bytes

from scalelite.core.recording import RECORD_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

COOKIE: Final = "scalelite_playback"
_PLAYER: Final = re.compile(r"[0-9]+(\.[0-9]+){0,2}")
_INDEX: Final = "index.html"


@dataclass(frozen=True, slots=True)
class Target:
    """What a path asks for: one format of a recording, and what of it.

    `player` is the version of BigBlueButton's player, a page that shows the format's files; `opens` is the link that
    getRecordings gives for a protected one; else it is a file, `path` below FORMAT/RECORD_ID.
    """

    record_id: str
    format: str
    path: str = ""
    player: str = ""
    opens: bool = False

    @property
    def file(self) -> str:
        """The path of the file in the format's folder; of a folder, that of its page."""
        return f"{self.path}{_INDEX}" if not self.path or self.path.endswith("/") else self.path

    @property
    def resource(self) -> str:
        """The path of what is to be delivered, as the web server in front knows it."""
        if self.player:
            return f"/playback/{self.format}/{self.player}/{self.record_id}"
        return quote(f"/{self.format}/{self.record_id}/{self.path}")


def target_of(raw_path: str, formats: Sequence[str]) -> Target | None:
    """Return what a path means, or None. BigBlueButton's links have each format under more than one path."""
    parts = _parts(raw_path)
    match parts:
        case ["recording", record_id, name] if name in formats:
            found = Target(record_id, name, opens=True)
        case ["playback", "presentation", version, record_id] if "presentation" in formats and _PLAYER.fullmatch(
            version
        ):
            found = Target(record_id, "presentation", player=version)
        case ["recording" | "playback", name, record_id, *rest] if name in formats:
            found = Target(record_id, name, "/".join(rest))
        case [name, record_id, *rest] if name in formats:
            found = Target(record_id, name, "/".join(rest))
        case _:
            return None
    return found if RECORD_ID.fullmatch(found.record_id) else None


def _parts(raw_path: str) -> list[str]:
    """Decode a path into its parts, the last of a folder's being empty; none for one that leads up, or is not text."""
    try:
        parts = unquote_to_bytes(raw_path).decode("utf-8").removeprefix("/").split("/")
    except UnicodeDecodeError:
        return []
    inner = parts[:-1] if parts[-1] == "" else parts
    if not all(part not in {"", ".", ".."} and part.isprintable() and "\\" not in part for part in inner):
        return []
    return parts


# --- cookies ---------------------------------------------------------------------------------------------------------


def cookie_value(key: bytes, target: Target, expires_s: int) -> str:
    """Return the value that opens this format of this recording until then (seconds since 1970)."""
    return f"{expires_s}.{_signature(key, target, str(expires_s))}"


def opens(value: str, key: bytes, target: Target, now_s: float) -> bool:
    """Say whether a cookie's value opens this format of this recording now."""
    expires, _, signature = value.partition(".")
    good = hmac.compare_digest(signature.encode("utf-8", "replace"), _signature(key, target, expires).encode())
    return good and int(expires) > now_s


def _signature(key: bytes, target: Target, expires: str) -> str:
    signed = f"{target.record_id}/{target.format}/{expires}"
    return hmac.digest(key, signed.encode("utf-8", "replace"), "sha256").hex()


def cookie_paths(target: Target, url: str, formats: Sequence[str]) -> tuple[str, ...]:
    """Return the paths below which a browser is to send the cookie: the link, the files, and where the page is."""
    page = target_of(url, formats)
    places = [f"/recording/{target.record_id}/{target.format}", f"/{target.format}/{target.record_id}"]
    if page and (page.record_id, page.format) == (target.record_id, target.format):
        places.append(url[: url.index(target.record_id) + len(target.record_id)])
    return tuple(dict.fromkeys(places))


_IOS_12: Final = re.compile(r"\(iP.+; CPU .*OS 12[_\d]*.*\) AppleWebKit/")
_MAC_10_14: Final = re.compile(r"\(Macintosh;.*Mac OS X 10_14[_\d]*.*\) AppleWebKit/")
_CHROME: Final = re.compile(r"Chrom(?:e|ium)/(\d+)")
_UC_BROWSER: Final = re.compile(r"UCBrowser/(\d+)\.(\d+)\.(\d+)")


def takes_same_site_none(user_agent: str) -> bool:
    """Say whether a browser knows SameSite=None: some old ones take it for Strict, or drop the cookie."""
    if _IOS_12.search(user_agent):
        return False
    if _MAC_10_14.search(user_agent) and "Chrom" not in user_agent:
        return False
    if uc := _UC_BROWSER.search(user_agent):
        return tuple(map(int, uc.groups())) >= (12, 13, 2)
    chrome = _CHROME.search(user_agent)
    return not chrome or not 51 <= int(chrome[1]) <= 66
