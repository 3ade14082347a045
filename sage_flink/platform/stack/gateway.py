"""Gateway of the local stack; it runs in its own environment, without PyFlink."""

from sage_flink.platform.stack.ports import Ports
from sage_flink.platform.stack.server import Server, responds
from sage_flink.platform.stack.stack_directory import StackDirectory, secret
from sage_flink.platform.stack.stack_json import address

KEY_PREFIX = "sk-sage-"


def gateway(directory: StackDirectory, ports: Ports, secured: bool = False) -> Server:
    """The OpenAI-compatible API of the model pool, on ``ports['gateway']``.

    Its engines listen on loopback without a secret, also in a secured stack.
    """
    url = address("gateway", ports, secured=secured)
    authority = directory.tls / "ca.pem" if secured else None
    program = directory.root / "venv" / "gateway" / "bin" / "sage-gateway"
    tls = ("--ssl-certfile", str(directory.tls / "server.pem")) if secured else ()

    def prepare() -> None:
        directory.require(program)
        directory.data("gateway").mkdir(parents=True, exist_ok=True)
        secret(directory, "gateway", KEY_PREFIX)

    return Server(
        name="gateway",
        command=(str(program), *tls),
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
            authority,
        ),
        stop_s=15,
        secured=secured,
    )
