// The one door to the worker that decodes, answers and explains: requests with a number, replies that repeat it.

/** A failure that is told in words: a text, or a key with values where the worker refused by reason. */
export class Told extends Error {
  constructor(text, key = null, values = {}) {
    super(text);
    this.key = key;
    this.values = values;
  }
}

/** Calls to a worker that speaks the page's messages. */
export function openDoor(worker) {
  let next = 1;
  const waiting = new Map();
  worker.onmessage = ({ data }) => {
    const call = waiting.get(data.id);
    if (!call) return;
    if (data.progress !== undefined && !data.done) {
      call.onProgress?.(data);
      return;
    }
    waiting.delete(data.id);
    if (data.failed !== undefined) call.reject(new Told(data.failed));
    else if (data.refused) call.reject(new Told(data.refused.key, data.refused.key, data.refused.values));
    else call.resolve(data);
  };
  worker.onerror = (event) => {
    const error = event instanceof Told ? event : new Told(event.message || "worker");
    for (const call of waiting.values()) call.reject(error);
    waiting.clear();
  };
  /** Sends a request; the promise has its number as `id`, by which it can be cancelled. */
  function ask(request, { give = [], onProgress = null } = {}) {
    const id = next++;
    const reply = new Promise((resolve, reject) => waiting.set(id, { resolve, reject, onProgress }));
    worker.postMessage({ id, ...request }, give);
    reply.id = id;
    return reply;
  }
  return { ask, cancel: (id) => worker.postMessage({ id: next++, do: "cancel", what: id }) };
}
