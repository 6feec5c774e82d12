"""An exhaustive explorer: every way in which a saga of this shape can go, up to a bound. No I/O.

The machine is run against participants that keep the protocol, a network that keeps nothing, and people who tell the
truth. From every state every command that was ever sent may be handled, every reply that was ever given may arrive
(once more, or never), every timer may fire, every signal may come (before its turn, twice), the deadline may pass,
whoever started the saga may want it undone, and a person may cancel, pause, retry and answer for a step. Losing a
message is never delivering it; being late is delivering it after the end. Conditions go both ways, a step that runs
over a list has some items or none, and a saga begins at once or has to wait.

In every state that can be reached this must hold:

- nothing is undone that was never asked, or once the pivot may have happened; undos go back stage by stage;
- a step is asked when all before it has happened, and what is skipped is not asked;
- nothing is done twice, and nothing is undone twice; no more items of a step are out than its limit;
- `completed` means that every effect is there, `compensated` that none is, *and stays so* whatever arrives later;
- what turns back does not go forward again; the deadline, a cancel and an undo of the whole turn a saga back as long as
  the pivot was not asked, and never after;
- a paused saga sends nothing; a signal that came is not lost, and counts once;
- what is under way waits for a timer, a signal, an admission or a person, and an end can be reached;
- what is none of the saga's business, or too early, or too late, changes nothing; and the log says what happened.

The explorer looks at the shape of a definition (stages, kinds, undos, waits, conditions, limits), not at its functions
or its data. States are explored breadth first, so the first counterexample is a shortest one; what it does not need
is taken out of it all the same, and it can be printed as a test.

Source of the method: explicit-state model checking, as in Holzmann, "The model checker SPIN", 1997.

Read `skeleton` (what is left of a definition), `moves` (what can happen), `world` (what the surroundings do and
remember), `promises` (what must hold), then `search`. `decisions` makes it fast; `printed` writes the test.
"""

from orchestrator.explorer.printed import as_test
from orchestrator.explorer.search import Counterexample, Exploration, Explorer, Progress, can_end
from orchestrator.explorer.skeleton import skeleton
from orchestrator.explorer.world import Bounds

__all__ = ["Bounds", "Counterexample", "Exploration", "Explorer", "Progress", "as_test", "can_end", "skeleton"]
