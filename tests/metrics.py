"""Flink's runtime context and metric groups, as far as a Python step uses them."""


class Metrics(dict):
    """Counters by name, of all groups."""

    def get_metrics_group(self):
        return self

    def get_index_of_this_subtask(self):
        return 0

    def get_number_of_parallel_subtasks(self):
        return 1

    def add_group(self, *_):
        return self

    def counter(self, name):
        return self.setdefault(name, Counter())


class Counter:
    value = 0

    def inc(self, n=1):
        self.value += n
