"""One job in a process of its own, so that cores, memory and compiled programs are its own.

The job comes as JSON in the first argument, what it found goes as JSON to standard output.
"""

import json
import os
import sys


def main() -> None:
    """Take the cores, then import JAX, which counts them; do the job."""
    job = json.loads(sys.argv[1])
    if job["cores"]:
        os.sched_setaffinity(0, job["cores"])
    import jax

    cache = job["cache"]
    jax.config.update("jax_enable_compilation_cache", cache is not None)
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

    from benchmarks.jobs import JOBS

    print(json.dumps(JOBS[job["name"]](**job["how"])))


if __name__ == "__main__":
    main()
