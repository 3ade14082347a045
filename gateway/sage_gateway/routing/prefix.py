"""The replica that has seen the longest beginning of this prompt, unless it is too busy.

A prompt is known by a chain of hashes, each over everything up to a cut. Cuts lie at fixed places,
close together at the start and ever wider apart, so the whole of a prompt of 8 MiB is known by less
than 80 hashes and a match is found to within an eighth of its length. **A busy holder is passed
over** (consistent hashing with bounded loads): the next replica then sees the prompt, becomes a
holder too, and a hot beginning spreads over as many replicas as it needs.

What is remembered is what was sent, not what an engine still has: a replica that was started anew,
or has dropped its cache, is asked once in vain. Source: Mirrokni, Thorup and Zadimoghaddam,
Consistent Hashing with Bounded Loads (2018).
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import ceil

import msgspec

from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.openai.schema import BODY_BYTES_MAX
from sage_gateway.requests.request import Request
from sage_gateway.routing.least_loaded import least
from sage_gateway.routing.policy import LOAD, NO_HINTS, PLACE, Candidate, Hints, Policy

BLOCK_BYTES = 256  # some 64 tokens; what is shorter is no beginning worth a detour
GROWTH = 8
SHARE_MIN = 0.25  # of the prompt: below it a common system prompt would gather everybody
LOAD_MAX = 1.25  # times the mean
LINKS_MAX = 1 << 16  # some 10 MiB


@dataclass(slots=True)
class Seen:
    """Which replicas saw which beginnings, as bits by hash; the oldest are forgotten.

    The one state that is changed in place: a copy a request would cost more than the request.
    ``slots``: so many requests a replica computes at the same time. ``last``: where the last
    beginning went that was new there.
    """

    slots: int
    last: int = -1
    links: OrderedDict[bytes, int] = field(default_factory=OrderedDict)


class Prompt(msgspec.Struct):
    """The parts of a body that an engine renders into the prompt, in the order it does."""

    tools: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


_PROMPT = msgspec.json.Decoder(Prompt)


def _cuts() -> tuple[int, ...]:
    found = [BLOCK_BYTES]
    while found[-1] < BODY_BYTES_MAX:
        found.append(found[-1] + max(BLOCK_BYTES, found[-1] // GROWTH))
    return tuple(found)


CUTS = _cuts()


def choose(candidates: Sequence[Candidate], hints: Hints, seen: Seen) -> int:
    """The least busy of those with the longest match; with no match worth it, of all.

    Of several equally idle ones a new beginning goes to the next in turn: were it always the first,
    a quiet model would keep all of its beginnings in one cache, and the others empty.
    """
    if hints.chain:
        most = bound(candidates, seen.slots)
        holders = longest(candidates, hints.chain, seen.links, most)
        return least(holders).place if holders else _next(candidates, seen.last)
    return least(candidates).place


def _next(candidates: Sequence[Candidate], last: int) -> int:
    fewest = least(candidates).in_flight
    idle = [c for c in candidates if c.in_flight == fewest]
    return idle[bisect_right(idle, last, key=PLACE) % len(idle)].place


def bound(candidates: Sequence[Candidate], slots: int) -> int:
    """So many requests in flight, with the next one, a replica may have to be preferred."""
    after = sum(map(LOAD, candidates)) + 1
    return max(slots, ceil(LOAD_MAX * after / len(candidates)))


def longest(
    candidates: Sequence[Candidate],
    chain: Sequence[bytes],
    links: Mapping[bytes, int],
    below: int,
) -> list[Candidate]:
    """Those that saw the longest beginning, if that is at least ``SHARE_MIN`` of the prompt.

    Only those with less than ``below`` requests in flight.
    """
    for at in range(len(chain) - 1, _shortest(chain) - 1, -1):
        bits = links.get(chain[at], 0)
        if bits and (holders := [c for c in _among(candidates, bits) if c.in_flight < below]):
            return holders
    return []


def _shortest(chain: Sequence[bytes]) -> int:
    """The cut below which a match is not worth a detour."""
    return bisect_left(CUTS, SHARE_MIN * CUTS[len(chain) - 1])


def _among(candidates: Sequence[Candidate], bits: int) -> Iterator[Candidate]:
    """Those whose places are set in ``bits``, which are few where the candidates are many."""
    if bits.bit_count() * 4 > len(candidates):
        yield from (c for c in candidates if bits >> c.place & 1)
        return
    while bits:
        place = (bits & -bits).bit_length() - 1
        at = bisect_left(candidates, place, key=PLACE)
        if at < len(candidates) and candidates[at].place == place:
            yield candidates[at]
        bits &= bits - 1


def start(spec: ModelSpec) -> Seen:
    """Nothing seen."""
    return Seen(spec.slots)


def learn(seen: Seen, hints: Hints, index: int) -> Seen:
    """Replica ``index`` has seen the prompt. Short beginnings are the last to be forgotten."""
    links = seen.links
    if hints.chain and not links.get(hints.chain[_shortest(hints.chain)], 0) >> index & 1:
        seen.last = index
    for link in reversed(hints.chain):
        links[link] = links.get(link, 0) | 1 << index
        links.move_to_end(link)
    while len(links) > LINKS_MAX:
        links.popitem(last=False)
    return seen


def read(request: Request) -> Hints:
    """The chain of the prompt in the body, which is valid JSON."""
    found = _PROMPT.decode(request.body)
    prompt = b"".join((found.tools, found.messages, found.prompt, found.input))
    return Hints(chain=chained(prompt)) if len(prompt) >= BLOCK_BYTES else NO_HINTS


def chained(prompt: bytes) -> tuple[bytes, ...]:
    """A hash over everything up to each cut within ``prompt``."""
    made = blake2b(digest_size=8)
    links = []
    begin = 0
    for cut in CUTS[: bisect_right(CUTS, len(prompt))]:
        made.update(prompt[begin:cut])
        links.append(made.digest())
        begin = cut
    return tuple(links)


POLICY: Policy[Seen] = Policy(choose=choose, start=start, learn=learn, read=read)
