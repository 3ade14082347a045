"""Verbs from record to records: functions for ``flat_map``, each a frozen, picklable spec."""

from sage_flink.operators.chunk import Chunk, chunk
from sage_flink.operators.decode import DecodeDocument, DecodeQuestion
from sage_flink.operators.encode import EncodeJson
from sage_flink.operators.measure import Measure, measure
from sage_flink.operators.rag import AnswerWithSources, RagPrompt
from sage_flink.operators.values import DropDeletes, filter_, map_

__all__ = [
    "AnswerWithSources",
    "Chunk",
    "DecodeDocument",
    "DecodeQuestion",
    "DropDeletes",
    "EncodeJson",
    "Measure",
    "RagPrompt",
    "chunk",
    "filter_",
    "map_",
    "measure",
]
