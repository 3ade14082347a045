"""YAML pipelines for tests: sound ones, and every way to write a wrong one."""

import sage_connectors
import sage_flink as sage
from sage_flink import db, inference, operators, tsdb

WORDS = sage.flow.vocabulary(sage_connectors, db, tsdb, inference, operators)
GOOD = """\
# documents -> Milvus
steps:
  - read: documents
    from:
      kafka:
        topic: documents
        start: earliest
  - flat_map: decode
    input: documents
    with: decode_document
  - flat_map: split
    input: decode
    with:
      chunk:
        tokens_max: 200
        overlap: 20
  - call: embed
    input: split
    capacity: 64
    timeout_s: 10
    to:
      embed: {model: minilm}
    retry:
      attempts_max: 5
  - batch: rows
    input: embed
    items_max: 100
    bytes_max: 1000000
    linger_s: 0.1
  - write: vectors
    input: rows
    into:
      collection:
        name: docs
        dim: 384
dead_letters:
  kafka:
    topic: failed
"""

#: What is wrong: a text, its replacement, the line of the error, and what its message says.
WRONG = {
    "no YAML": ("topic: documents", "[topic", 7, "not YAML: expected ',' or ']'"),
    "a tab": ("    from:", "\tfrom:", 4, "not YAML: found character"),
    "a key twice": ("    capacity: 64", "    input: split", 19, "the key 'input' is there"),
    "an unknown key": ("dead_letters:", "dead_letter:", 36, "unknown key 'dead_letter'"),
    "an unknown verb": ("- batch:", "- bach:", 25, "a step needs one of read, flat_map"),
    "a step that is text": ("- batch: rows", "- rows\n  - batch: rows", 25, "a step needs one"),
    "two verbs": ("    input: rows", "    read: x", 30, "a step needs one of read"),
    "no spec": ("    with: decode_document\n", "", 8, "'decode': needs `with:` with one of:"),
    "an unknown word": ("decode_document", "decode_doc", 10, "does not know 'decode_doc'; use one"),
    "a word elsewhere": ("decode_document", "kafka", 10, "kafka is for `read:` or `write:`"),
    "a missing field": ("        overlap: 20\n", "", 14, "'split': needs a field `overlap:`"),
    "an unknown field": ("overlap: 20", "overlaps: 20", 16, "unknown field 'overlaps'; it knows"),
    "text for a number": ("overlap: 20", "overlap: some", 16, "overlap must be a whole number"),
    "a number for text": ("topic: documents", "topic: 3", 6, "topic must be text, got 3"),
    "another choice": ("start: earliest", "start: now", 7, "start must be one of 'committed'"),
    "too little": ("capacity: 64", "capacity: 0", 19, "capacity must be at least 1, got 0"),
    "an option": ("attempts_max: 5", "attempts_max: 0", 24, "attempts_max must be at least 1"),
    "an option's name": ("attempts_max: 5", "tries: 5", 24, "unknown field 'tries'"),
    "no input": ("    input: split\n", "", 17, "'embed': needs a field `input:`"),
    "a dead-letter sink": ("    topic: failed", "    topics: x", 38, "unknown field 'topics'"),
    "a null": ("dim: 384", "dim:", 35, "dim must be a whole number, got None"),
    "no name": ("- batch: rows", "- batch: ''", 25, "step name: must be 1 to 100"),
}
#: Steps with time, state, and several inputs.
STATEFUL = """\
steps:
- read: orders
  from: {kafka: {topic: orders, format: json}}
- event_time: orders-time
  input: orders
  out_of_order_s: 5.0
  field: at
  unit: s
- key_by: by-user
  input: orders-time
  field: user.id
- deduplicate: once
  input: by-user
  within_s: 60.0
- window: totals
  input: once
  windows: {sliding: {size_s: 60.0, every_s: 10.0}}
  aggregates:
    n: count
    price: {mean: {field: price}}
  early: {every_s: 5}
- late: late
  input: totals
- read: payments
  from:
    kafka:
      topic: payments
      format: {json: {fields: {id: $.id, event_time: $.at}}}
- processing_time: payments-time
  input: payments
- join: paid
  left: once
  right: payments-time
  within_s: [0.0, 3600.0]
  how: full
- rate_limit: limit
  input: paid
  records_max: 3
  per_s: 10.0
- call: ask
  input: limit
  capacity: 4
  timeout_s: 5
  to: {chat: {model: m}}
  merging: {threshold: 0.9, within_s: 60, text: question}
- union: all
  inputs: [ask, totals, late]
- filter: english
  input: all
  with: {where: {field: lang, equals: en}}
- write: out
  input: english
  into: {kafka: {topic: out, format: json}}
"""
