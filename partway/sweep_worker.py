"""`python -m partway.sweep_worker`: a worker process of `partway.sweep_workers`."""

from partway.sweep_workers import serve

if __name__ == "__main__":
    serve()
