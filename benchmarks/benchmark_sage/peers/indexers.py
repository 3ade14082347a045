"""LangChain's indexing API and CocoIndex over two versions of a corpus: which texts they embed.

Run by :mod:`benchmark_sage.memo` in an environment of its own::

    python indexers.py langchain|cocoindex CORPUS.json FOLDER

``CORPUS.json`` is a list of versions, each ``{document id: [chunk, ...]}``; the chunks are given,
so that all sides split in the same way. Prints a JSON list: how many texts were embedded for each
version. Vectors are of zeros: only their number is compared.
https://docs.langchain.com/oss/python/integrations/vectorstores (indexing API);
https://cocoindex.io/docs/programming_guide/function (memoization)
"""

import asyncio
import json
import os
import sys
from pathlib import Path

Version = dict[str, list[str]]
DIM = 8


def langchain(versions: list[Version], folder: Path) -> list[int]:
    """``index`` with its record manager, cleanup ``incremental``: unchanged chunks are skipped."""
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.indexing import InMemoryRecordManager, index
    from langchain_core.vectorstores import InMemoryVectorStore

    class Counted(Embeddings):
        texts = 0

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            self.texts += len(texts)
            return [[0.0] * DIM for _ in texts]

        def embed_query(self, text: str) -> list[float]:
            return [0.0] * DIM

    embeddings = Counted()
    store, records = InMemoryVectorStore(embeddings), InMemoryRecordManager(namespace="memo")
    records.create_schema()
    counts = []
    for version in versions:
        embeddings.texts = 0
        documents = [
            Document(page_content=chunk, metadata={"source": name})
            for name, chunks in version.items()
            for chunk in chunks
        ]
        index(
            documents,
            records,
            store,
            cleanup="incremental",
            source_id_key="source",
            key_encoder="sha256",
        )
        counts.append(embeddings.texts)
    return counts


def cocoindex(versions: list[Version], folder: Path) -> list[int]:
    """A component for each document, with a memoized function that embeds a chunk."""
    os.environ["COCOINDEX_DISABLE_USAGE_TRACKING"] = "1"
    os.environ["COCOINDEX_DB"] = str(folder / "cocoindex.db")
    import cocoindex as coco
    from cocoindex.connectors import localfs

    embedded = 0

    @coco.fn(memo=True)  # type: ignore[untyped-decorator]
    async def embed(chunk: str) -> list[float]:
        nonlocal embedded
        embedded += 1
        return [0.0] * DIM

    @coco.fn(memo=True)  # type: ignore[untyped-decorator]
    async def document(name: str, chunks: list[str], out: Path) -> None:
        vectors = [await embed(chunk) for chunk in chunks]
        localfs.declare_file(out / f"{name}.json", json.dumps(vectors), create_parent_dirs=True)

    current: Version = {}

    async def main(out: Path) -> None:
        for name, chunks in current.items():
            await coco.mount(coco.component_subpath(name), document, name, chunks, out)

    async def update_all() -> list[int]:
        nonlocal embedded, current
        counts, app = [], coco.App("memo", main, folder / "out")
        for current in versions:  # noqa: B007 - read by main
            embedded = 0
            await app.update()
            counts.append(embedded)
        return counts

    return asyncio.run(update_all())


if __name__ == "__main__":
    _, side, corpus, into = sys.argv
    loaded: list[Version] = json.loads(Path(corpus).read_bytes())
    run = {"langchain": langchain, "cocoindex": cocoindex}[side]
    print(json.dumps(run(loaded, Path(into))))
