"""sage: a streaming engine for AI on Apache Flink.

::

    import sage_flink as sage
    from sage_connectors import kafka
    from sage_flink.operators import DecodeDocument, chunk

    docs = sage.db.collection("docs", dim=384)
    pipeline = (
        sage.flow.read("documents", kafka("documents"))
        .flat_map("decode", DecodeDocument())
        .flat_map("split", chunk(tokens_max=200, overlap=20))
        .call("embed", sage.embed(model="minilm"), capacity=64, timeout_s=10)
        .write("vectors", docs)
        .dead_letters_to(kafka("dead-letters"))
    )
    sage.flow.submit(pipeline, name="ingest")
"""

from sage_flink import db, flow, tsdb
from sage_flink.common import Record, Rejected, Settings
from sage_flink.inference import chat, completion, embed, rerank, retrieve

__all__ = [
    "Record",
    "Rejected",
    "Settings",
    "chat",
    "completion",
    "db",
    "embed",
    "flow",
    "rerank",
    "retrieve",
    "tsdb",
]
