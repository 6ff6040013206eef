"""What FreeSWITCH is told about a call that is dialled in: ask for a PIN, ask again, bridge to a server, or nothing.

Answers of mod_xml_curl (spec/bbb-api.md, Dial-in). Values from outside are escaped for FreeSWITCH, which reads `\\` and
`${` in an action's data and in a pattern, then for XML.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lxml import etree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Of a number that was dialled, as SIP has it; and of a PIN.
_NUMBER: Final = re.compile(r"\+?[0-9]{1,32}")
_PIN: Final = re.compile(r"[0-9]{1,20}")
_PHONE: Final = re.compile(r"[0-9+(). /-]*[0-9][0-9+(). /-]*")
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_UNAVAILABLE: Final = "Unavailable"

Action = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Dialled:
    """A call that asks what to do: the number that was dialled, the PIN or '' before it was asked for, who calls."""

    number: str
    pin: str
    caller: str

    @property
    def bridges(self) -> list[str]:
        """The voice bridges that the PIN can stand for: itself, or the room of which it is a breakout room."""
        return [bridge for bridge in (self.pin, self.pin[:-1]) if bridge]


@dataclass(frozen=True, slots=True)
class PinLength:
    """How many digits are asked for."""

    least: int
    most: int


def dialled(form: Mapping[str, str]) -> Dialled | None:
    """Read what FreeSWITCH sends; None for anything but a dialplan, a number and a PIN of digits."""
    number, pin = form.get("Caller-Destination-Number", ""), form.get("variable_pin", "")
    if form.get("section") != "dialplan" or not _NUMBER.fullmatch(number) or (pin and not _PIN.fullmatch(pin)):
        return None
    return Dialled(number, pin, _caller_name(form))


def _caller_name(form: Mapping[str, str]) -> str:
    """Return the name to show, as far as the caller wants it shown; of a number, the last four digits are hidden."""
    name = form.get("Caller-Caller-ID-Name", "").strip()
    is_number = _PHONE.fullmatch(name) is not None
    hidden = form.get("Caller-Privacy-Hide-Number" if is_number else "Caller-Privacy-Hide-Name") == "true"
    if not name or hidden:
        return _UNAVAILABLE
    if not is_number:
        return name
    last_four = [place for place, character in enumerate(name) if character.isdigit()][-4:]
    return "".join("X" if place in last_four else character for place, character in enumerate(name))


# --- answers ---------------------------------------------------------------------------------------------------------


def reject() -> bytes:
    """Return the answer that there is nothing here."""
    root = etree.Element("document", type="freeswitch/xml")
    section = etree.SubElement(root, "section", name="result")
    etree.SubElement(section, "result", status="not found")
    return etree.tostring(root, encoding="utf-8")


def prompt(call: Dialled, length: PinLength, hang_up_after_s: int) -> bytes:
    """Return the answer that asks for a PIN; 0: the call may last for ever."""
    hang_up = [("sched_hangup", f"+{hang_up_after_s} normal_clearing")] if hang_up_after_s else []
    actions = [
        ("answer", ""),
        *hang_up,
        ("sleep", "500"),
        ("playback", "ivr/ivr-welcome.wav"),
        ("sleep", "200"),
        *_ask(length),
    ]
    return _dialplan("Match DID and Pin for Conference", "match_did_and_prompt_for_pin", call, actions)


def reprompt(call: Dialled, length: PinLength) -> bytes:
    """Return the answer that asks once more, after a PIN of no meeting."""
    actions = [("playback", "conference/conf-bad-pin.wav"), ("sleep", "500"), *_ask(length)]
    return _dialplan("Reprompt Pin for Conference", "reprompt_for_pin", call, actions)


def bridge(call: Dialled, meeting_id: str, host: str) -> bytes:
    """Return the answer that puts the call through to a meeting on a server."""
    actions = [
        ("set", f"meeting_id={_for_freeswitch(meeting_id)}"),
        ("set", f"effective_caller_id_name={_for_freeswitch(call.caller)}"),
        ("bridge", f"sofia/external/{call.pin}@{host}"),
    ]
    return _dialplan("Bridge Call to BBB Server", "bridge_to_bbb_server", call, actions)


def _ask(length: PinLength) -> Sequence[Action]:
    sounds = "conference/conf-enter_conf_pin.wav conference/conf-bad-pin.wav"
    return (
        ("play_and_get_digits", f"{length.least} {length.most} 3 7000 # {sounds} pin \\d+"),
        ("transfer", "${pin} XML public"),
    )


def _dialplan(description: str, extension: str, call: Dialled, actions: Sequence[Action]) -> bytes:
    root = etree.Element("document", type="freeswitch/xml")
    section = etree.SubElement(root, "section", name="dialplan", description=description)
    context = etree.SubElement(section, "context", name="public")
    outer = etree.SubElement(context, "extension", name=extension)
    pattern = f"^{_for_freeswitch(re.escape(call.number))}$"
    condition = etree.SubElement(outer, "condition", field="destination_number", expression=pattern)
    for application, data in actions:
        etree.SubElement(condition, "action", {"application": application, **({"data": data} if data else {})})
    return etree.tostring(root, encoding="utf-8", pretty_print=True)


def _for_freeswitch(text: str) -> str:
    return _UNPRINTABLE.sub(" ", text).replace("\\", "\\\\").replace("${", "\\${")
