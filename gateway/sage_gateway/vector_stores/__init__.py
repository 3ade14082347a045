"""Vector stores of the OpenAI API, and the search of any collection of ``sage.db``.

``service.py`` is the service behind ``/v1/vector_stores``, ``file_batches.py`` that behind its
``file_batches``, and ``schema.py`` has OpenAI's objects; ``search.py`` and ``filters.py`` answer
searches. ``attachment_factory.py`` checks requests to attach files. ``indexer.py`` starts and stops
what works in the background: ``attachment.py`` indexes one file and is the only writer of its
state, of chunks that the process ``chunk_reader.py`` makes for ``file_chunks.py``;
``row_writer.py`` writes and reads the rows. ``catalog.py`` and ``store_tables.py`` (SQLite) keep
the stores, ``file_batch_tables.py`` and ``file_attributes.py`` their batches and changes;
``embedding_models.py`` decides the size of chunks. Vector stores belong to one gateway and lie in
its own folder.
"""
