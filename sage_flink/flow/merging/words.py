"""The words of a request that count: two texts with the same ones ask for the same thing.

An embedding cannot tell "in 2023" from "in 2024", "Bob" from "Alice", "allowed" from "not allowed":
in a text of twenty words one of them hardly moves the vector. So the rule is the other way round. A
list says what may differ (capitals, the end of a word's punctuation, articles, courtesy,
contractions, a few synonyms), and every other word counts, in its place. What the list does not
know, names and numbers among it, therefore keeps two requests apart, in any language.

>>> counted_words("Hi! Could you please tell me what's the capital of France?")
('what', 'is', 'capital', 'of', 'france')
>>> counted_words("what is capital of france") == counted_words("What is the capital of France?")
True
>>> counted_words("Did Bob pay Alice?") == counted_words("Did Alice pay Bob?")
False
"""

import re
import unicodedata


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_APOSTROPHES = str.maketrans("‘’ʼ´`", "'''''")
#: What ends a word without being a part of it. An exclamation mark behind a digit is a factorial.
_END = re.compile(r"(?:[.,;:?…]|(?<![0-9])!)+$")
#: Stands for it; no word can be it.
_BREAK = "\n"
_THOUSANDS = re.compile(r"[$€£]?[0-9]{1,3}(?:,[0-9]{3})+")
_IRREGULAR = {
    "can't": "can not",
    "cannot": "can not",
    "i'd": "i would",
    "shan't": "shall not",
    "won't": "will not",
}
_CONTRACTIONS = {"n't": " not", "'re": " are", "'ll": " will", "'ve": " have", "'m": " am"}
#: Behind these 's is "is"; elsewhere it is kept.
_BEFORE_IS = _set("what who where when why how it that there here he she")
_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve"
#: Words that stand for each other in every request, numbers among them.
_SAME = {
    "begin": "start",
    "e-mail": "email",
    "film": "movie",
    "ok": "okay",
    "purchase": "buy",
    "telephone": "phone",
    "television": "tv",
    **dict(zip(_NUMBERS.split(), map(str, range(13)), strict=True)),
    **{"first": "1st", "second": "2nd", "third": "3rd"},
}
_ARTICLES = _set("a an the")
#: An opening is removed from the words joined by blanks, one after the other. Elsewhere the same
#: words may be what is asked for: who sang hello, how do you say please.
_OPENING = re.compile(
    r"^(?:(?:hi|hello|hey)(?: there)? \n |(?:please|kindly) (?:\n )?"
    r"|(?:(?:can|could|would|will) you (?:please )?(?:tell me|show me|explain|explain to me)"
    r"|i (?:want|would like|need) to know|do you know|tell me|show me|explain|explain to me)"
    r" (?=(?:what|who|whom|whose|which|where|when|why|how|if|whether) ))"
)
_CLOSING = re.compile(r" \n (?:please|thanks|thank you|thanks lot|thank you very much)(?: \n)?$")
_REWORDED = re.compile(r"^how (?:can|do) i |^how to ")
#: A text that begins with one of these is a question with or without its mark.
_QUESTION = _set(
    "what who whom whose which where when why how is are am was were do does did can could should "
    "shall will would may might must has have had"
)


def counted_words(text: str) -> tuple[str, ...]:
    """The words of ``text`` that count, in their order; a text without words counts as it is.

    A word in capitals among others keeps them: IT is not it. Plurals, tenses, prepositions and
    modal verbs count. Whether a text is a question counts: by its mark where no word says so.
    """
    plain = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES)
    keeps_capitals = any(map(str.islower, plain))
    words: list[str] = []
    for raw in plain.split():
        words += _words_of(raw, keeps_capitals=keeps_capitals, is_first=not words)
    counted = _without_courtesy(" ".join(words)).split()
    if plain.rstrip().endswith("?") and counted and counted[0] not in _QUESTION:
        counted.append("?")
    return tuple(counted) or (plain,)


def _words_of(raw: str, *, keeps_capitals: bool, is_first: bool) -> list[str]:
    """The words that a text between blanks is, and a break where punctuation ends it."""
    word = _END.sub("", raw)
    ends = [_BREAK] if word != raw else []
    if keeps_capitals and _is_in_capitals(word, is_first):
        return [word, *ends]
    word = word.casefold()
    if word in _ARTICLES:
        return ends
    if _THOUSANDS.fullmatch(word):
        return [word.replace(",", ""), *ends]
    word = _IRREGULAR.get(word, word)
    for short, whole in _CONTRACTIONS.items():
        word = word.removesuffix(short) + whole if word.endswith(short) else word
    if word.endswith("'s") and word[:-2] in _BEFORE_IS:
        word = f"{word[:-2]} is"
    return [_SAME.get(part, part) for part in word.split()] + ends


def _is_in_capitals(word: str, is_first: bool) -> bool:
    """Whether the word is one in capitals; a single letter is where it does not begin the text."""
    letters = [char for char in word if char.isalpha()]
    several = len(letters) > 1 or (not is_first and word == "A")
    return several and all(map(str.isupper, letters))


def _without_courtesy(words: str) -> str:
    """The words without openings and closings; a text of nothing else stays as it is."""
    while (shorter := _CLOSING.sub("", _OPENING.sub("", words))) != words:
        words = shorter
    return _REWORDED.sub("how to ", words)
