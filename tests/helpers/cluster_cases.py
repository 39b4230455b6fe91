"""What tests/parallel/test_cluster.py runs on the nodes of a cluster: where ranks are, and a
training.

cluster.py mpi 1 python tests/helpers/cluster_cases.py
"""

import hashlib
import json
import socket
from pathlib import Path

import minicnn as mc
from helpers import random_batch, small_model
from minicnn.parallel import world
from minicnn.parallel.shared import node_of


def sent():
    """Bytes that this node has sent."""
    return int(Path("/sys/class/net/eth0/statistics/tx_bytes").read_text())


with world() as comm:
    node = node_of(comm)
    before = sent()
    model = small_model()
    model.fit(
        random_batch(16), optimizer=mc.SGD(0.1, 0.9), epochs=2, batch_size=2, comm=comm, prefetch=0
    )
    comm.Barrier()
    mine = {
        "host": socket.gethostname(),
        "shares": node.allgather(comm.rank),
        "sent": sent() - before,
        "bits": hashlib.blake2b(model.parameters.tobytes()).hexdigest(),
        "gradients": model.gradients.nbytes,
    }
    if rows := comm.gather(mine):
        print(json.dumps(rows))
