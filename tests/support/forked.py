"""Several processes of one group, each of which runs a module: as torchrun starts them, but torch is imported once.

python -m tests.support.forked PROCESSES MODULE [ARGUMENT...]
"""

from __future__ import annotations

import os
import runpy
import socket
import sys
import traceback

import torch._dynamo  # noqa: F401  # the first step of an optimizer imports it


def run(rank: int, module: str) -> int:
    """Run the module in this process, the one of this rank. Returns: the exit status."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> int:
    """Fork the processes and wait for all. Returns: 0, if each ended with 0."""
    processes, module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = []
    for rank in range(int(processes)):
        child = os.fork()
        if child == 0:
            os._exit(run(rank, module))
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)


if __name__ == "__main__":
    sys.exit(main())
