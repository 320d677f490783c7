// A device in another language. It joins the server of a live run, sends the input of one task per block, and prints the
// result of each as a line of JSON. The steps are those at the top of partway/live/proto/control.proto.
//
//     partway serve --bind 127.0.0.1:7070 --wait 20
//     npm ci && node device.mjs 127.0.0.1:7070
//
// Left out: a device that must survive a broken link registers again with its number and session (step 6), and finishes
// by itself the tasks whose results do not come.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    protos: { type: "string", default: fileURLToPath(new URL("../../partway/live/proto", import.meta.url)) },
    device: { type: "string" }, // the number that is wanted
    model: { type: "string", default: "cut-0" }, // the back half: cut-0 is the whole network
    tensor: { type: "string", default: "image" }, // what it takes: 8 bits per number, of this shape
    shape: { type: "string", default: "1,3,32,32" },
    "tls-ca": { type: "string" },
    "token-file": { type: "string" },
  },
});
const shape = options.shape.split(",").map(Number);

const loaded = loadSync(["control.proto", "open_inference.proto"], {
  includeDirs: [options.protos],
  keepCase: true,
  longs: Number,
  defaults: true, // a number that is 0 does not travel
  oneofs: true,
});
const { partway, inference } = grpc.loadPackageDefinition(loaded);
const credentials = options["tls-ca"]
  ? grpc.credentials.createSsl(readFileSync(options["tls-ca"]))
  : grpc.credentials.createInsecure();
const control = new partway.live.v1.Control(positionals[0], credentials);
const server = new inference.GRPCInferenceService(positionals[0], credentials);
const metadata = new grpc.Metadata();
if (options["token-file"]) {
  metadata.set("authorization", `Bearer ${readFileSync(options["token-file"], "utf8").trim()}`);
}

function call(client, method, request, withinS = 20) {
  const deadline = new Date(Date.now() + 1000 * withinS);
  return new Promise((resolve, reject) => {
    client[method](request, metadata, { deadline }, (error, reply) => (error ? reject(error) : resolve(reply)));
  });
}

const now = () => performance.now() / 1000; // monotonic
const until = (moment) => new Promise((resolve) => setTimeout(resolve, Math.max(0, 1000 * (moment - now()))));

// 1. Register
const wanted = options.device === undefined ? {} : { device: Number(options.device) };
const joined = await call(control, "Register", { protocol_version: 1, ...wanted });
const { record, session } = joined;
const blockS = record.slots_per_block * record.slot_s;

// 2. Open the stream. The last share in the table that is feasible leaves all work to the server.
const stream = control.Attend(metadata);
const broadcasts = new Map();
const start = new Promise((resolve, reject) => {
  stream.on("data", (news) => {
    if (news.start) resolve({ block: news.start.block, at: now() + news.start.in_s });
    else broadcasts.set(news.broadcast.block, news.broadcast);
  });
  stream.on("error", reject);
  stream.on("end", () => reject(new Error("the server has ended the stream before the first block")));
});
stream.write({ session });
const { block: first, at } = await start;
const startOf = (block) => at + (block - first) * blockS;
const cut = record.task.feasible.lastIndexOf(true);
const { share, bits } = record.task;

// What happens in a block in which one task is started and cut there. The channel does not fade here; a real device
// reports what it measures.
const seconds = record.slot_s;
const snr = record.snr_gap * (2 ** (bits[cut] / (record.bandwidth_hz * seconds)) - 1);
const power = Math.min(snr / record.mean_gain, record.tx_power_max_w);
const energy = record.energy_coef * (1 - share[cut]) ** 3 + power * seconds;

function happened(queue) {
  const did = queue > 0 ? { started: 1, offload: share[cut], power_w: power, energy_j: energy } : {};
  return { queue, gain: record.mean_gain, arrivals: 1, ...did }; // a task arrives in the first slot of every block
}

// 4. Send what was cut in a block, in the slot after it
async function finish(task, block) {
  const image = Uint8Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => (7 * i + i * i * task) % 256);
  await until(startOf(block + 1) + record.slot_s);
  const sent = now();
  const reply = await call(
    server,
    "ModelInfer",
    {
      model_name: options.model,
      id: String(task),
      inputs: [{ name: options.tensor, datatype: "UINT8", shape }],
      raw_input_contents: [image],
      parameters: {
        partway_session: { string_param: session },
        partway_task: { int64_param: task },
        partway_block: { int64_param: block },
        partway_offload: { double_param: share[cut] },
      },
    },
    joined.lease_blocks * blockS,
  );
  const raw = reply.raw_output_contents[0];
  const outputs = Array.from({ length: raw.length / 4 }, (_, i) => raw.readFloatLE(4 * i)); // FP32
  const { partway_wait_s: waited, partway_run_s: ran } = reply.parameters;
  const times = { wait_s: waited.double_param, run_s: ran.double_param, answered_after_s: now() - sent };
  console.log(JSON.stringify({ device: joined.device, task, block, ...times, [reply.outputs[0].name]: outputs }));
}

// 3. At the start of every block report, and decide. This device always cuts; one that follows `joined.policy` would use
// the broadcast of block - joined.broadcast_delay_blocks.
const results = [];
let queue = 0;
let last = null; // nothing has happened before the first block
for (let block = first; block < joined.blocks; block++) {
  await until(startOf(block));
  stream.write({ session, block, queue, last });
  last = happened(queue);
  if (queue > 0) results.push(finish(results.length, block).then(() => "", (error) => error.message));
  queue = 1; // the one that waited is gone, another one arrives
}

// 5. Report the last block, wait for the results, and leave
await until(startOf(joined.blocks));
stream.write({ session, block: joined.blocks, queue, last });
const failed = (await Promise.all(results)).filter((why) => why !== "");
await call(control, "Leave", { session }).catch(() => {}); // the session may have ended with the run
control.close();
server.close();
console.error(
  `device ${joined.device}: ${results.length} tasks sent, ${results.length - failed.length} answered, ` +
    `${broadcasts.size} broadcasts heard`,
);
if (failed.length) {
  console.error(failed[0]);
  process.exitCode = 1;
}
