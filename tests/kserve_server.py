"""A KServe ModelServer of the models in a repository; run by the Python of an environment that has kserve.

python kserve_server.py REPOSITORY SERVED    it says where it listens, and adds a letter to SERVED for each request
"""

import socket
import sys
from pathlib import Path

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Half(Model):
    """A half of a network."""

    def __init__(self, file: Path, served: Path):
        super().__init__(file.parents[1].name)
        self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self._served = served
        self.ready = True

    async def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        """All outputs."""
        given = {one.name: one.as_numpy() for one in payload.inputs}
        names = [one.name for one in self._session.get_outputs()]
        outputs = []
        for name, value in zip(names, self._session.run(names, given), strict=True):
            output = InferOutput(name, list(value.shape), "FP32")
            output.set_data_from_numpy(value, binary_data=True)
            outputs.append(output)
        with self._served.open("a") as file:
            file.write(".")
        return InferResponse(payload.id or "0", self.name, outputs)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    repository, served = Path(sys.argv[1]), Path(sys.argv[2])
    served.touch()
    ports = free_port(), free_port()
    models = [Half(file, served) for file in sorted(repository.glob("*/1/model.onnx"))]
    print(f"grpc://127.0.0.1:{ports[1]}", flush=True)
    ModelServer(http_port=ports[0], grpc_port=ports[1], enable_grpc=True, workers=1).start(models)
