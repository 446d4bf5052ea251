// Further workers, each with a session of its own, that share what has to be asked for a heat map. The runtime has one thread:
// more need headers that a file cannot have. The page makes these workers (start.js), and gives a port to each.

const MOST = 4; // workers in all
const MOST_BYTES = 200e6; // of models that further workers hold together; a session takes several times its model
const AHEAD = 2; // pieces in the hands of a further worker, so that it need not wait for the next
const MOST_AT_ONCE = 16; // masked images; more are no faster, and take memory

/** How many further workers a model of so many bytes gets. */
export function crewFor(bytes, cores = self.navigator.hardwareConcurrency || 1) {
  return Math.max(0, Math.min(Math.min(cores, MOST) - 1, Math.floor(MOST_BYTES / bytes)));
}

/**
 * A further worker, which opens the model beside what goes on here: `ask(batch, n)` gives a promise of logits, `drop()` ends what it
 * was asked, `lose()` lets go of it. One that cannot open the model, or is lost, is `gone`, and what it was asked fails.
 * @param {object} given what `openNetwork` takes
 * @param {MessagePort} port to it
 */
export function hand(given, port) {
  const waiting = new Map();
  const one = { ready: false, gone: false, pending: 0, ask, drop, lose };
  let number = 0;

  function lose() {
    [one.ready, one.gone] = [false, true];
    port.postMessage({ do: "leave" });
    port.close();
    for (const { fail } of waiting.values()) fail(new Error("a worker was lost"));
    waiting.clear();
  }

  function ask(batch, n) {
    return new Promise((found, fail) => {
      waiting.set(++number, { found, fail });
      port.postMessage({ do: "ask", id: number, batch, n }, [batch.buffer]);
    });
  }

  function drop() {
    if (waiting.size) port.postMessage({ do: "drop", until: number });
  }

  port.onmessage = ({ data }) => {
    if (one.gone) return;
    if (data.failed !== undefined) return lose();
    if (data.ready) return (one.ready = true);
    const call = waiting.get(data.id);
    waiting.delete(data.id);
    return data.dropped ? call?.fail(new Error("dropped")) : call?.found(data.logits);
  };
  port.postMessage({ do: "help", id: 0, ...given });
  return one;
}

/**
 * Logits of questions 0 ... count - 1, in their order, whoever answers which: here, and by those of the crew that are ready.
 * @param {function(number, number): Float32Array} batch makes the images of n questions from one on
 * @param {object[]} crew of `hand`s; one may grow ready, or be lost, meanwhile
 * @param {function(Float32Array, number): Promise<Float32Array>} own asks here
 * @param {function(): number} most how many questions to ask here at once, at most
 * @param {function(object[], number)} between is called after every piece with the answers so far, up to the first that
 *   lacks, each a slice of logits, and how many are known in all; what it throws ends the work of all
 */
export async function shared(count, { batch, crew, own, most, between }) {
  const answers = new Array(count).fill(null);
  const returned = []; // pieces of a worker that was lost
  let next = 0;
  let done = 0;
  let known = 0;
  let stir = () => {};

  const left = () => next < count || returned.length > 0;
  function take() {
    if (returned.length) return returned.pop();
    const hands = 1 + crew.filter((one) => one.ready).length;
    const n = Math.max(1, Math.min(most(), MOST_AT_ONCE, Math.ceil((count - next) / (2 * hands)) || 1));
    const piece = [next, Math.min(n, count - next)];
    next += piece[1];
    return piece;
  }
  function place([from, n], logits) {
    const width = logits.length / n;
    for (let i = 0; i < n; i++) answers[from + i] = logits.subarray(i * width, (i + 1) * width);
    done += n;
    while (known < count && answers[known]) known += 1;
  }
  function give(one) {
    const piece = take();
    one.pending += 1;
    one.ask(batch(...piece), piece[1]).then((logits) => place(piece, logits), () => returned.push(piece)).finally(() => {
      one.pending -= 1;
      stir();
    });
  }

  try {
    while (done < count) {
      for (let held = 0; held < AHEAD; held++) for (const one of crew) if (one.ready && one.pending <= held && left()) give(one);
      if (left()) {
        const piece = take();
        place(piece, await own(batch(...piece), piece[1]));
        await new Promise((resolve) => setTimeout(resolve)); // lets messages in
      } else await new Promise((resolve) => (stir = resolve));
      between(answers.slice(0, known), done);
    }
  } catch (error) {
    for (const one of crew) one.drop();
    throw error;
  }
  return answers;
}
