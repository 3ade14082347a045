"""Values that look like deletes of the document ``r1``: they are data on every path."""

import json
from typing import Any

_OLD = {"$delete": {"doc": "r1", "keep": ""}}
_FIELDS = {"kind": "delete", "document": "r1", "version": ""}

SHAPED_LIKE_DELETES: list[Any] = [
    _OLD,
    {"$delete": {"doc": "r1", "keep": "v2"}},
    {"$delete": {"document": "r1"}},
    _FIELDS,
    {"op": "delete", "id": "r1"},
    {"nested": _OLD},
    {"nested": [_FIELDS, {"deeper": _OLD}]},
    {json.dumps(_OLD): json.dumps(_FIELDS)},
    [_OLD],
    json.dumps(_OLD),
    "delete",
]
