"""The state machine of a saga. The whole of it: nothing about transitions lives outside this folder. No I/O.

THEORY

A saga is a sequence of *stages*; a stage is one step, or several that run in parallel. Going forward, the steps of
the first stage that is not done are asked; when all of them are done, the next stage is. Going backward, the steps of
the last stage that has something to undo are undone; when all of them are, the stage before it is.

A step is a command to a participant, a wait for a signal, or a delay; a child saga is a command to the orchestrator.
When its turn comes a step may be skipped, or expanded into one instance for each item of a list. From there on
instances are steps like any other: one mechanism carries them all.

One question decides everything: *what do we know of a step?* Its answer is its status:

    pending       never asked: there is nothing to undo
    skipped       its condition does not hold, or another saga's copy of it counts: there is nothing to undo
    asked         a command is out: it may have happened          <- the only status that a reply can change
    done          it happened
    refused       it did not happen, and will not
    unknown       we have stopped asking: it may have happened, so it is undone
    undoing       an undo is out
    undo-refused  the undo was answered "no": it is asked again, as a new command
    undone        nothing of it is left

A step's outcome is *done*, *refused* or *unknown*, never two of them. Only a refusal, a reversible step that stays
unknown when its policy is spent, the deadline, or an order starts the way back. The pivot and what follows are never
undone by guess: when their policy is spent the saga is *stuck* until a late reply or a person moves it. A saga without
a pivot can be undone as a whole, even when it has completed, by whoever started it: it is a child.

The machine is split as Emmett does it: `decide` turns (saga, event) into log entries and never changes anything;
`evolve` applies one entry and never decides anything. So replaying the log gives the stored state, exactly.

GATE

An event speaks of one command id, and a timer of one attempt of it. What does not match the command that is out now
(a duplicate, a late or foreign reply, a timer that lost its race) changes nothing. Command ids are
`<saga>/<step>/do` and `<saga>/<step>/undo`; a refused command that must succeed is asked again under a new id, with
the round appended (`…/do/2`), because the participant remembers its refusal.

Read `tables`, then `evolve`, then `decide`.
"""

from orchestrator.calls import UnreadableReply
from orchestrator.machine.decide import Decision, Dispatch, Terms, decide, start
from orchestrator.machine.evolve import evolve, replay
from orchestrator.machine.tables import PHASES, TRANSITIONS

__all__ = [
    "PHASES", "TRANSITIONS", "Decision", "Dispatch", "Terms", "UnreadableReply", "decide", "evolve", "replay", "start",
]  # fmt: skip
