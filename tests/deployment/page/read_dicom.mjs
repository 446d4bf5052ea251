// Reads DICOM files by the page's reader and tells of each what came out: node read_dicom.mjs ENGINE ASKED.json
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

const [engine, asked] = process.argv.slice(2);
const { isDicom, readDicom } = await import(`${engine}/dicom.js`);
const { Refused } = await import(`${engine}/refused.js`);

async function told({ path, display, last }) {
  const bytes = new Uint8Array(readFileSync(path));
  const known = isDicom(bytes);
  try {
    const found = await readDicom(bytes, display);
    const wanted = last && found.length > 1 ? [found[0], found.at(-1)] : [found[0]];
    return { known, count: found.length, images: wanted.map(described) };
  } catch (error) {
    if (error instanceof Refused) return { known, key: error.key, values: error.values };
    return { known, failed: String(error.stack) };
  }
}

function described({ frame, image: { height, width, channels, bits, data } }) {
  const pixels = createHash("sha256").update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)).digest("hex");
  return { frame, shape: channels === 1 ? [height, width] : [height, width, channels], depth: `uint${bits}`, pixels };
}

const results = [];
for (const one of JSON.parse(readFileSync(asked, "utf8"))) results.push(await told(one));
console.log(JSON.stringify(results));
