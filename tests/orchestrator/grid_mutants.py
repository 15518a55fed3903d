"""Damages grid files as a slip of the hand or of the disk would."""

from __future__ import annotations

import random
import re

from tests.orchestrator.grid_files import SHIPPED

CHARACTERS = [*"[]{}:,-&*!|>'\"%@`#?~ \t\n\r\\.0129eabx", "é", "\u2028", "\x85", "\ufeff", "\x00", "\x1b", "🙂"]


def mutant(data: bytes, generator: random.Random) -> bytes:
    """A file with a few characters or lines deleted, doubled, swapped, replaced or put in."""
    text = data.decode()
    for _ in range(generator.choice((1, 1, 1, 2, 5))):
        lines = text.splitlines(keepends=True) or [""]
        position, number = generator.randrange(len(text) + 1), generator.randrange(len(lines))
        kind = generator.randrange(8)
        if kind == 0:
            text = text[:position] + text[position + generator.choice((1, 1, 2, 30)) :]
        elif kind == 1:
            text = text[:position] + generator.choice(CHARACTERS) + text[position:]
        elif kind == 2:
            text = text[:position] + generator.choice(CHARACTERS) + text[position + 1 :]
        elif kind == 3:
            text = text[:position] + text[position : position + 20] * 2 + text[position + 20 :]
        elif kind == 4:
            del lines[number]
            text = "".join(lines)
        elif kind == 5:
            text = "".join([*lines[:number], lines[number] * 2, *lines[number + 1 :]])
        elif kind == 6:
            other = generator.randrange(len(lines))
            lines[number], lines[other] = lines[other], lines[number]
            text = "".join(lines)
        else:
            text = text[:position]
    mutated = text.encode()
    if generator.random() < 0.05:
        mutated = mutated[: len(mutated) // 2] + generator.randbytes(3) + mutated[len(mutated) // 2 :]
    return mutated


# The part of each file that YAML reads; mutants of comments teach nothing.
SEEDS = [re.sub(rb"(?m)^#.*\n", b"", path.read_bytes()) for path in SHIPPED]
