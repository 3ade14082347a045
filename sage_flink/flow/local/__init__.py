"""The in-process target: the same graph on asyncio, for tests, notebooks and the gateway."""
