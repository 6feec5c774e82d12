"""What a rogue sends that is no answer. Each piece carries a mark, so that its dead letter is known for what it is."""

import json
import random
from typing import Final

MARK: Final = "chaos-garbage"


def garbage(dice: random.Random, answers: str, type: str) -> bytes:
    """Bytes that nobody can use, in one of several ways of being wrong."""
    event = {
        "specversion": "1.0",
        "id": f"{MARK}-{dice.getrandbits(64):x}",
        "source": "/rogue",
        "type": type,
        "subject": "nobody",
        "time": "2026-01-01T00:00:00Z",
        "data": {MARK: True},
    }
    return dice.choice(
        [
            f"{MARK}: no JSON {dice.getrandbits(64):x}".encode(),
            b"\xff\xfe\x00" + f"{MARK} {dice.getrandbits(64):x}".encode(),
            json.dumps([f"{MARK} {dice.getrandbits(64):x}"]).encode(),
            json.dumps({**event, "specversion": "9.9"}).encode(),
            json.dumps(event).encode(),  # it answers nothing
            json.dumps({**event, "answers": "nobody/nothing/do", "outcome": "done"}).encode(),
            json.dumps({**event, "answers": answers, "outcome": "done", "data": f"{MARK} is no reply"}).encode(),
            json.dumps({**event, "answers": answers, "outcome": f"{MARK}"}).encode(),
        ]
    )
