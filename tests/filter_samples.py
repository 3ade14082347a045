"""Random rows and filters of a vector store, and texts that try to break out of an expression."""

import random
from typing import Any

from sage_flink.db import RowFilter, VectorRow, field
from sage_flink.db.filters import All, Either
from sage_flink.db.vectors import pack

WORDS = [
    "en",
    "de",
    "fr",
    "Öl",
    "",
    "a%b",
    "a_b",
    "ab",
    "a",
    "É",
    "日本",
    'q"q',
    "b\\",
    "z'z",
    "\n",
]
NUMBERS: list[Any] = [0, 1, 2, 3, -5, 1.0, 0.5, 2.5, -1e-9, 2**40, 2**53, 2**53 + 1, 10**18, 1e300]
VALUES: list[Any] = [*WORDS, *NUMBERS, True, False]
SHAPES = [
    "year",
    "lang",
    "price",
    "new",
    "tags",
    "meta",
    "first name",
    "größe",
    "in",
    "a.b",
    "null",
]
PLACES: list[tuple[str | int, ...]] = [
    ("id",),
    ("doc",),
    ("version",),
    *[(name,) for name in SHAPES],
    ("absent",),
    ("tags", 0),
    ("tags", 2),
    ("meta", "author"),
    ("meta", "n"),
    ("meta", "deep", "list", 1),
    ("meta", "0"),
    ("absent", "n"),
]


def random_rows(count: int, seed: int) -> list[VectorRow]:
    """Rows whose fields are absent, null or of another type now and then."""
    rng = random.Random(seed)
    return [
        VectorRow(f"r{n}", pack([rng.uniform(0.1, 1), 1.0]), _fields(rng)) for n in range(count)
    ]


def random_filters(count: int, seed: int) -> list[RowFilter]:
    """Filters of all kinds, up to four levels deep."""
    rng = random.Random(seed)
    return [_filter(rng, rng.randint(0, 3)) for _ in range(count)]


def _fields(rng: random.Random) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "year": rng.randint(0, 5),
        "lang": rng.choice(WORDS),
        "price": rng.choice(NUMBERS),
        "new": rng.random() < 0.5,
        "tags": [rng.choice(VALUES) for _ in range(rng.randint(0, 4))],
        "meta": {
            "author": rng.choice(WORDS),
            "n": rng.choice(NUMBERS),
            "deep": {"list": [rng.choice(VALUES), rng.choice(VALUES)]},
            "0": rng.choice(WORDS),
        },
        "first name": rng.choice(WORDS),
        "größe": rng.choice(NUMBERS),
        "in": rng.randint(0, 3),
        "a.b": rng.choice(WORDS),
        "null": None,
    }
    for name in rng.sample(SHAPES, 3):
        if rng.random() < 0.5:
            del fields[name]
        else:
            fields[name] = rng.choice([*VALUES, None, [], {}, [1, "a"], {"author": 3}])
    if rng.random() < 0.7:
        fields["doc"] = rng.choice(WORDS)
    if rng.random() < 0.7:
        fields["version"] = rng.choice(WORDS)
    return fields


def _filter(rng: random.Random, depth: int) -> RowFilter:
    if depth:
        parts = tuple(_filter(rng, depth - 1) for _ in range(rng.randint(1, 3)))
        return rng.choice([All(parts), Either(parts), ~parts[0]])
    name, *keys = rng.choice(PLACES)
    of = field(str(name))
    for key in keys:
        of = of[key]
    value = rng.choice(VALUES)
    order = value if not isinstance(value, bool) else 1
    prefix = rng.choice(["a", "É", "", "日", "a\\%", "a\\_", 'q"', "b\\\\"])
    kinds = [
        lambda: of == value,
        lambda: of != value,
        lambda: of < order,
        lambda: of <= order,
        lambda: of > order,
        lambda: of >= order,
        lambda: of.in_(rng.sample(VALUES, rng.randint(0, 4))),
        lambda: of.like(f"{prefix}%"),
        lambda: of.like(prefix),
        lambda: of.contains(value),
        lambda: of.exists(),
    ]
    made: RowFilter = rng.choice(kinds)()
    return made


#: Sixty texts that end a quoted string, comment, or reach another field where text is pasted.
ATTACKS = [
    *('" or 1 == 1', '" or id != "', "' or 1 == 1", '" || id != "', '") or (id != "', "' || '1"),
    *(
        '\\" or id != \\"',
        '\\\\" or id != "',
        "\\",
        "\\\\",
        '"',
        "'",
        '""',
        '"""',
        "'''",
        "`",
        "``",
    ),
    *('a" or exists $meta["owner"] or "', '"] or id != "" or $meta["x', '"][', "][", "]", "["),
    *('$meta["owner"] == "b"', 'owner == "b"', "id != ''", "true", "1 == 1", "not false", "%", "_"),
    *(
        '" or owner like "%',
        '%" or owner like "%',
        "%%",
        "\\%",
        "\\_",
        "*",
        "{}",
        "{0}",
        "{{owner}}",
    ),
    *("$id", "${owner}", "%s", "%(owner)s", "\n or id != ''", '"\n or id != "', "\r\n", "\t", "\0"),
    *(
        "\x08",
        "\x1b",
        "\u2028",
        "\u00a0or\u00a0",
        "＂ or id != ＂",
        "\\u0022 or 1==1",
        "\\x22 or 1==1",
    ),
    *("json_contains(tags, 'x')", "; drop collection docs", "-- ", "/* */"),
]
