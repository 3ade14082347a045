"""Writes a batch so that one record that the writer cannot handle does not stop the others."""

from collections.abc import Sequence

from sage_flink.common.errors import SageError
from sage_flink.common.records import Record
from sage_flink.flow.ports import Refusal, Writer


def write_all(writer: Writer, records: Sequence[Record]) -> list[Refusal]:
    """Write the records in order; return those that were refused, or that alone made it raise.

    A client that raises an error of its own at one record would fail the job at every attempt. The
    batch is halved until that record is alone: k of n take about 2 k log2 n writes, some of them
    again, which a writer allows.

    Raises:
        SageError: a fault of the store or of its settings, as ``writer.write`` raises it; some
            records may be stored.
    """
    try:
        return list(writer.write(records))
    except SageError:
        raise
    except Exception as error:
        if len(records) == 1:
            return [Refusal(records[0], f"the writer raised {type(error).__name__}: {error}"[:500])]
    middle = len(records) // 2
    return write_all(writer, records[:middle]) + write_all(writer, records[middle:])
