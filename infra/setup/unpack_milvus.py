"""Unpack the Milvus server that the installed ``milvus`` wheel carries.

usage: unpack_milvus.py FOLDER, with the Python of the environment that has the wheel.

The wheel's own ``MilvusServer`` would unpack 250 MB into every data folder and keep a Python
process above the server. sage unpacks once and supervises the server itself.
"""

import lzma
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path


def unpack(out: Path) -> int:
    """The number of files written: the program, its libraries and two templates."""
    spec = find_spec("milvus")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the milvus wheel is not installed here; run `bash infra/setup.sh`")
    data = Path(spec.submodule_search_locations[0]) / "data"
    out.mkdir(parents=True)
    packed = sorted((data / "bin").glob("*.lzma"))
    for source in packed:
        target = out / source.stem
        with lzma.open(source) as reader, target.open("wb") as writer:
            shutil.copyfileobj(reader, writer)
        target.chmod(0o755)
    for name in ("config.yaml.template", "glog.conf"):
        shutil.copy(data / name, out / name)
    return len(packed) + 2


if __name__ == "__main__":
    sys.stdout.write(f"{unpack(Path(sys.argv[1]))} files\n")
