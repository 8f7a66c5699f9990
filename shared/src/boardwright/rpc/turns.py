"""How many calls of one caller a service works on at a time: slow ones leave threads and connections free.

More of a caller's calls wait for a turn, in their order; whoever has far too many waiting is refused.
Workers and services act for everybody and wait for one another's answers: they are not bounded, but what a
service does on behalf of a user counts as that user's. (Services call one another in one direction only, so
that nobody waits in a circle.)

Streams and long polls wait for something to happen. They take no turn, or the long polls of a caller's
workers would keep their heartbeats waiting; how many of them a caller may have open is bounded by itself.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from boardwright.rpc.auth import Principal
from boardwright.rpc.errors import ResourceExhausted

AT_A_TIME = 32
"""A caller gets no more answers a second with more of them. It does not order what comes before: gRPC takes
up calls one by one as they arrive, so a burst of short ones is answered before what was sent after it. With
600 calls of one caller always under way, another's waited for 600 answers, whatever stands here (measured).
"""
MOST_WAITING = 2000
MOST_OPEN = 500
"""Streams and long polls: each of them looks into the database whenever something changes."""


class _Caller:
    """One caller's turns. `calls`: that run or wait for a turn; `open`: streams and long polls."""

    __slots__ = ("calls", "open", "turns")

    def __init__(self, at_a_time: int) -> None:
        self.calls = self.open = 0
        self.turns = asyncio.Semaphore(at_a_time)


class Turns:
    """The turns of every caller that has calls under way."""

    def __init__(
        self, at_a_time: int = AT_A_TIME, most_waiting: int = MOST_WAITING, most_open: int = MOST_OPEN
    ) -> None:
        self._at_a_time, self._most_waiting, self._most_open = at_a_time, most_waiting, most_open
        self._callers: dict[str, _Caller] = {}

    def of(self, principal: Principal) -> _Turn | None:
        """A turn to be taken with `async with`; None for callers without a bound.

        Raises: ResourceExhausted TOO_MANY_CALLS.
        """
        if principal.kind != "user" and not principal.on_behalf_of:
            return None
        name = principal.actor
        caller = self._caller(name)
        if caller.calls >= self._at_a_time + self._most_waiting:
            raise ResourceExhausted(
                "TOO_MANY_CALLS",
                f"{name} has {caller.calls} calls under way here; wait for some of them, then call again",
                principal=name,
            )
        return _Turn(self._callers, name, caller)

    def opened(self, principal: Principal) -> _Open | None:
        """What a stream or a long poll runs in, with `async with`; None for callers without a bound.

        Raises: ResourceExhausted TOO_MANY_CALLS.
        """
        if principal.kind != "user" and not principal.on_behalf_of:
            return None
        name = principal.actor
        caller = self._caller(name)
        if caller.open >= self._most_open:
            raise ResourceExhausted(
                "TOO_MANY_CALLS",
                f"{name} has {caller.open} streams and long polls open; end some of them, then call again",
                principal=name,
            )
        return _Open(self._callers, name, caller)

    def _caller(self, name: str) -> _Caller:
        caller = self._callers.get(name)
        if caller is None:
            caller = self._callers[name] = _Caller(self._at_a_time)
        return caller


class _Turn:
    """Counts as a call from the start; enter it at once. The block runs when it is its turn."""

    __slots__ = ("_caller", "_callers", "_name")

    def __init__(self, callers: dict[str, _Caller], name: str, caller: _Caller) -> None:
        self._callers, self._name, self._caller = callers, name, caller
        caller.calls += 1

    async def __aenter__(self) -> None:
        try:
            await self._caller.turns.acquire()
        except BaseException:
            self._end()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._caller.turns.release()
        self._end()

    def _end(self) -> None:
        self._caller.calls -= 1
        _forget(self._callers, self._name)


class _Open:
    """Counts as open from the start to the end of its block; enter it at once."""

    __slots__ = ("_caller", "_callers", "_name")

    def __init__(self, callers: dict[str, _Caller], name: str, caller: _Caller) -> None:
        self._callers, self._name, self._caller = callers, name, caller
        caller.open += 1

    async def __aenter__(self) -> None:
        return

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._caller.open -= 1
        _forget(self._callers, self._name)


def _forget(callers: dict[str, _Caller], name: str) -> None:
    if not callers[name].calls and not callers[name].open:
        del callers[name]
