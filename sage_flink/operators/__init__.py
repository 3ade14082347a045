"""Operators: functions for ``flat_map``, ``map`` and ``filter``, each a frozen, picklable spec."""

from sage_flink.operators.chunk import Chunk, chunk
from sage_flink.operators.decode import DecodeDocument, DecodeQuestion
from sage_flink.operators.deletes import DropDeletes
from sage_flink.operators.encode import EncodeJson
from sage_flink.operators.fields import Select, Where
from sage_flink.operators.measure import Measure, measure
from sage_flink.operators.rag import AnswerWithSources, RagPrompt

__all__ = [
    "AnswerWithSources",
    "Chunk",
    "DecodeDocument",
    "DecodeQuestion",
    "DropDeletes",
    "EncodeJson",
    "Measure",
    "RagPrompt",
    "Select",
    "Where",
    "chunk",
    "measure",
]
