"""The cases: each follows from a seed and its number, whoever runs it."""

from functools import cache
from random import Random

from tests.fuzz.crafted import Crafted, crafted
from tests.fuzz.mutations import corpus, mutated


def case(seed: int, number: int) -> Crafted:
    """One file to be read, and what is known of it."""
    random = Random(f"{seed}/{number}")
    if random.randrange(5) < 2:
        return crafted(random)
    name, data = mutated(random, _corpus())
    return Crafted(name, data, None)


@cache
def _corpus() -> list[bytes]:
    return corpus()
