// The network in this worker: ONNX Runtime with the model inside, asked one question at a time.

let session = null;
let shape = null; // of an image: [C, S, S]
let last = Promise.resolve();

/** Opens the model. `wasm` and `model` are the bytes of the runtime and of the file. */
export async function openNetwork({ wasm, model, shape: given }) {
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = 1; // threads need headers that a file cannot have
  ort.env.logLevel = "fatal";
  session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
  shape = given;
}

/** Outputs of the graph by name, of n images; `dims` are those of the last. The runtime holds one question: others wait. */
export function ask(batch, n, names) {
  const asked = last.then(async () => {
    const found = await session.run({ images: new ort.Tensor("float32", batch, [n, ...shape]) }, names);
    return { ...Object.fromEntries(names.map((name) => [name, found[name].data])), dims: found[names.at(-1)].dims };
  });
  last = asked.catch(() => {});
  return asked;
}
