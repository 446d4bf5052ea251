"use strict";
(() => {
  const study = JSON.parse(document.getElementById("study").textContent);
  const byNumber = new Map(study.images.map((image) => [image.image, image]));
  const at = (id) => document.getElementById(id);
  const STEP = 5;
  let reader = "", begun = "", tasks = [], readings = [], shownAt = 0, hiddenFor = 0, hiddenSince = null, resting = false;

  // -- what is read in which order: a function of the study and the reader's code, so that it can be taken up again -----
  function hash(text) {
    let value = 2166136261;
    for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 16777619);
    return value >>> 0;
  }

  function shuffled(numbers, seed) {
    const order = [...numbers];
    let state = hash(seed) || 1;
    const draw = (below) => {
      state ^= state << 13; state ^= state >>> 17; state ^= state << 5;
      return (state >>> 0) % below;
    };
    for (let skipped = 0; skipped < 20; skipped++) draw(2);  // near seeds begin alike
    for (let last = order.length - 1; last > 0; last--) {
      const other = draw(last + 1);
      [order[last], order[other]] = [order[other], order[last]];
    }
    return order;
  }

  // R1, R3, ... begin with help for one half, R2, R4, ... for the other; codes without a number by chance.
  function helpedFirst(code) {
    const number = /(\d+)\D*$/.exec(code);
    return (number ? Number(number[1].slice(-1)) : hash(study.study + code)) % 2;
  }

  function tasksOf(code) {
    const numbers = study.images.map((image) => image.image);
    const order = (sitting) => shuffled(numbers, `${study.study} ${code} ${sitting}`);
    if (study.design === "sequential")
      return order(1).flatMap((image) => [false, true].map((help) => ({ image, help, sitting: 1 })));
    const first = helpedFirst(code);
    return [1, 2].flatMap((sitting) => order(sitting).map((image) => (
      { image, help: (byNumber.get(image).half === first) === (sitting === 1), sitting })));
  }

  // -- what is kept ---------------------------------------------------------------------------------------------------
  const key = () => `stillroom.readers.${study.study}.${reader}`;

  function answers() {
    return {
      stillroom: "reader answers", format: 1, study: study.study, reader, design: study.design, begun,
      saved: new Date().toISOString(), complete: readings.length === tasks.length, readings,
    };
  }

  function keep() {
    try { localStorage.setItem(key(), JSON.stringify(answers())); }
    catch { trouble("This browser keeps nothing: save the answers as a file before you close the page."); }
  }

  function kept() {
    try { return localStorage.getItem(key()); } catch { return null; }
  }

  function fits(found) {
    return found && found.study === study.study && found.reader === reader && Array.isArray(found.readings)
      && found.readings.length <= tasks.length
      && found.readings.every((one, place) => one.image === tasks[place].image && one.help === tasks[place].help);
  }

  function take(text) {
    try {
      const found = JSON.parse(text);
      if (!fits(found)) return false;
      readings = found.readings;
      begun = found.begun;
      return true;
    } catch { return false; }
  }

  // -- what is shown --------------------------------------------------------------------------------------------------
  function show(name) {
    for (const id of ["start", "read", "rest"]) at(id).hidden = id !== name;
    window.scrollTo(0, 0);
  }

  function trouble(text) {
    at("trouble").textContent = text;
    at("trouble").hidden = !text;
  }

  const plain = (code) => code.trim().replace(/\s+/g, " ");

  function begin(code) {
    reader = plain(code);
    readings = [];
    begun = new Date().toISOString();
    tasks = tasksOf(reader);
    resting = false;
    trouble("");
  }

  function next() {
    const done = readings.length;
    if (done === tasks.length) return rest("Done. Thank you.",
      "Save the answers as a file and give it to whoever runs this test.", false);
    if (done && tasks[done].sitting !== tasks[done - 1].sitting && !resting) {
      resting = true;
      return rest("The first sitting is done.",
        "Save the answers as a file now. Come back for the second sitting after a pause, best of some weeks; with the same "
        + "code, in this browser or from the saved file, it begins here.", true);
    }
    read(tasks[done]);
  }

  function rest(title, text, more) {
    at("rest-title").textContent = title;
    at("rest-text").textContent = text;
    at("go-on").hidden = !more;
    at("saved-as").textContent = "";
    show("rest");
    at("rest-title").focus();
  }

  function read(task) {
    const image = byNumber.get(task.image), done = readings.length;
    const sittings = new Set(tasks.map((one) => one.sitting)).size;
    const here = tasks.filter((one) => one.sitting === task.sitting).length;
    const before = tasks.findIndex((one) => one.sitting === task.sitting);
    at("read-title").textContent = (sittings > 1 ? `Sitting ${task.sitting} of ${sittings}, reading ` : "Reading ")
      + `${done - before + 1} of ${here}`;
    at("progress").max = tasks.length;
    at("progress").value = done;
    for (const id of ["picture", "picture-again"]) {
      at(id).src = image.picture;
      at(id).width = image.width;
      at(id).height = image.height;
    }
    at("alone").hidden = task.help;
    at("help").hidden = !task.help;
    at("mapped").hidden = true;
    if (task.help) showHelp(image.help);
    const again = study.design === "sequential" && task.help ? readings[done - 1] : null;
    for (const box of document.querySelectorAll("[name=option]"))
      box.checked = again !== null && box.value === again.answer;
    setConfidence(again === null ? null : again.confidence);
    at("missing").textContent = "";
    show("read");
    at("read-title").focus();
    shownAt = performance.now();
    hiddenFor = 0;
    hiddenSince = document.hidden ? shownAt : null;
  }

  function showHelp(help) {
    const rows = at("help-shares").tBodies[0];
    rows.textContent = "";
    at("help-maps").hidden = !(help && help.map);
    at("help-none").hidden = !help || help.map !== null || !study.finding || help.decided !== 0;
    if (!help) {
      at("help-answer").textContent = "None. It refuses this image, which is unlike those that it was made for.";
      return;
    }
    const unsure = help.possible.length ? ` It cannot rule out: ${help.possible.join(", ")}.` : "";
    at("help-answer").textContent = `${study.options[help.decided]}.${unsure}`;
    help.shares.forEach((share, place) => {
      const row = rows.insertRow(), name = document.createElement("th"), bar = document.createElement("meter");
      name.scope = "row";
      name.textContent = study.options[place];
      bar.value = share;
      bar.setAttribute("aria-hidden", "true");
      row.append(name);
      row.insertCell().append(bar);
      row.insertCell().textContent = `${(100 * share).toFixed(share > 0.001 && share < 0.1 ? 1 : 0)} %`;
    });
    if (help.map) {
      at("veil").src = help.map;
      at("veil").hidden = false;
      at("mapped").hidden = false;
      at("mapped-caption").textContent = `Where it looks for ${help.of}`;
    }
  }

  function setConfidence(value) {
    const slider = at("confidence");
    slider.classList.toggle("unset", value === null);
    slider.value = value === null ? 50 : value;
    at("confidence-said").textContent = value === null ? "not set yet" : `${value} of 100`;
  }

  // -- what the reader does -------------------------------------------------------------------------------------------
  function save() {
    const chosen = document.querySelector("[name=option]:checked"), unset = at("confidence").classList.contains("unset");
    if (!chosen || unset) {
      at("missing").textContent = !chosen ? "Choose an answer first." : "Say how sure you are first.";
      return;
    }
    const task = tasks[readings.length], now = performance.now();
    const away = hiddenFor + (hiddenSince === null ? 0 : now - hiddenSince);
    readings.push({
      image: task.image, help: task.help, sitting: task.sitting, answer: chosen.value,
      confidence: Number(at("confidence").value), seconds: Math.max(0.001, Math.round(now - shownAt - away) / 1000),
    });
    resting = false;
    keep();
    next();
  }

  function download() {
    const name = `answers-${study.study}-${reader.replace(/[^A-Za-z0-9_-]+/g, "-")}.json`;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(answers(), null, 1)], { type: "application/json" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    at("saved-as").textContent = `Saved as ${name}.`;
  }

  study.options.forEach((option, place) => {
    const label = document.createElement("label"), box = document.createElement("input"), text = document.createElement("span");
    label.className = "choice";
    box.type = "radio";
    box.name = "option";
    box.value = option;
    text.textContent = option;
    label.append(box, text);
    if (place < 9) {
      const hint = document.createElement("kbd");
      hint.textContent = place + 1;
      label.append(hint);
    }
    at("options").append(label);
  });

  at("begin").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!plain(at("reader").value)) return;
    begin(at("reader").value);
    const text = kept();
    if (text !== null && !take(text)) trouble("What this browser kept of your answers is damaged: go on from a saved file.");
    else next();
  });
  at("earlier").addEventListener("change", async (event) => {
    const file = event.target.files[0], text = file ? await file.text() : "";
    let code = "";
    try { code = String(JSON.parse(text).reader || ""); } catch { /* said below */ }
    begin(code);
    if (!code || !take(text)) return trouble("This is no file of answers to this page.");
    keep();
    next();
  });
  at("answer").addEventListener("submit", (event) => { event.preventDefault(); save(); });
  at("confidence").addEventListener("input", (event) => setConfidence(Number(event.target.value)));
  at("confidence").addEventListener("click", (event) => setConfidence(Number(event.target.value)));
  at("download").addEventListener("click", download);
  at("go-on").addEventListener("click", next);
  at("pictures").addEventListener("dblclick", () => at("pictures").classList.toggle("large"));
  for (const id of ["brightness", "contrast"])
    at(id).addEventListener("input", (event) => at("pictures").style.setProperty(`--${id}`, event.target.value / 100));
  at("as-it-is").addEventListener("click", () => {
    for (const id of ["brightness", "contrast"]) { at(id).value = 100; at("pictures").style.removeProperty(`--${id}`); }
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) hiddenSince = performance.now();
    else if (hiddenSince !== null) { hiddenFor += performance.now() - hiddenSince; hiddenSince = null; }
  });
  document.addEventListener("keydown", (event) => {
    if (at("read").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target, tool = target.closest && target.closest(".tools");
    if (/^[1-9]$/.test(event.key)) {
      const box = document.querySelectorAll("[name=option]")[Number(event.key) - 1];
      if (box) { box.checked = true; at("missing").textContent = ""; }
    } else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && !tool) {
      const slider = at("confidence"), by = event.key === "ArrowLeft" ? -STEP : STEP;
      setConfidence(Math.min(100, Math.max(0, Number(slider.value) + by)));
      event.preventDefault();
    } else if (event.key === "Enter" && !tool) {
      event.preventDefault();
      if (!event.repeat) save();  // a key held down answers one image
    } else if (event.key.toLowerCase() === "z") at("pictures").classList.toggle("large");
    else if (event.key.toLowerCase() === "h") at("veil").hidden = !at("veil").hidden;
  });
})();
