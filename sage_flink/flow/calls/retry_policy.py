"""How often one request body is asked, and how long is waited in between: a pure account.

What finds no connection has asked nothing and does not count: while the pool is away, for a restart
say, calls wait for it as long as they have time, and the stream waits for them.
"""

from dataclasses import dataclass, replace

from sage_flink.flow.calls.classification import Attempt, Verdict, backoff_s

_AWAY_STEP_MAX = 4  # trying for a connection costs little: be there within 0.8 s of the pool


@dataclass(frozen=True, slots=True)
class Tries:
    """Attempts made with one body, and how many of them count.

    ``doubted_max`` bounds them while the content may be at fault, ``attempts_max`` otherwise.
    """

    attempts_max: int
    doubted_max: int
    made: int = 0
    counted: int = 0

    def after(self, tried: Attempt) -> "Tries":
        """The account with one more attempt in it."""
        heard = tried.verdict is not Verdict.AWAY
        return replace(self, made=self.made + 1, counted=self.counted + heard)

    def more(self, verdict: Verdict) -> bool:
        """Whether the same body is to be asked again after an attempt of this verdict."""
        most = self.doubted_max if verdict is Verdict.DOUBTFUL else self.attempts_max
        away = verdict is Verdict.AWAY
        return verdict.may_pass and (away or self.counted < most)

    def pause_s(self, tried: Attempt, chance: float) -> float:
        """How long to wait after that attempt, the last that :meth:`after` was told of."""
        away = tried.verdict is Verdict.AWAY
        step = min(self.made, _AWAY_STEP_MAX) if away else max(self.counted, 1)
        return backoff_s(step, tried.retry_after_s, chance)
