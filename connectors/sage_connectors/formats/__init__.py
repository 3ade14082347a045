"""Formats of Kafka messages, for ``kafka(topic, format=...)``, as a source and as a sink.

==============  =================================================================  =======
format          messages                                                           written
==============  =================================================================  =======
``Json``        JSON                                                               yes
``Csv``         rows, with a header or declared columns
``Text``        text in one encoding                                               yes
``Raw``         bytes, as without a format                                         yes
``Avro``        with an inline schema, or by a schema registry                     yes
``Protobuf``    with an inline schema, or by a schema registry                     yes
``Debezium``    change events of a table, in JSON or Avro: upserts and deletes
``CloudEvents`` CloudEvents 1.0, structured and binary
==============  =================================================================  =======

A registry elsewhere, with a login, a certificate or an authority of its own, is a connection by its
name: ``kafka("orders", format=Avro(connection="registry"))``, and in YAML
``kafka: {topic: orders, format: {avro: {connection: registry}}}``. What a connection holds:
:class:`~sage_flink.common.connections.SchemaRegistryConnection`. In ``connections.yaml``::

    registry: {kind: schema_registry, url: 'https://registry.example:8081', username: ingest,
               password: 'env:REGISTRY_PASSWORD', ca: /etc/ssl/company.pem}

``Fields`` says which field is the id, the key, the event time, the text, or a delete flag. What
cannot be decoded is one dead letter of the source's step, with the message's bytes:

>>> import asyncio
>>> from sage_flink import Record, flow
>>> from sage_flink.testing import ListSink, ListSource
>>> topic = ListSource((Record("orders/0/0", b'{"id": 7, "note": "oak"}'),
...                     Record("orders/0/1", b"not JSON")), format=Json(Fields(id="$.id")))
>>> graph = flow.read("orders", topic).write("out", ListSink())
>>> outcome = asyncio.run(flow.run(graph))
>>> [(record.id, record.value) for record in outcome.written["out"]]
[('7', {'id': 7, 'note': 'oak'})]
>>> [(failed.step, failed.record.value) for failed in outcome.failed]
[('orders', b'not JSON')]

An index in step with a table whose changes Debezium writes:

>>> from sage_connectors import kafka
>>> from sage_flink import db, embed
>>> from sage_flink.operators import chunk
>>> rows = Debezium(Fields(text="@.body", title="@.title"))
>>> index = (
...     flow.read("trees", kafka("shop.public.trees", format=rows))
...     .flat_map("split", chunk(tokens_max=200, overlap=20))
...     .call("embed", embed(model="minilm"), capacity=64, timeout_s=60)
...     .write("index", db.collection("trees", dim=384))
...     .dead_letters_to(kafka("{job}.dead-letters"))
... )
>>> [node.name for node in flow.check(index).nodes][:3]
['trees.messages', 'trees', 'split']

Both targets decode in Python, in the first Python stage behind the source, with the same functions.
A value holds what :mod:`~sage_connectors.formats.carried` lists; a whole number of more than 64
bits, and a tree that is more than 100 deep, are rejected. In YAML a format is one word with its
fields: ``kafka: {topic: orders, format: {json: {fields: {id: $.id}}}}``.
"""

from sage_connectors.formats.avro import Avro
from sage_connectors.formats.cloud_events import CloudEvents
from sage_connectors.formats.csv_rows import Csv
from sage_connectors.formats.debezium import Debezium
from sage_connectors.formats.fields import Fields
from sage_connectors.formats.plain_json import Json
from sage_connectors.formats.plain_text import Raw, Text
from sage_connectors.formats.protobuf import Protobuf

Format = Avro | CloudEvents | Csv | Debezium | Json | Protobuf | Raw | Text

__all__ = [
    "Avro",
    "CloudEvents",
    "Csv",
    "Debezium",
    "Fields",
    "Format",
    "Json",
    "Protobuf",
    "Raw",
    "Text",
]
