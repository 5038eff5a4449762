"""Where all workers of a run tell how far they are, and read whether to stop: an actor beside the driver."""

from __future__ import annotations

from dataclasses import dataclass, field

from invsolve.events import Event
from invsolve.ranges import Range
from invsolve.shared_progress import Told


@dataclass
class News:
    """What workers told since the last time."""

    told: dict[Range, Told] = field(default_factory=dict)  # of the ranges under way, however old
    events: list[Event] = field(default_factory=list)
    hung: dict[Range, str] = field(default_factory=dict)  # in which evaluation, in words
    lost: list[Range] = field(default_factory=list)  # begun anew, for who worked on them is gone
    where: dict[Range, str] = field(default_factory=dict)  # Ray's node of the ranges under way, however old


class Board:
    """Plain Python; Ray makes an actor of it. What is told of a range is forgotten when it ends."""

    def __init__(self) -> None:
        self._stopped = False
        self._begun: dict[Range, int] = {}
        self._news = News()

    def begin(self, given: Range, node: str) -> int:
        """A worker on a node of Ray's begins with this range; how many have done so before it."""
        before = self._begun.get(given, 0)
        self._begun[given] = before + 1
        self._news.where[given] = node
        if before:
            self._news.lost.append(given)
        return before

    def excuse(self, given: Range) -> None:
        """Who worked on this range is alive, and it ended without an answer: whoever begins it next is the first."""
        self._begun.pop(given, None)

    def tell(self, given: Range, told: Told | None, events: list[Event], hung: str | None) -> bool:
        """What a worker has to say; whether it is to stop."""
        if given in self._begun:
            if told is not None:
                self._news.told[given] = told
            if hung is not None:
                self._news.hung[given] = hung
        self._news.events += events
        return self._stopped

    def stop(self) -> None:
        """Let all workers end with their best so far."""
        self._stopped = True

    def collect(self, ended: list[Range]) -> News:
        """What is new; of ranges that have ended nothing more is to be heard."""
        for given in ended:
            self._begun.pop(given, None)
            self._news.told.pop(given, None)
            self._news.where.pop(given, None)
        news, self._news = self._news, News(told=self._news.told, where=self._news.where)
        return news
