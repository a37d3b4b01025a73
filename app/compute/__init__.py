"""What costs much of a request, in child processes: bounded in number, time and memory, and ended at once.

A thread can't be stopped, and its Python holds up all others. A child is killed when its time is over or when nobody
waits for its answer any more; its memory goes with it, and the kernel refuses it more than it may have.
"""

from app.compute.bounds import Bounds
from app.compute.pool import Pool, run_alone

__all__ = ["Bounds", "Pool", "run_alone"]
