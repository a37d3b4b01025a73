"""A client that is cut off again and again, in the middle of whatever it reads, loses and repeats nothing."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from tests.integration.stream_clients import DEADLINE_S, append
from tests.support.processes import wait_for
from tests.support.streams import Follower, by_study, logged

CUTS = 200


@pytest.mark.parametrize("is_firehose", [False, True], ids=["study", "firehose"])
def test_a_stream_cut_at_any_byte_two_hundred_times_equals_the_log(service: Any, is_firehose: bool) -> None:
    """The log grows all the while, by several writers, whose transactions overlap."""
    studies = [service.create(name=name)["id"] for name in ("first", "second")]
    followed = studies if is_firehose else studies[:1]
    path = "/v1/events" if is_firehose else f"/v1/studies/{studies[0]}/events"
    randomly, is_over = random.Random(), threading.Event()

    def write(seed: int) -> None:
        own = random.Random(seed)
        while not is_over.wait(own.uniform(0.0, 0.03)):
            append(service.database, own.choice(studies), own.randint(1, 4), padding="é" * own.randint(0, 60))

    def cut() -> int:
        if follower.cuts >= CUTS:
            is_over.set()
            return 2**40
        return randomly.randint(0, randomly.choice((200, 600, 4000)))

    follower = Follower(service.url, path, set(followed), cut, pause_s=0.0)
    writers = [threading.Thread(target=write, args=(random.random(),)) for _ in range(3)]
    for thread in (*writers, follower):
        thread.start()
    try:
        wait_for(is_over.is_set, 90, f"{CUTS} cuts")
    finally:
        is_over.set()
        for writer in writers:
            writer.join()
    for study in studies:
        service.client.post(f"/v1/studies/{study}:cancel")
    follower.join(DEADLINE_S)
    assert follower.is_done
    assert (follower.cuts, follower.broken, follower.problems) == (CUTS, 0, [])
    log = logged(service.database)
    assert by_study(follower.seen) == {study: log[study] for study in followed}
    for study in followed:
        assert [event["seq"] for event in log[study]] == list(range(1, len(log[study]) + 1))
