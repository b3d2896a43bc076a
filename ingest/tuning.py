"""How a process that moves batches sets up its interpreter: a worker, and each one of a rebuild.

Stands apart so that a process of a rebuild does not import the parts of a worker's service.
"""

import gc
import sys


def tune_interpreter() -> None:
    """Look for reference cycles rarely, and let the thread of the database have its turn soon.

    A batch is a hundred thousand objects and has no cycles: at the interpreter's own thresholds
    the collector takes a third of the time of decoding. And at each answer of the database that
    thread would wait 5 ms, a few dozen times a batch, for the one that decodes.
    """
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)
    sys.setswitchinterval(0.0005)
