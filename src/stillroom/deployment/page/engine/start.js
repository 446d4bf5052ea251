// What the page's one script does: make the worker, unpack what it needs, and show the face.
import { Told } from "../face/door.js";
import { startFace } from "../face/face.js";
import { fromBase64, inflated } from "./common.js";

const part = (name) => document.getElementById(`part-${name}`);

/** A part of the page, unpacked; its text is let go of, for it is large and needed once. gzip's checksum finds damage. */
async function unpacked(name) {
  const element = part(name);
  try {
    return await inflated(fromBase64(element.textContent), "gzip");
  } catch {
    throw new Told("trouble.damaged", "trouble.damaged"); // also where there is no such part
  } finally {
    element?.remove();
  }
}

/**
 * Makes a further worker for the first, which talks to it by a port. The first cannot do so itself: workers that a worker makes,
 * Firefox keeps when their page is left.
 */
function hire(number, address, first) {
  const { port1, port2 } = new MessageChannel();
  let made = null;
  const lose = () => {
    made?.terminate();
    first.postMessage({ do: "lost", helper: number });
  };
  first.postMessage({ do: "helper", port: port1 }, [port1]);
  try {
    made = new Worker(address);
    made.onerror = (event) => {
      event.preventDefault();
      lose();
    };
    made.postMessage({ do: "serve", port: port2 }, [port2]);
  } catch {
    lose(); // the others do its work
  }
}

/** Stands for the worker until its script is unpacked: what is sent meanwhile is sent then. */
class EarlyWorker {
  constructor() {
    this.waiting = [];
    this.onmessage = this.onerror = null;
    unpacked("worker").then((script) => this.begin(script), (error) => this.fail(error));
  }

  begin(script) {
    const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    this.worker = new Worker(address); // no module: of a page from a file, Chromium loads none into a worker
    this.worker.onmessage = (event) => {
      if (event.data.hire === undefined) this.onmessage?.(event);
      else for (let n = 0; n < event.data.hire; n++) hire(n, address, this.worker);
    };
    this.worker.onerror = (event) => this.onerror?.(event);
    for (const [message, moved] of this.waiting) this.worker.postMessage(message, moved);
  }

  fail(error) {
    this.failed = error;
    this.onerror?.(error);
  }

  postMessage(message, moved = []) {
    if (this.failed) this.onerror(this.failed);
    else if (this.worker) this.worker.postMessage(message, moved);
    else this.waiting.push([message, moved]);
  }
}

const worker = new EarlyWorker();
const load = async () => {
  const [model, wasm] = await Promise.all([unpacked("model"), unpacked("wasm")]);
  return { model: model.buffer, wasm: wasm.buffer };
};
unpacked("data").then(
  (data) => startFace(JSON.parse(new TextDecoder().decode(data)), { worker, load }),
  () => {}, // without words of its own the page goes on saying what it says until it starts: that it is damaged
);
