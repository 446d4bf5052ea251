// What is said of an answer, in the words of the page's language; English is that of stillroom/deployment/prediction.py and
// stillroom/after/heat_map.py. `texts` is the flat table of page/texts/*.json.

/** A text with its {places} filled. */
export function fill(text, values = {}) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** As Python's `:g`: six digits that count, no zeros behind. */
export const short = (number) => String(Number(Number(number).toPrecision(6)));

/** An answer of answer.js with its words: what is said, flagged, noted, and why there is none. */
export function worded(prediction, model, texts) {
  return {
    ...prediction,
    answer: answerInWords(prediction, texts),
    flags: flagsInWords(prediction, texts),
    note: noteInWords(prediction, model, texts),
    error: prediction.error === null ? null : texts["answer.not_finite"],
  };
}

/** The answer in words: one class, several of them, or a refusal. */
export function answerInWords(prediction, texts) {
  if (prediction.error !== null) return null;
  if (prediction.foreign) return texts["answer.foreign"];
  const { decision, possible, unsure } = prediction;
  let sure = decision.filter((name) => !unsure.includes(name));
  if (possible === null) sure = decision;
  else if (!unsure.length && possible.length > 1 && decision.length === 1) {
    const classes = Object.keys(prediction.probabilities).length;
    if (possible.length === classes && classes > 2) return fill(texts["answer.any_of"], { count: classes });
    return possible.join(texts["answer.or"]);
  }
  const words = [...sure, ...unsure.map((name) => fill(texts["answer.perhaps"], { name }))];
  return words.join(", ") || texts["answer.none"];
}

/** What the image is flagged for, in words; empty for nothing. */
export function flagsInWords(prediction, texts) {
  const reached = new Map();
  for (const { of, kind, wanted, promised, on } of prediction.points) {
    if (!on) continue;
    let name = `${texts[`answer.${kind}`]} ${short(wanted)}`;
    if (promised < wanted - 1e-9) {
      const share = (Math.floor(100 * promised + 1e-9) / 100).toFixed(2);
      name += fill(texts["answer.less"], { share });
    }
    reached.set(name, [...(reached.get(name) ?? []), of]);
  }
  const told = [...reached].map(([wanted, names]) => fill(texts["answer.flagged"], { wanted, names: names.join(", ") }));
  return told.join("; ");
}

/** What was done to the image that one should know; null for nothing. */
export function noteInWords({ clipped, own }, model, texts) {
  const brighter = clipped === 1 ? "answer.brighter_one" : "answer.brighter";
  const keys = [...(clipped ? [brighter] : []), ...shownOtherwise(own, model)];
  return keys.map((key) => fill(texts[key], { count: clipped, white: short(model.white), window: model.window })).join("; ") || null;
}

/** Where DICOM is not shown as the training images were: the key of what is said, as stillroom/deployment/display_notes.py. */
function shownOtherwise(own, { shown, window, display }) {
  if (!own || !shown?.length || shown.includes("asked")) return [];
  if (display.window) {
    const { centre, width } = display.window;
    if (own.by === "window" && own.function === "LINEAR" && own.centre === centre && own.width === width) return [];
    return [{ range: "answer.shown_no_window", table: "answer.shown_no_table" }[own.by] ?? "answer.shown_not_its_window"];
  }
  if (own.by === "range") return shown.includes("range") ? [] : ["answer.shown_whole"];
  return shown.every((way) => way === "range") ? ["answer.shown_not_whole"] : [];
}

/**
 * How far a map can be trusted: the verdict, null where there is none on such maps, and a sentence.
 * @param {object} model the page's notes on the model
 * @param {string} method by which the map is drawn
 * @param {object} prediction what the model says of the image
 * @param {string} of the class explained
 * @param {{asked: number, channels: number, coarse: boolean}|null} estimate of how many channels the map was made where it is an
 *   estimate; coarse is one of fewer than any map that is tested
 */
export function trust(model, method, prediction, of, texts, estimate = null) {
  const tested = model.explanation;
  if (!tested || tested.faithful === null || tested.faithful === undefined) return { verdict: null, statement: texts["trust.untested"] };
  let statement = tested.statement;
  if (estimate?.coarse) return { verdict: null, statement: fill(texts["trust.coarse"], { ...estimate, statement }) };
  const agreed = tested.fast?.pearson?.value;
  if (agreed !== null && agreed !== undefined && method === "score_cam_fast") {
    statement += ` ${fill(texts["trust.fast"], { correlation: agreed.toFixed(2), images: tested.fast.images })}`;
  }
  if (method !== tested.method) {
    return { verdict: null, statement: fill(texts["trust.other"], { method, tested: tested.method, statement }) };
  }
  const verdict = tested.verdict ?? (tested.faithful ? "faithful" : "not faithful");
  const beyond = verdict === "faithful" ? beyondTested(model, prediction, of, texts) : null;
  return beyond ? { verdict: null, statement: beyond } : { verdict, statement };
}

function beyondTested(model, prediction, of, texts) {
  if (prediction.foreign) return texts["trust.foreign"];
  if (!prediction.decision.includes(of)) return texts["trust.not_decided"];
  if ("verdict" in model.explanation && !prediction.positive) return texts["trust.negative"];
  return null;
}
