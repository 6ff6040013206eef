"""Failures on demand as values: which, for which calls, how often. What they do is done in server.py."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from scalelite.sim.calls import CALLS

Mode = Literal["hang", "slow", "status", "garbage", "refuse", "close", "checksum_error"]

# Settings that only one mode reads.
ONLY_FOR: Final = {"status": "status", "at": "close"}


class Fault(BaseModel):
    """A failure of a server.

    hang: no answer (for `seconds`, then the connection closes), the call is not carried out.
    slow: carried out and answered after `seconds`, even when nobody waits any more.
    status: an HTML page with this HTTP status, not carried out. garbage: HTTP 200 and no XML, not carried out.
    close: the connection closes `at` before (not carried out) or middle (carried out, half of the answer is sent).
    checksum_error: as if the secret had changed. refuse: no connection is accepted, for `seconds` or until accept().
    `calls`: only these, else all; `times`: only the next so many of them. In the other modes `seconds` pass first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    mode: Mode
    calls: tuple[str, ...] = ()
    times: Annotated[int, Field(ge=1, strict=True)] | None = None
    seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    status: Annotated[int, Field(ge=200, le=599, strict=True)] = 503
    at: Literal["before", "middle"] = "before"

    @field_validator("calls")
    @classmethod
    def _known(cls, calls: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse names of calls that do not exist: such a failure would never happen."""
        if unknown := sorted(set(calls) - CALLS):
            raise ValueError(f"no such call: {', '.join(unknown)}; there are {', '.join(sorted(CALLS))}")
        return calls

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """Refuse what the mode cannot mean."""
        if self.mode == "slow" and self.seconds is None:
            raise ValueError("slow needs seconds")
        if self.mode == "refuse" and (self.calls or self.times):
            raise ValueError(
                "refuse cannot be limited to calls or times: a refused connection does not say what it wants"
            )
        for name in self.model_fields_set & ONLY_FOR.keys():
            if self.mode != ONLY_FOR[name]:
                raise ValueError(f"{name} is only for mode {ONLY_FOR[name]}")
        return self

    def hits(self, call: str) -> bool:
        """Whether this failure is for that call; the API's root looks at no checksum."""
        if self.mode == "checksum_error" and call == "index":
            return False
        return not self.calls or call in self.calls


def take(faults: tuple[Fault, ...], call: str) -> tuple[Fault | None, tuple[Fault, ...]]:
    """The oldest failure that hits the call, and the failures that remain after it."""
    for place, fault in enumerate(faults):
        if fault.hits(call):
            return fault, (*faults[:place], *used(fault), *faults[place + 1 :])
    return None, faults


def used(fault: Fault) -> tuple[Fault, ...]:
    """The failure with one time less, or nothing when that was the last."""
    if fault.times is None:
        return (fault,)
    return (fault.model_copy(update={"times": fault.times - 1}),) if fault.times > 1 else ()
