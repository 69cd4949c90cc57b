// Numbers as people read them, with their units.

const plain = new Intl.NumberFormat("en");

export const count = (n) => plain.format(n);
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** What an image is called: the name of its file. */
export const nameOf = (image) => image.id.slice(image.id.lastIndexOf("/") + 1);

/** "90 µs", "0.12 ms", "12 ms", "1.4 s". */
export function milliseconds(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms >= 10) return `${ms.toFixed(0)} ms`;
  if (ms < 0.0995) return `${(1000 * ms).toFixed(ms < 0.01 ? 1 : 0)} µs`;
  return `${ms.toFixed(ms >= 1 ? 1 : 2)} ms`;
}

/** A share as per cent; never 100 % for what is less, nor 0 % for what is more. */
export function percent(share) {
  if (share === 1 || share === 0) return `${share * 100} %`;
  const digits = share > 0.9 ? 1 : 0;
  const least = digits ? 0.1 : 1;
  return `${Math.min(100 - least, Math.max(least, 100 * share)).toFixed(digits)} %`;
}

export function bytes(n) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (n >= size) return `${(n / size).toFixed(n >= 100 * size ? 0 : 1)} ${unit}`;
  return plural(Math.round(n), "byte");
}

/** A date as the reader's system writes it. */
export const moment = (iso) =>
  new Date(iso).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

export const signed = (value, digits = 3) => value.toFixed(digits).replace("-", "−");

/** "40 s", "12 min", "3.5 h", "4 days". */
export function duration(s) {
  if (s < 60) return `${s.toFixed(0)} s`;
  if (s < 3600) return `${(s / 60).toFixed(0)} min`;
  return s < 48 * 3600 ? `${(s / 3600).toFixed(1)} h` : `${(s / 86400).toFixed(0)} days`;
}
