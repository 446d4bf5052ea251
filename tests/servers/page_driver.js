// Runs before the page does: keeps hold of the page's own worker, so that tests can send it messages as the face does.
(() => {
  const waiting = new Map();
  let last = 0;
  let found = null;
  window.Worker = class extends Worker {
    constructor(...given) {
      super(...given);
      found ??= this; // the first; others help it
      if (found === this) this.addEventListener("message", ({ data }) => waiting.get(data.id)?.(data));
    }
  };
  const send = (request, moved, step) =>
    new Promise((resolve) => {
      const id = `test ${++last}`;
      waiting.set(id, (reply) => (reply.progress === undefined || reply.done || reply.cancelled ? resolve(reply) : step?.(reply, id)));
      found.postMessage({ id, ...request }, moved ?? []);
    });
  const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const textOf = (array) => {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    let text = "";
    for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    return btoa(text);
  };
  window.driver = {
    /** Waits until the face has opened the model. */
    async ready() {
      const start = performance.now();
      while (document.body.dataset.ready !== "yes") await new Promise((resolve) => setTimeout(resolve, 10));
      return performance.now() - start;
    },
    ask: (request) => send(request),
    /** Reads, with what the network sees of each image. */
    async read(name, text, frame = null) {
      const bytes = bytesOf(text);
      const steps = [];
      const reply = await send({ do: "read", name, bytes, frame, prepared: true }, [bytes], (step) => steps.push(step));
      for (const one of reply.images ?? []) {
        if (one.prepared) one.prepared = textOf(one.prepared);
        delete one.preview;
      }
      return { ...reply, steps };
    },
    /** Explains, as far as the page does by itself; `after` steps it is cancelled, where that is a number; `more` is what else is asked. */
    async explain(image, of, method, after, more = {}) {
      const steps = [];
      const start = performance.now();
      const ask = (by) => send({ do: "explain", image, of, method: by, ...more }, [], (step, id) => {
        steps.push({ progress: step.progress, left: step.seconds_left, drawn: step.map !== null, at: performance.now() - start });
        if (steps.length === after) found.postMessage({ id: "stop", do: "cancel", what: id });
      });
      let reply = await ask(method);
      if (reply.fuller?.at_once) reply = await ask(reply.fuller.method);
      const drawn = reply.map ? { map: textOf(reply.map), original: textOf(reply.original) } : {};
      return { ...reply, ...drawn, steps, seconds: (performance.now() - start) / 1000 };
    },
  };
})();
