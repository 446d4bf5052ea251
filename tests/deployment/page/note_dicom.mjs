// What the page says of how DICOM files are shown: node note_dicom.mjs ENGINE ASKED.json
import { readFileSync } from "node:fs";

const [engine, asked] = process.argv.slice(2);
const { readDicom } = await import(`${engine}/dicom.js`);
const { noteInWords } = await import(`${engine}/words.js`);

const results = JSON.parse(readFileSync(asked, "utf8")).map(({ path, model, texts }) => {
  const [{ image }] = readDicom(new Uint8Array(readFileSync(path)), model.display);
  return noteInWords({ clipped: 0, own: image.own }, model, texts);
});
console.log(JSON.stringify(results));
