"""Who has joined a server: a session per place, what each is still to be told, and results that it may ask for."""

import asyncio
import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from partway.live.clock import now
from partway.live.messages import InferReply, News, Refused

MAX_NEWS = 64
"""News that wait for a device that does not read; then its session ends."""
MAX_ANSWERS = 1024
"""Tasks of a device that the server keeps: those that wait, and results for those who ask again."""
MESSAGES_PER_BLOCK = 8
"""Messages of a device that the server takes in a block, in the mean. An honest one reports once, asks for a task up to
five times, and while it reconnects registers and greets at most twice."""
MAX_SAVED = 1024
"""Messages that a device may send at once when it comes back: it reports up to 1000 blocks in which it was away."""
GREET_S = 15.0
"""How long a stream may last without a greeting."""
ARRIVE_S = 60.0
"""How long after it has registered a device may take to open its stream, before another one may have its place: it
compiles its controller meanwhile."""


@dataclass
class Session:
    """A device that has joined.

    heard      the last block that it has reported
    made       when it registered [s]
    news       what it has not been told yet, None: that is all
    queues     by block, what it has reported of its queue
    answers    by task, its result, present or future
    cut        the blocks in which the tasks were cut that it has sent lately
    attending  whether its stream is open            arrived  whether it ever was
    left       whether it has said that it leaves
    fault      why its stream is ended
    """

    device: int
    key: str
    heard: int
    made: float
    news: asyncio.Queue[News | None] = field(default_factory=lambda: asyncio.Queue[News | None](MAX_NEWS))
    queues: dict[int, float] = field(default_factory=dict[int, float])
    answers: dict[int, asyncio.Future[InferReply]] = field(default_factory=dict[int, asyncio.Future[InferReply]])
    cut: set[int] = field(default_factory=set[int])
    attending: bool = False
    arrived: bool = False
    left: bool = False
    fault: Refused | None = None

    def forget_answers(self) -> None:
        """Make room for another task. Raises Refused where all are still waited for."""
        if len(self.answers) < MAX_ANSWERS:
            return
        done = [task for task, answer in self.answers.items() if answer.done()]
        if not done:
            raise Refused("RESOURCE_EXHAUSTED", f"{MAX_ANSWERS} tasks of this device wait already")
        for task in done[: MAX_ANSWERS // 2]:
            del self.answers[task]


class Allowance:
    """The messages that one place may still send: it grows with time, whoever has the place."""

    def __init__(self, block_s: float):
        self._per_s, self._left, self._at = MESSAGES_PER_BLOCK / block_s, 0.0, -math.inf

    def spend(self) -> None:
        """Take one message in. Raises Refused where there have been too many."""
        at = now()
        self._left, self._at = min(self._left + (at - self._at) * self._per_s, MAX_SAVED), at
        if self._left < 1:
            raise Refused("RESOURCE_EXHAUSTED", f"a device may send {MESSAGES_PER_BLOCK} messages per block")
        self._left -= 1


class Sessions:
    """The sessions of a server with so many places, in a run with blocks of so many seconds."""

    def __init__(self, places: int, block_s: float):
        self._places, self._by_key = places, dict[str, Session]()
        self._run = secrets.token_hex(8)  # begins every key: a server that is started again knows those of another run
        self._allowances = [Allowance(block_s) for _ in range(places)]

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_key.values()))

    def of(self, key: str) -> Session:
        """The session of that key. Raises Refused where there is none."""
        if key not in self._by_key:
            raise Refused("UNAUTHENTICATED", "this session is not known; register again")
        return self._by_key[key]

    def spend(self, session: Session) -> None:
        """Take one more message of a device in. Raises Refused where it has sent too many."""
        self._allowances[session.device].spend()

    def attending(self) -> list[Session]:
        """Those whose stream is open."""
        return [session for session in self if session.attending]

    def admit(self, wanted: int | None, old_key: str, block: int) -> Session:
        """A new session in a free place.

        wanted   the number of the place, None for any
        old_key  the session that this one takes over, with its results: of a device that comes back
        block    that begins now

        Raises Refused where there is no such place, it is taken, it has sent too many messages, or `old_key` is one of
        another run, whose blocks have other numbers.
        """
        if old_key and not old_key.startswith(self._run):
            raise Refused("FAILED_PRECONDITION", "the server has begun another run; join again to take part in it")
        old = self._by_key.get(old_key)
        if old is not None and wanted in (None, old.device):
            self.spend(old)
            self.end(old)
            made = Session(old.device, self._key(), block, now(), answers=old.answers, cut=old.cut)
        else:
            made = Session(self._free(wanted), self._key(), block, now())
            self.spend(made)
        self._by_key[made.key] = made
        return made

    def end(self, session: Session) -> None:
        """End a session, and its stream."""
        self._by_key.pop(session.key, None)
        self.tell(session, None)

    def tell(self, session: Session, news: News | None) -> None:
        """Put news where its stream reads them; a device that does not read loses its session."""
        if session.news.full():
            while not session.news.empty():
                session.news.get_nowait()
            news = None
            self._by_key.pop(session.key, None)
        session.news.put_nowait(news)

    def expired(self, block: int, lease_blocks: int) -> list[Session]:
        """End the sessions that have said nothing for the length of a lease; returns them."""
        silent = [session for session in self if block - session.heard > lease_blocks]
        ended = [session for session in silent if session.arrived or self._is_late(session)]
        for session in ended:
            self.end(session)
        return ended

    def _key(self) -> str:
        return self._run + secrets.token_hex(16)

    def _free(self, wanted: int | None) -> int:
        """A place that nobody has, or whose owner has never come."""
        if wanted is not None and wanted >= self._places:
            raise Refused("INVALID_ARGUMENT", f"devices are numbered from 0 to {self._places - 1}, got {wanted}")
        taken = {session.device: session for session in self}
        late = {number for number, session in taken.items() if not session.arrived and self._is_late(session)}
        places = range(self._places) if wanted is None else [wanted]
        free = [*(number for number in places if number not in taken), *(number for number in places if number in late)]
        if not free:
            which = "every place is" if wanted is None else f"place {wanted} is"
            raise Refused("RESOURCE_EXHAUSTED", f"{which} taken")
        if free[0] in taken:
            self.end(taken[free[0]])
        return free[0]

    def _is_late(self, session: Session) -> bool:
        return now() - session.made > ARRIVE_S
