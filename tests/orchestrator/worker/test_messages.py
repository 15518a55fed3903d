"""Messages survive the way through Ray Tune, which adds keys of its own."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import get_args

import pytest

from orchestrator.failures import failure_of
from orchestrator.records import AttemptFacts, PartRow
from orchestrator.timing import Timing
from orchestrator.worker import messages
from orchestrator.worker.messages import EpochDone, Failed, Message, Started
from tests.orchestrator.databases.samples import result

PART = PartRow("method", "pskd", 1, "PS-KD", {}, "ab" * 32, "trainer/methods/pskd.py:20")
FACTS = AttemptFacts("h", "cuda:0 (H)", "GPU-1", 7, "l.log", {"versions": {"torch": "2"}})
SAMPLES: list[Message] = [
    Started(FACTS, "GPU-1", (7, 8), 3.5, (PART,)),
    EpochDone(replace(result(2, error=20.0), peak_memory_bytes=5), Timing("packed", {"seconds": 1.0}), 1.5, 2.5),
    messages.EngineChanged("launched"),
    messages.TeacherEpoch(),
    messages.DataProgress(),
    messages.DataIdentity("cd" * 32),
    messages.Done(),
    Failed(failure_of(ValueError("no"))),
]


def test_every_kind_of_message_has_a_sample():
    assert {type(message) for message in SAMPLES} == set(get_args(Message))


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_survives_tune(message: Message):
    # Tune gives the pid of its own process and a flag `done` of its own.
    received = {"pid": 1, "done": False, "config": {}, **json.loads(json.dumps(messages.to_values(message)))}
    if isinstance(message, Started):
        message = replace(message, pids=list(message.pids))
    assert messages.from_values(received) == message


def test_numbers_that_are_none_survive():
    epoch = EpochDone(result(0, losses={"cross_entropy": math.nan}), Timing("exclusive", {}), 0.0, 1.0)
    (loss,) = messages.from_values(messages.to_values(epoch)).result.losses.values()
    assert math.isnan(loss)
