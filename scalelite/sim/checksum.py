"""The checksum rules of BigBlueButton 3.0, written a second time on purpose: no code of ours may be used here."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MISSING: Final = "You must provide the checksum"
MISMATCH: Final = "Checksums do not match"

# The length in hex digits tells the algorithm.
ALGORITHMS: Final[dict[int, Callable[[bytes], Any]]] = {
    40: hashlib.sha1,
    64: hashlib.sha256,
    96: hashlib.sha384,
    128: hashlib.sha512,
}


def unsigned(query: str, given: str) -> str:
    """The raw query without its checksum: the first of the three forms that BigBlueButton looks for."""
    for part in (f"&checksum={given}", f"checksum={given}&", f"checksum={given}"):
        if part in query:
            return query.replace(part, "", 1)
    return query


def checksum_problem(call: str, query: str, given: str, secret: str) -> str:
    """What is wrong with the checksum `given` for this call and raw query: BigBlueButton's message, or nothing."""
    if not given:
        return MISSING
    algorithm = ALGORITHMS.get(len(given))
    if algorithm is None or not given.isascii():
        return MISMATCH
    expected = algorithm((call + unsigned(query, given) + secret).encode()).hexdigest()
    return "" if hmac.compare_digest(expected, given.lower()) else MISMATCH
