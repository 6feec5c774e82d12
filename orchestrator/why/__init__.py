"""Why is this saga where it is, and what would move it? One sentence, and the command to run.

- `facts`      what can be known: the saga, its open steps, and what lies around them. No I/O
- `causes`     from facts to the one cause that counts, the most telling first. No I/O
- `words`      the sentence and the command for each cause. No I/O
- `witness`    gathers the facts; whatever is out of reach is a fact, too
"""

from orchestrator.why.causes import Cause, cause_of
from orchestrator.why.facts import Facts
from orchestrator.why.witness import Advisor, Door, Witness
from orchestrator.why.words import Diagnosis, diagnose

__all__ = ["Advisor", "Cause", "Diagnosis", "Door", "Facts", "Witness", "cause_of", "diagnose"]
