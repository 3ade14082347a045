"""nginx as a plain reverse proxy: keep-alive connections on both sides, unbuffered streams."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmark_sage.proxies import ProxyUnderTest, free_port, running_process
from sage_flink.common import ConfigError

CONFIG = """
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 10000000;
  upstream engines {{
    {servers}
    keepalive 1024;
    keepalive_requests 10000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    client_max_body_size 8m;
    client_body_buffer_size 64k;
    location / {{
      proxy_pass http://engines;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@contextmanager
def nginx(engines: Sequence[str], folder: Path, core: int) -> Iterator[ProxyUnderTest]:
    """nginx in front of these engines, in turn.

    Raises:
        ConfigError: it is not installed.
        StackError: it does not start.
    """
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise ConfigError("no nginx on PATH; run `bash infra/peers.sh`")
    port = free_port()
    servers = " ".join(f"server {url.removeprefix('http://')};" for url in engines)
    user = "user root;" if os.getuid() == 0 else ""  # else the worker may not enter the folder
    config = CONFIG.format(folder=folder, servers=servers, port=port, user=user)
    (folder / "nginx.conf").write_text(config)
    version = subprocess.run(
        [program, "-v"], capture_output=True, text=True, check=True
    ).stderr.strip()
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    url = f"http://127.0.0.1:{port}"
    log = folder / "nginx.log"
    with running_process(command, core=core, log=log, ready=f"{url}/health") as process:
        yield ProxyUnderTest(url, "", {"version": version, "config": CONFIG}, process)
