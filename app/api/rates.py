"""How often a caller may call: a bucket of tokens for each caller and each kind of call, in this process's memory.

Each API process counts alone. A bucket holds a minute's calls and fills steadily, so that bursts are fine and the rate
over minutes is what the operator says. Those that are full are as good as new ones: the tables keep the callers that
were last seen and forget the others.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from app.errors import TooManyRequests

if TYPE_CHECKING:
    from app.settings import Settings

Budget = Literal["reads", "writes", "heavy"]
WINDOW_S = 60
MAX_BUCKETS = 20_000
"""Buckets kept in memory, about 5 MB."""
IPV6_PREFIX = 64
"""An IPv6 client has at least this network: its addresses count as one."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is left of a budget: `remaining` calls of `quota` in a minute, all of them again after `resets_in_s`."""

    budget: str
    quota: int
    remaining: int
    resets_in_s: int

    def headers(self) -> list[tuple[str, str]]:
        """As `RateLimit-Policy` and `RateLimit` say it (draft-ietf-httpapi-ratelimit-headers-11)."""
        return [
            ("RateLimit-Policy", f'"{self.budget}";q={self.quota};w={WINDOW_S}'),
            ("RateLimit", f'"{self.budget}";r={self.remaining};t={self.resets_in_s}'),
        ]


class Buckets:
    """Token buckets of `quota` calls a minute by caller; none where it is 0. Thread-safe."""

    def __init__(self, quota: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.quota = quota
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, who: str) -> tuple[bool, float]:
        """Whether there was a token for `who`, and how many are left."""
        with self._lock:
            level = self._level(who)
            had = level >= 1.0
            level -= had
            self._levels[who] = (level, self._clock())
            self._levels.move_to_end(who)
            if len(self._levels) > MAX_BUCKETS:
                self._levels.popitem(last=False)
        return had, level

    def left(self, who: str) -> float:
        """How many tokens `who` has now."""
        with self._lock:
            return self._level(who)

    def seconds_to(self, tokens: float) -> int:
        """How long, in whole seconds, a bucket takes to gain so many tokens; 1 at least."""
        return max(1, math.ceil(tokens * WINDOW_S / self.quota))

    def _level(self, who: str) -> float:
        level, at = self._levels.get(who, (float(self.quota), 0.0))
        return min(float(self.quota), level + (self._clock() - at) * self.quota / WINDOW_S)


class Rates:
    """The budgets of all callers of this process."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._budgets: dict[Budget, Buckets] = {
            "reads": Buckets(settings.rate_reads_per_minute, clock),
            "writes": Buckets(settings.rate_writes_per_minute, clock),
            "heavy": Buckets(settings.rate_heavy_per_minute, clock),
        }
        self._failures = Buckets(settings.rate_failures_per_minute, clock)

    def spend(self, who: str, budget: Budget) -> Standing | None:
        """Count a call of `who`; what is left, or None where there is no limit.

        Raises:
            TooManyRequests: the budget is used up.
        """
        buckets = self._budgets[budget]
        if not buckets.quota:
            return None
        had, left = buckets.take(who)
        if had:
            return Standing(budget, buckets.quota, int(left), buckets.seconds_to(buckets.quota - left))
        wait_s = buckets.seconds_to(1.0 - left)
        error = TooManyRequests(
            f"Expected at most {buckets.quota:,} {_WORDS[budget]} a minute. Received more: try again in {wait_s} s.",
            retry_after_s=wait_s,
        )
        error.headers = tuple(Standing(budget, buckets.quota, 0, wait_s).headers())
        raise error

    def failed(self, address: str | None) -> None:
        """Count a refused key from a client's address."""
        if self._failures.quota:
            self._failures.take(network_of(address))

    def check_failures(self, address: str | None) -> None:
        """Return where a client's address may try a key.

        Raises:
            TooManyRequests: too many of its keys were refused.
        """
        if not self._failures.quota:
            return
        left = self._failures.left(network_of(address))
        if left < 1.0:
            wait_s = self._failures.seconds_to(1.0 - left)
            raise TooManyRequests(
                f"Expected a key that is known. Received too many others from this address: try again in {wait_s} s.",
                retry_after_s=wait_s,
            )


_WORDS = {
    "reads": "reads",
    "writes": "writes",
    "heavy": "calls that compute (new studies, validation, best trials, importances, plots, exports, reports, uploads)",
}


def network_of(address: str | None) -> str:
    """What an address is counted as: itself, or its network for IPv6."""
    if address is None:
        return "local"
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))


def is_local(address: str | None) -> bool:
    """Whether the client is on this machine: a loopback address, or a Unix socket."""
    if address is None:
        return True
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback
