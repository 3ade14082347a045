"""Limits of the process that reads a file, and its exit code for a file that it refuses."""

REFUSED = 65
CPU_S_MAX = 300
MEMORY_BYTES_MAX = 4 << 30
#: Of one file, tokens that two chunks share counted twice; OpenAI's limit of a file.
TOKENS_MAX = 5_000_000
#: Interactive requests come first.
NICENESS = 10
