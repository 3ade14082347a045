"""Gateway of the local stack; it runs in its own environment, without PyFlink."""

from sage_flink.platform.stack.ports import Ports
from sage_flink.platform.stack.server import Server, responds
from sage_flink.platform.stack.stack_directory import StackDirectory, secret

KEY_PREFIX = "sk-sage-"


def gateway(directory: StackDirectory, ports: Ports) -> Server:
    """The OpenAI-compatible API of the model pool, on ``ports['gateway']``."""
    url = f"http://127.0.0.1:{ports['gateway']}"
    program = directory.root / "venv" / "gateway" / "bin" / "sage-gateway"

    def prepare() -> None:
        directory.require(program)
        directory.data("gateway").mkdir(parents=True, exist_ok=True)
        secret(directory, "gateway", KEY_PREFIX)

    return Server(
        name="gateway",
        command=(str(program),),
        folder=directory.data("gateway"),
        ports=("gateway",),
        url=url,
        env={
            "SAGE_GATEWAY_PORT": str(ports["gateway"]),
            "SAGE_ENGINES_PYTHON": str(directory.root / "venv" / "engines" / "bin" / "python"),
        },
        prepare=prepare,
        # While its engines load the gateway is healthy with status "starting", but not ready.
        ready=lambda: responds(
            f"{url}/health",
            lambda response: response.status_code == 200 and response.json()["status"] == "ok",
        ),
        stop_s=15,
    )
