"""The words of a request that count: two texts with the same ones ask for the same thing.

An embedding cannot tell "in 2023" from "in 2024", "Bob" from "Alice", "allowed" from "not allowed":
in a text of twenty words one of them hardly moves the vector. So the rule is the other way round. A
list says what may differ (capitals, punctuation behind a word, "the", courtesy, contractions, a few
synonyms), and every other word counts, in its place. What the list does not
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
_ENDS = ".,;:?…!"
#: Marks an end; no word can be it.
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
#: Words that mean the same in every request, numbers among them.
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
#: An opening is removed from the words joined by blanks, one after the other. Elsewhere the same
#: words may be what is asked for: who sang hello, how do you say please.
_OPENING = re.compile(
    r"^(?:(?:hi|hello|hey)(?: there)? \n |(?:please|kindly) (?:\n )?"
    r"|(?:(?:can|could|would|will) you (?:please )?(?:tell me|show me|explain|explain to me)"
    r"|i (?:want|would like|need) to know|do you know|tell me|show me|explain|explain to me)"
    r" (?=(?:what|who|whom|whose|which|where|when|why|how|if|whether) ))"
)
_CLOSING = re.compile(r" \n (?:please|thanks|thank you|thanks a lot|thank you very much)(?: \n)?$")
_REWORDED = re.compile(r"^how (?:can|do) i |^how to ")
#: A text that begins with one of these is a question with or without its mark.
_QUESTION = _set(
    "what who whom whose which where when why how is are am was were do does did can could should "
    "would has"
)


#: Courtesy is not endless, and a text may be megabytes of it.
_COURTESIES_MAX = 5


def counted_words(text: str) -> tuple[str, ...]:
    """The words of ``text`` that count, in their order; a text without words counts as it is.

    A word in capitals among others keeps them: IT is not it. Plurals, tenses, prepositions, modal
    verbs and "a" count (vitamin a is not a vitamin). So does a question mark, unless it ends a text
    that begins as a question. A word is what is between blanks: "x²" and "(2+3)*4" are words.
    """
    plain = unicodedata.normalize("NFC", text).translate(_APOSTROPHES)
    keeps_capitals = any(map(str.islower, plain))
    words = [word for raw in plain.split() for word in _words_of(raw, keeps_capitals)]
    counted = _without_courtesy(" ".join(words)).split()
    if counted[-1:] == ["?"] and counted[0] in _QUESTION:
        counted.pop()
    return tuple(counted) or (plain,)


def _words_of(raw: str, keeps_capitals: bool) -> list[str]:
    """The words that a text between blanks is, and a break where punctuation ends it."""
    word = _without_end(raw)
    end = raw[len(word) :]
    ends = ["?"] * ("?" in end) + [_BREAK] * bool(end)
    letters = [char for char in word if char.isalpha()]
    if keeps_capitals and len(letters) > 1 and all(map(str.isupper, letters)):
        return [word, *ends]
    word = word.lower()
    if word == "the":
        return ends
    if _THOUSANDS.fullmatch(word):
        return [word.replace(",", ""), *ends]
    word = _IRREGULAR.get(word, word)
    for short, whole in _CONTRACTIONS.items():
        word = word.removesuffix(short) + whole if word.endswith(short) else word
    if word.endswith("'s") and word[:-2] in _BEFORE_IS:
        word = f"{word[:-2]} is"
    return [_SAME.get(part, part) for part in word.split()] + ends


def _without_end(word: str) -> str:
    """The word without its punctuation. No regular expression: of 10 MB of dots one is slow."""
    length = len(word)
    while length and word[length - 1] in _ENDS:
        if word[length - 1] == "!" and word[: length - 1][-1:].isdigit():
            break
        length -= 1
    return word[:length]


def _without_courtesy(words: str) -> str:
    """The words without openings and closings; a text of nothing else stays as it is."""
    for _ in range(_COURTESIES_MAX):
        words = _CLOSING.sub("", _OPENING.sub("", words))
    return _REWORDED.sub("how to ", words)
