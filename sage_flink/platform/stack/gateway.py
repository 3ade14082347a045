"""The gateway, from its own environment, which holds no PyFlink."""

from sage_flink.platform.stack.home import Home, secret
from sage_flink.platform.stack.part import Part, answers
from sage_flink.platform.stack.ports import Ports

KEY_PREFIX = "sk-sage-"


def gateway(home: Home, ports: Ports) -> Part:
    """The OpenAI-compatible front of the model pool, on ``ports['gateway']``."""
    url = f"http://127.0.0.1:{ports['gateway']}"
    program = home.root / "venv" / "gateway" / "bin" / "sage-gateway"

    def prepare() -> None:
        home.need(program)
        home.data("gateway").mkdir(parents=True, exist_ok=True)
        secret(home, "gateway", KEY_PREFIX)

    return Part(
        name="gateway",
        command=(str(program),),
        folder=home.data("gateway"),
        ports=("gateway",),
        url=url,
        env={
            "SAGE_GATEWAY_PORT": str(ports["gateway"]),
            "SAGE_ENGINES_PYTHON": str(home.root / "venv" / "engines" / "bin" / "python"),
        },
        prepare=prepare,
        # "starting" while its engines load is healthy, but not ready.
        ready=lambda: answers(
            f"{url}/health",
            lambda response: response.status_code == 200 and response.json()["status"] == "ok",
        ),
        ready_s=120.0,
        stop_s=15,
    )
