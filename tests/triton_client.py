"""Triton's client as a device; run by the Python of an environment that has tritonclient[grpc].

python triton_client.py TARGET PROTOS FOLDER

It joins by the messages of control.proto, which PROTOS has for Python. FOLDER/*.npz are inputs, each named like the
model that takes them: it sends one in each block, writes the results to FOLDER/answers, and prints what else the server
has said. FOLDER has ca.pem and the token.
"""

import json
import queue
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

TARGET, PROTOS, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])
sys.path.insert(0, PROTOS)
import control_pb2 as control  # noqa: E402 - it is in PROTOS

SERVICE = "/partway.live.v1.Control/"
TOKEN = {"authorization": "Bearer " + (FOLDER / "token").read_text()}


def joined():
    """Register, and open the stream: the session, the messages of the server, and where reports are put."""
    trusted = grpc.ssl_channel_credentials((FOLDER / "ca.pem").read_bytes())
    channel = grpc.secure_channel(TARGET, trusted)
    kinds = {"request_serializer": lambda one: one.SerializeToString()}
    register = channel.unary_unary(
        SERVICE + "Register", response_deserializer=control.RegisterReply.FromString, **kinds
    )
    attend = channel.stream_stream(SERVICE + "Attend", response_deserializer=control.News.FromString, **kinds)
    reply = register(control.RegisterRequest(protocol_version=1), metadata=tuple(TOKEN.items()))
    reports = queue.SimpleQueue()
    reports.put(control.Report(session=reply.session))
    return reply, attend(iter(reports.get, None), metadata=tuple(TOKEN.items())), reports


def asked(client, path, session, task, block):
    """The answer to one call."""
    inputs = []
    for name, value in np.load(path).items():
        one = triton.InferInput(name, value.shape, np_to_triton_dtype(value.dtype))
        one.set_data_from_numpy(value)
        inputs.append(one)
    outputs = [triton.InferRequestedOutput("scores")]
    own = {"partway_session": session, "partway_task": task, "partway_block": block, "partway_offload": 1.0}
    return client.infer(path.stem, inputs, request_id=path.stem, outputs=outputs, headers=TOKEN, parameters=own)


client = triton.InferenceServerClient(TARGET, ssl=True, root_certificates=str(FOLDER / "ca.pem"))
files = sorted(FOLDER.glob("*.npz"))
said = {
    "live": client.is_server_live(headers=TOKEN),
    "ready": client.is_server_ready(headers=TOKEN),
    "server": client.get_server_metadata(headers=TOKEN, as_json=True)["name"],
    "models": {path.stem: client.get_model_metadata(path.stem, headers=TOKEN, as_json=True) for path in files},
    "has": [client.is_model_ready(files[0].stem, version, headers=TOKEN) for version in ("", "1", "2")],
}
reply, news, reports = joined()
block_s = reply.record.slots_per_block * reply.record.slot_s
first = next(news).start
began = time.monotonic() + first.in_s
said["ids"] = []
(FOLDER / "answers").mkdir()
for task, path in enumerate(files):
    block = first.block + task
    time.sleep(max(began + task * block_s - time.monotonic(), 0))
    reports.put(control.Report(session=reply.session, block=block))
    answer = asked(client, path, reply.session, task, block)
    response = answer.get_response()
    said["ids"].append([response.id, response.model_name, [one.name for one in response.outputs]])
    np.save(FOLDER / "answers" / f"{path.stem}.npy", answer.as_numpy("scores"))
try:
    asked(client, files[0], "nobody", 0, first.block)
except InferenceServerException as error:
    said["without a session"] = error.status()
reports.put(None)
print(json.dumps(said))
