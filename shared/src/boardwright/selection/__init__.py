"""Which variant suits which board: constraints, judgements with their reasons, and the search for one.

Nothing here runs a model or knows a server: whoever searches brings a function that tries a candidate and
returns its figures. The SDK's ``optimize`` brings one that asks the compiler and the builder, the compiler's
engine (``boardwright.compiler.engine.select``) gives the same search to a library user.

- ``constraints``: what is asked for.
- ``candidates``: what may be tried, and what came of it.
- ``judging``: one candidate against one set of constraints, in a sentence.
- ``pareto``: which candidates no other one beats.
- ``search``: from cheap to dear, until every set of constraints is settled.
"""

from boardwright.selection.candidates import Attempt, Candidate, Failure, Figures
from boardwright.selection.constraints import Constraints
from boardwright.selection.judging import Judgement, Verdict, judge
from boardwright.selection.pareto import Point, pareto_front
from boardwright.selection.search import Outcome, Selection, conclude, search

__all__ = [
    "Attempt",
    "Candidate",
    "Constraints",
    "Failure",
    "Figures",
    "Judgement",
    "Outcome",
    "Point",
    "Selection",
    "Verdict",
    "conclude",
    "judge",
    "pareto_front",
    "search",
]
