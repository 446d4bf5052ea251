/** An image that is not read, and why: the key of a text of the page's table, and what stands in its places. */
export class Refused extends Error {
  constructor(key, values = {}) {
    super(key);
    this.key = key;
    this.values = values;
  }
}
