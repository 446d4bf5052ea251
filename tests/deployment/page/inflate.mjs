// Unpacks what stands in a file as base64: node inflate.mjs ENGINE ASKED.json
import { readFileSync } from "node:fs";

const [engine, asked] = process.argv.slice(2);
const { inflate, NotDeflated } = await import(`${engine}/inflate.js`);

function unpacked({ packed, limit }) {
  try {
    return Buffer.from(inflate(new Uint8Array(Buffer.from(packed, "base64")), limit)).toString("base64");
  } catch (error) {
    if (error instanceof NotDeflated) return null;
    throw error;
  }
}

console.log(JSON.stringify(JSON.parse(readFileSync(asked, "utf8")).map(unpacked)));
