"""The job documents -> chunks -> embeddings -> Milvus, with telemetry in InfluxDB.

Reads a Kafka topic of documents, or a folder of files as people have them: text, Office, PDF, HTML,
mail, tables, code, archives of them. Failed records are written to the dead-letter topic.

The collection stays in step with the topic: a document written again replaces all its chunks, a
tombstone or ``{"id": ..., "op": "delete"}`` removes them. That needs the messages of one document
in one partition (key them by its id); the steps keep their order, because the collection receives
deletes. The points of the telemetry stay: they record the work done.

Run by ``sage jobs submit rag_ingest`` or ``flink run -py rag_ingest.py``.
"""

import dataclasses
from dataclasses import dataclass

import sage_flink as sage
from sage_connectors import DecodeFile, files, kafka
from sage_flink.operators import DecodeDocument, chunk, measure
from sage_jobs.entry import report_errors, run


@dataclass(frozen=True, slots=True, kw_only=True)
class RagIngest:
    """Topics, collection and settings of the job.

    A chunk whose text, title and model are unchanged is not embedded again for ``cache_ttl_s``.
    ``folder`` replaces the topic: the job then ends when all its files are read.
    ``full_text`` needs Milvus 2.5 or later, or milvus-lite. With ``snapshots`` readers see whole
    documents of completed checkpoints only; the job then runs with parallelism 1.
    """

    topic: str = "documents"
    folder: str = ""
    collection: str = "docs"
    bucket: str = "ops"
    dead_letters: str = "{job}.dead-letters"
    group: str = "{job}"
    model: str = "minilm"
    dim: int = 384
    cache_ttl_s: int = 30 * 86_400
    tokens_max: int = 200
    overlap: int = 20
    full_text: bool = False
    snapshots: bool = False


def build(config: RagIngest | None = None) -> sage.flow.Graph:
    """The graph; does not contact any server."""
    config = config or RagIngest()
    embedded = (
        _documents(config)
        .flat_map("split", chunk(tokens_max=config.tokens_max, overlap=config.overlap))
        .call(
            "embed",
            sage.embed(model=config.model, title="title"),
            capacity=256,
            timeout_s=120,
            retry=sage.flow.Retry(attempts_max=10),
            cache_ttl_s=config.cache_ttl_s,
        )
    )
    docs = sage.db.collection(
        config.collection,
        dim=config.dim,
        full_text=config.full_text,
        snapshots=config.snapshots,
    )
    vectors = embedded.write("vectors", docs)
    points = embedded.flat_map("measure", measure("chunks", fields=("tokens", "text"))).write(
        "telemetry", sage.tsdb.bucket(config.bucket)
    )
    return sage.flow.pipeline(vectors, points).dead_letters_to(kafka(config.dead_letters))


def _documents(config: RagIngest) -> sage.flow.Stream:
    if config.folder:
        return sage.flow.read("documents", files(config.folder)).flat_map("decode", DecodeFile())
    source = kafka(config.topic, group=config.group)
    return sage.flow.read("documents", source).flat_map("decode", DecodeDocument())


def main(
    topic: str = "documents",
    folder: str = "",
    collection: str = "docs",
    name: str = "rag_ingest",
    full_text: bool = False,
    snapshots: bool = False,
    options: "sage.flow.FlinkOptions | None" = None,
) -> None:
    """Submit the job."""
    config = dataclasses.replace(
        RagIngest(),
        topic=topic,
        folder=folder,
        collection=collection,
        full_text=full_text,
        snapshots=snapshots,
    )
    print(sage.flow.submit(build(config), name=name, options=options))


if __name__ == "__main__":
    with report_errors("rag_ingest"):
        run(main)
