"""Marked pairs of requests, made by script: which may share an answer, and which must not.

Each pair has a kind, so that a figure says where the check is strict. The kinds of pairs that may
merge include synonyms and other orders of words, which the check does not merge; those that may not
include changes that no list of names, numbers and negations would find.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple


class Pair(NamedTuple):
    """Two requests; ``same``: they ask for the same thing."""

    kind: str
    one: str
    other: str
    same: bool


PEOPLE = ("Alice", "Bob", "Maria Lopez", "John Smith", "Chen Wei", "Fatima", "O'Brien", "Anna")
PLACES = ("France", "Japan", "Paris", "New York", "Kenya", "the USA", "Berlin", "Peru")
THINGS = ("the invoice", "a refund", "my order", "the contract", "the report", "our server")
NUMBERS = ("3", "4", "17", "2023", "2024", "1,200", "1.5", "10", "99", "250")
BASES = (
    "what is the capital of {place}",
    "how do I reset the password of {person}",
    "when was {thing} sent to {person}",
    "how many people live in {place}",
    "why did {person} cancel {thing}",
    "what is the weather in {place} in March",
    "how do I get a visa for {place} for {number} days",
    "does {person} work at the office in {place}",
    "is {thing} from {number} paid",
    "what does it cost to ship {number} boxes to {place}",
    "can {person} change {thing} before {number} pm",
    "which team is responsible for {thing} in {place}",
    "summarize the message that {person} wrote about {thing} in {number}",
    "is it allowed to send {thing} to {person} by e-mail",
    "list the customers in {place} who bought more than {number} items",
)
SAME_REWORDING = (
    ("capitals", lambda t: t.lower()),
    ("capitals", lambda t: t[0].upper() + t[1:]),
    ("end of the text", lambda t: f"{t}?" if _is_question(t) else f"{t}."),
    ("blanks", lambda t: "  " + t.replace(" ", "  ", 2) + "\n"),
    ("greeting", lambda t: f"Hi! {t[0].upper()}{t[1:]}"),
    ("please", lambda t: f"Please {t}" if not _is_question(t) else f"{t}? Thanks!"),
    ("articles", lambda t: t.replace("the ", "")),
    ("articles", lambda t: t.replace(" a ", " ")),
    ("contraction", lambda t: t.replace("what is", "what's").replace("why did", "why'd")),
    ("asking", lambda t: f"Can you tell me {t}?" if _is_question(t) else f"please, {t}"),
    ("how to", lambda t: t.replace("how do I", "how can I")),
    ("synonym", lambda t: _replace(t, SYNONYMS)),
    ("order of words", lambda t: _turned(t)),
)
SYNONYMS = (
    ("how do I", "what is the way to"),
    ("how many people live in", "what is the population of"),
    ("cancel", "call off"),
    ("responsible for", "in charge of"),
    ("summarize", "sum up"),
    ("allowed", "permitted"),
    ("does it cost", "is the price"),
    ("list", "show"),
    ("sent to", "mailed to"),
    ("change", "modify"),
    ("bought", "purchased"),
)
OPPOSITES = (
    ("before", "after"),
    ("more than", "less than"),
    ("sent to", "sent by"),
    ("bought", "sold"),
    ("cancel", "confirm"),
    ("paid", "unpaid"),
    ("allowed", "forbidden"),
    ("does", "did"),
    ("what is", "what was"),
    ("can", "should"),
    ("why did", "when did"),
    ("how many", "which"),
    (" in ", " outside "),
)
NEGATIONS = (
    ("is it allowed", "is it not allowed"),
    ("is it allowed", "isn't it allowed"),
    ("does ", "doesn't "),
    ("can ", "can't "),
    ("why did", "why didn't"),
    ("who bought", "who never bought"),
    ("is the", "is not the"),
    ("is paid", "is not paid"),
    ("people live in", "people do not live in"),
    ("is responsible", "is not responsible"),
    ("do I get", "do I not get"),
    ("does it cost", "does it not cost"),
    ("to send", "to not send"),
    ("what is", "what isn't"),
    ("wrote about", "never wrote about"),
)
SWAPS = (
    ("Did {a} pay {b}?", "Did {b} pay {a}?"),
    ("Is {a} taller than {b}?", "Is {b} taller than {a}?"),
    ("Why is {a} angry with {b}?", "Why is {b} angry with {a}?"),
    ("Who introduced {a} to {b}?", "Who introduced {b} to {a}?"),
    ("{a} owes {b} money, what can {a} do?", "{b} owes {a} money, what can {b} do?"),
)
COMMON_SWAPS = (
    ("convert euros to dollars", "convert dollars to euros"),
    ("is a cat bigger than a dog", "is a dog bigger than a cat"),
    ("how do I move files from the server to the laptop", "how do I move files from the laptop to "
     "the server"),
    ("which tests fail after the build and before the release", "which tests fail before the build "
     "and after the release"),
    ("does the man bite the dog", "does the dog bite the man"),
    ("translate this from German to English", "translate this from English to German"),
)  # fmt: skip
OTHERS = (
    ("question or statement", "is the server down", "the server is down"),
    ("question or statement", "Bob has paid?", "Bob has paid."),
    ("capitals that matter", "what is it", "what is IT"),
    ("capitals that matter", "who is responsible for vaccines", "WHO is responsible for vaccines"),
    ("capitals that matter", "does vitamin A help", "does a vitamin help"),
    ("plural", "who is the president of France", "who are the presidents of France"),
    ("noun", "may I feed my dog chicken", "may I feed my dog chocolate"),
    ("noun", "how do I upload my invoice", "how do I download my invoice"),
    ("noun", "what is the weight of an elephant", "what is the weight of a tiger"),
    ("noun", "my husband is ill, who pays", "my wife is ill, who pays"),
    ("noun", "book a table for Monday", "book a table for Tuesday"),
    ("noun", "turn the left light on", "turn the right light on"),
    ("noun", "delete the oldest file", "delete the newest file"),
    ("verb", "open the valve", "close the valve"),
    ("verb", "how do I say hello in French", "how do I say please in French"),
    ("quoted", "who sang hello", "who sang thank you"),
    ("quoted", "how do you say please", "how do you say hello"),
    ("preposition", "flights from Paris", "flights to Paris"),
    ("preposition", "coffee with milk", "coffee without milk"),
    ("sign", "what is 5 - 3", "what is 5 + 3"),
    ("sign", "what is 2 * (3 + 4)", "what is (2 * 3) + 4"),
    ("sign", "is it -5 degrees", "is it 5 degrees"),
    ("sign", "what is 5!", "what is 5"),
    ("sign", "teach me C", "teach me C++"),
    ("sign", "what is 5² minus 3", "what is 52 minus 3"),
    ("sign", "solve a x = 5", "solve x = 5"),
    ("sign", "is f(1,200) defined", "is f(1200) defined"),
    ("article", "does vitamin a help", "does a vitamin help"),
    ("question or statement", "Bob has paid? Alice has not.", "Bob has paid. Alice has not."),
    ("language", "Wo sind die Maße", "Wo sind die Masse"),
    ("version", "what is new in Python 3.10", "what is new in Python 3.1"),
    ("code", "error E1002 in module auth", "error E1003 in module auth"),
    ("lower-case name", "who is alice in the team", "who is bob in the team"),
    ("lower-case name", "mails from anna about the budget", "mails from ana about the budget"),
    ("qualifier", "is aspirin safe", "is aspirin safe for children"),
    ("scope", "only Bob may read the report", "Bob may only read the report"),
    ("language", "Ist das erlaubt", "Ist das nicht erlaubt"),
    ("language", "¿Quién pagó a Ana?", "¿A quién pagó Ana?"),
)


def marked_pairs(seed: int = 14) -> list[Pair]:
    """The pairs, each once, in a stable order."""
    rand = random.Random(seed)
    pairs = [*_same(rand), *_numbers(rand), *_names(rand), *_negations(rand), *_swaps(rand)]
    pairs += _opposites(rand)
    pairs += [Pair(kind, one, other, False) for kind, one, other in OTHERS]
    pairs += [Pair("swapped nouns", one, other, False) for one, other in COMMON_SWAPS]
    return sorted(set(pairs))


def _same(rand: random.Random) -> Iterator[Pair]:
    for base in BASES:
        for kind, reword in SAME_REWORDING:
            for _ in range(2):
                text = _filled(base, rand)
                other = reword(text)
                if other != text:
                    yield Pair(kind, text, other, True)


def _numbers(rand: random.Random) -> Iterator[Pair]:
    for base in BASES:
        for _ in range(6 if "{number}" in base else 0):
            one, other = rand.sample(NUMBERS, 2)
            text = _filled(base.replace("{number}", "{{number}}"), rand)
            yield Pair("number", text.format(number=one), text.format(number=other), False)


def _names(rand: random.Random) -> Iterator[Pair]:
    for base in BASES:
        for word, names in (("person", PEOPLE), ("place", PLACES)):
            for n in range(5 if f"{{{word}}}" in base else 0):
                one, other = rand.sample(names, 2)
                text = _filled(base.replace(f"{{{word}}}", f"{{{{{word}}}}}"), rand)
                made = (text.format(**{word: one}), text.format(**{word: other}))
                lower = n == 4
                yield Pair("name", *(t.lower() if lower else t for t in made), False)


def _negations(rand: random.Random) -> Iterator[Pair]:
    for base in BASES:
        for what, by in NEGATIONS:
            if what in base:
                for _ in range(3):
                    text = _filled(base, rand)
                    yield Pair("negation", text, text.replace(what, by, 1), False)


def _opposites(rand: random.Random) -> Iterator[Pair]:
    for base in BASES:
        for what, by in OPPOSITES:
            if what in base:
                for _ in range(2):
                    text = _filled(base, rand)
                    yield Pair("opposite", text, text.replace(what, by, 1), False)


def _swaps(rand: random.Random) -> Iterator[Pair]:
    for one, other in SWAPS:
        for _ in range(6):
            a, b = rand.sample(PEOPLE, 2)
            yield Pair("swapped names", one.format(a=a, b=b), other.format(a=a, b=b), False)


def _filled(base: str, rand: random.Random) -> str:
    return base.format(
        person=rand.choice(PEOPLE),
        place=rand.choice(PLACES),
        thing=rand.choice(THINGS),
        number=rand.choice(NUMBERS),
    )


def _is_question(text: str) -> bool:
    return not text.startswith(("summarize", "list"))


def _replace(text: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for what, by in pairs:
        if what in text:
            return text.replace(what, by, 1)
    return text


def _turned(text: str) -> str:
    """The words behind the last preposition in front, as people also put it."""
    head, word, tail = text.rpartition(" in ")
    return f"In {tail}, {head}" if word else text


class Request(NamedTuple):
    """A text, and the number of what it asks for."""

    text: str
    meaning: int


def traffic(count: int, near: float, seed: int = 3) -> list[Request]:
    """``count`` different texts; the part ``near`` of them reword an earlier one.

    Among the others are the pairs that must not merge, without those that only capitals set apart.
    """
    rand = random.Random(seed)
    pairs = rand.sample(marked_pairs(), len(marked_pairs()))
    originals = {pair.one: pair.one for pair in pairs if pair.same}
    reworded = {p.other: p.one for p in pairs if p.same and p.other not in originals}
    reworded = dict(list(reworded.items())[: round(count * near)])
    apart = [text for p in pairs if not p.same for text in (p.one, p.other)]
    texts: dict[str, str] = {}
    for text in (*reworded.values(), *apart):
        if text not in reworded:
            texts.setdefault(text.lower(), text)
    ordered = list(texts.values())[: count - len(reworded)]
    rand.shuffle(ordered)
    meanings = {text: number for number, text in enumerate(ordered)}
    requests = [Request(text, number) for text, number in meanings.items()]
    for text, one in reworded.items():
        after = next(n for n, request in enumerate(requests) if request.text == one)
        requests.insert(rand.randint(after + 1, len(requests)), Request(text, meanings[one]))
    return requests
