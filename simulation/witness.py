"""The witness: sees what no database shows afterwards.

Much of what is done wrong is put right by asking again, and leaves no trace in the books: a message that was
acknowledged and not handled, one that was removed and never sent, one that was sent and never committed. The witness
stands between the parts and tells.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from outbox.envelope import Packet
from simulation.sagas import DEFINITIONS
from simulation.server import Server
from simulation.violation import Violation

LIMITS: Final = {saga.name: saga.max_in_flight for saga in DEFINITIONS.values() if saga.max_in_flight is not None}
IN_FLIGHT: Final = (
    "SELECT count(*) FROM sagas WHERE definition = ? AND ended_at IS NULL AND begins_at IS NULL"
    """ AND state LIKE '%"attempt":%'"""  # one that was cancelled while it waited has never asked anybody anything
)
OUT: Final = ("asked", "undoing")

JOURNAL: Final = (
    "CREATE TABLE journal (message_id TEXT PRIMARY KEY, body TEXT)",
    "CREATE TRIGGER journalled AFTER INSERT ON outbox"
    " BEGIN INSERT OR IGNORE INTO journal VALUES (new.message_id, new.body); END",
)
"""Every message that was ever committed, kept beside the outbox by the simulated server."""

_ATTEMPT: Final = re.compile(r'"attempt":(\d+)')


class Witness:
    """Looks on for one schedule."""

    def __init__(self, servers: Mapping[str, Server], *, holds_locks: bool) -> None:
        self.violations: list[Violation] = []
        self._servers = servers
        self._holds_locks = holds_locks
        self._stored: dict[str, set[str]] = defaultdict(set)
        self._attempts: dict[str, list[str]] = {}

    # --- while it goes on

    def stored(self, role: str, packet: Packet, *, is_known: bool) -> None:
        """The broker has a message, or says that it had it already."""
        self._stored[role].add(packet.message_id)
        attempts = _ATTEMPT.findall(packet.body)
        if not is_known:
            self._attempts[packet.message_id] = attempts
        elif self._attempts.get(packet.message_id, attempts) != attempts:
            self._tell("every-attempt-is-sent", f"{packet.message_id} is dropped for a duplicate of another attempt")

    def settled(self, durable: str, subject: str, body: bytes) -> None:
        """Somebody has said that a message is done with."""
        for event in _events(body):
            if subject.startswith("saga.reply."):
                self._reply_settled(event)
            elif durable == "orchestrator":
                self._start_settled(event)
            else:
                self._command_settled(durable, str(event["id"]), int(event.get("attempt", 1)))

    def committed(self) -> None:
        """The orchestrator has committed something."""
        for name, most in LIMITS.items():
            [(count,)] = self._servers["orchestrator"].ask(IN_FLIGHT, name)
            if count > most and self._holds_locks:
                self._tell("limits-hold", f"{count} sagas {name} are in flight, and {most} may be")

    # --- in the end

    def findings(self) -> list[Violation]:
        """What was seen, and what is seen now."""
        for role, server in self._servers.items():
            journal = {message_id for (message_id,) in server.ask("SELECT message_id FROM journal")}
            for message_id in sorted(journal - self._stored[role]):
                self._tell("what-is-committed-is-sent", f"{role} has never sent {message_id}")
            for message_id in sorted(self._stored[role] - journal):
                self._tell("what-is-sent-is-committed", f"{role} has sent {message_id} and never committed it")
        self._look_for_announcements()
        self._look_for_haste()
        return self.violations

    def _look_for_announcements(self) -> None:
        server = self._servers["orchestrator"]
        for saga_id, status in server.ask("SELECT id, status FROM sagas WHERE ended_at IS NOT NULL ORDER BY id"):
            told = f'"{saga_id}/event/{status}/'
            if not server.ask("SELECT 1 FROM journal WHERE instr(body, ?) LIMIT 1", told):
                self._tell("the-end-is-announced", f"nobody was told that saga {saga_id} is {status}")

    def _look_for_haste(self) -> None:
        """A step is asked again when its time is over, and not before, unless a person wants it."""
        due: dict[tuple[str, str], tuple[str, int, str]] = {}
        query = "SELECT saga_id, at, entries FROM saga_log ORDER BY saga_id, revision"
        for saga_id, at, entries in self._servers["orchestrator"].ask(query):
            read = orjson.loads(entries)
            if any(entry["kind"] in ("retry-ordered", "resumed") for entry in read):
                due.clear()
            for entry in read:
                if entry["kind"] not in ("asked", "undo-asked"):
                    continue
                place, now = (saga_id, entry["step"]), (entry["kind"], entry.get("round", 1))
                before = due.get(place)
                if before is not None and before[:2] == now and _moment(at) < _moment(before[2]):
                    self._tell(
                        "nobody-is-hurried", f"{entry['step']} of saga {saga_id} was asked again before its time"
                    )
                if entry.get("due_at"):
                    due[place] = (*now, entry["due_at"])

    # --- one event

    def _command_settled(self, role: str, command_id: str, attempt: int) -> None:
        server = self._servers[role]
        if not server.ask("SELECT 1 FROM inbox WHERE message_id = ?", command_id):
            self._tell("what-is-settled-was-handled", f"{role} has acknowledged {command_id}, and not handled it")
        single, packed = f"{command_id}/reply:{attempt}", f'"id":"{command_id}/reply","%"attempt":{attempt},'
        query = "SELECT 1 FROM journal WHERE message_id = ? OR body LIKE ? LIMIT 1"
        if not server.ask(query, single, f"%{packed}%"):
            self._tell("every-attempt-is-answered", f"{role} has not answered attempt {attempt} of {command_id}")

    def _start_settled(self, event: Mapping[str, Any]) -> None:
        """Whoever starts a saga, or undoes one before it was started, finds it under the id of the start."""
        key = event.get("undoes") or event["id"]
        if not self._servers["orchestrator"].ask("SELECT 1 FROM sagas WHERE key = ?", key):
            self._tell("what-is-settled-was-handled", f"{event['id']} was acknowledged, and no saga has the key {key}")

    def _reply_settled(self, event: Mapping[str, Any]) -> None:
        saga_id, step, *_ = f"{event.get('answers')}/".split("/")
        found = self._servers["orchestrator"].ask("SELECT state FROM sagas WHERE id = ?", saga_id)
        state = orjson.loads(found[0][0])["steps"].get(step) if found else None
        if state is None or state.get("status") not in OUT:
            return
        awaited = f"{saga_id}/{step}/{'undo' if state['status'] == 'undoing' else 'do'}"
        if state.get("round", 1) > 1:
            awaited = f"{awaited}/{state['round']}"
        if awaited == event["answers"]:
            self._tell("what-is-settled-was-handled", f"the answer to {awaited} was acknowledged, and not heard")

    def _tell(self, check: str, message: str) -> None:
        self.violations.append(Violation(check, message))


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _events(body: bytes) -> list[Mapping[str, Any]]:
    """The events of a message that are events."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return []
    events = content if isinstance(content, list) else [content]
    return [event for event in events if isinstance(event, dict) and "subject" in event]
