"""The replica that received the longest prefix of this prompt, unless it is too busy.

A prompt is identified by a chain of hashes, each over everything up to a cut. Cuts lie at fixed
offsets, close together at the start and ever wider apart, so a prompt of 8 MiB has less than 80
hashes and a match is found to within an eighth of its length. **A busy holder is passed over**
(consistent hashing with bounded loads): the next replica then receives the prompt and becomes a
holder too, and a hot prefix spreads over as many replicas as it needs.

The state is what was sent, not what an engine still has in its cache: a replica that was restarted,
or has evicted the prefix, gets one request without a cache hit. Source: Mirrokni, Thorup and
Zadimoghaddam, Consistent Hashing with Bounded Loads (2018).
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
from sage_gateway.routing.policy import (
    LOAD,
    NO_HINTS,
    SLOT_INDEX,
    Candidate,
    RoutingHints,
    RoutingPolicy,
)

BLOCK_BYTES = 256  # about 64 tokens; a shorter prefix is not worth a detour
GROWTH = 8
#: Of the prompt; less would send all users of a common system prompt to one replica.
SHARE_MIN = 0.25
LOAD_MAX = 1.25  # times the mean
LINKS_MAX = 1 << 16  # some 10 MiB


@dataclass(slots=True)
class SentPrefixes:
    """The replicas that received each prefix, as bits by hash; the oldest prefixes are evicted.

    The only policy state that is mutated: a copy per request would cost more than the request.
    ``slots``: how many requests a replica computes at the same time. ``last``: the replica that
    last received a prefix that was new there.
    """

    slots: int
    last: int = -1
    links: OrderedDict[bytes, int] = field(default_factory=OrderedDict)


class PromptParts(msgspec.Struct):
    """The parts of a body that an engine renders into the prompt, in the order it does."""

    tools: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


_PROMPT = msgspec.json.Decoder(PromptParts)


def _cuts() -> tuple[int, ...]:
    found = [BLOCK_BYTES]
    while found[-1] < BODY_BYTES_MAX:
        found.append(found[-1] + max(BLOCK_BYTES, found[-1] // GROWTH))
    return tuple(found)


CUTS = _cuts()


def choose(candidates: Sequence[Candidate], hints: RoutingHints, sent: SentPrefixes) -> int:
    """The least loaded replica with the longest match; without a useful match, of all replicas.

    A new prefix is sent to equally idle replicas in rotation: if it were always the first, a quiet
    model would have all of its prefixes in one cache, and the other caches empty.
    """
    if hints.chain:
        most = load_limit(candidates, sent.slots)
        holders = longest(candidates, hints.chain, sent.links, most)
        return least(holders).slot_index if holders else _next(candidates, sent.last)
    return least(candidates).slot_index


def _next(candidates: Sequence[Candidate], last: int) -> int:
    fewest = least(candidates).in_flight
    idle = [c for c in candidates if c.in_flight == fewest]
    return idle[bisect_right(idle, last, key=SLOT_INDEX) % len(idle)].slot_index


def load_limit(candidates: Sequence[Candidate], slots: int) -> int:
    """How many requests in flight, with the next one, a preferred replica may have."""
    after = sum(map(LOAD, candidates)) + 1
    return max(slots, ceil(LOAD_MAX * after / len(candidates)))


def longest(
    candidates: Sequence[Candidate],
    chain: Sequence[bytes],
    links: Mapping[bytes, int],
    below: int,
) -> list[Candidate]:
    """The replicas that received the longest prefix, if it is at least ``SHARE_MIN`` of the prompt.

    Only replicas with less than ``below`` requests in flight.
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
    """The candidates with a bit in ``bits``; few bits are set where there are many candidates."""
    if bits.bit_count() * 4 > len(candidates):
        yield from (c for c in candidates if bits >> c.slot_index & 1)
        return
    while bits:
        index = (bits & -bits).bit_length() - 1
        at = bisect_left(candidates, index, key=SLOT_INDEX)
        if at < len(candidates) and candidates[at].slot_index == index:
            yield candidates[at]
        bits &= bits - 1


def start(spec: ModelSpec) -> SentPrefixes:
    """No prefix was sent yet."""
    return SentPrefixes(spec.slots)


def learn(sent: SentPrefixes, hints: RoutingHints, index: int) -> SentPrefixes:
    """Replica ``index`` received the prompt. Short prefixes are evicted last."""
    links = sent.links
    if hints.chain and not links.get(hints.chain[_shortest(hints.chain)], 0) >> index & 1:
        sent.last = index
    for link in reversed(hints.chain):
        links[link] = links.get(link, 0) | 1 << index
        links.move_to_end(link)
    while len(links) > LINKS_MAX:
        links.popitem(last=False)
    return sent


def read(request: Request) -> RoutingHints:
    """The chain of the prompt in the body, which is valid JSON."""
    found = _PROMPT.decode(request.body)
    prompt = b"".join((found.tools, found.messages, found.prompt, found.input))
    return RoutingHints(chain=hash_chain(prompt)) if len(prompt) >= BLOCK_BYTES else NO_HINTS


def hash_chain(prompt: bytes) -> tuple[bytes, ...]:
    """A hash over everything up to each cut within ``prompt``."""
    digest = blake2b(digest_size=8)
    links = []
    begin = 0
    for cut in CUTS[: bisect_right(CUTS, len(prompt))]:
        digest.update(prompt[begin:cut])
        links.append(digest.digest())
        begin = cut
    return tuple(links)


POLICY: RoutingPolicy[SentPrefixes] = RoutingPolicy(
    choose=choose, start=start, learn=learn, read=read
)
