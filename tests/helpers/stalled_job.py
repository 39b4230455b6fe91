"""The main job with a fault on rank 1 at a step, or before MPI starts:

mpiexec -n 2 python tests/helpers/stalled_job.py FAULT OPTIONS...
"""

import argparse
import os
import signal
import sys
import time

FAULT = sys.argv[1]
if os.path.exists(os.environ.get("FAULT_ONCE", "")):
    FAULT = "none"
RANK_1 = os.environ.get("PMI_RANK") == "1"
if RANK_1 and FAULT == "import":
    sys.modules["numpy"] = None  # as where it is broken on one node
if RANK_1 and FAULT == "import mpi4py":
    sys.modules["mpi4py"] = None
if RANK_1 and FAULT == "import hangs":
    time.sleep(60)

from minicnn.cli.train import arguments, recipe_and_options  # noqa: E402
from minicnn.jobs.train import train  # noqa: E402
from minicnn.parallel import world  # noqa: E402
from minicnn.train.callbacks import Callback  # noqa: E402


class Fault(Callback):
    def on_batch_end(self, step, logs):
        if self.rank != 1 or step != 2:
            return
        if "FAULT_ONCE" in os.environ:
            open(os.environ["FAULT_ONCE"], "w").close()
        if FAULT == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif FAULT == "hang":
            time.sleep(60)
        elif FAULT == "skip":
            self.comm.allgather(1)  # the other rank is in another collective
        elif FAULT == "exit 0":
            sys.exit(0)
        elif FAULT == "_exit 0":
            os._exit(0)
        elif FAULT == "crash":
            import ctypes

            ctypes.string_at(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    arguments(parser)
    with world() as comm:
        train(comm, *recipe_and_options(parser.parse_args(sys.argv[2:])), [Fault()])
        if RANK_1 and FAULT == "stop at the end":
            os.kill(os.getpid(), signal.SIGSTOP)
