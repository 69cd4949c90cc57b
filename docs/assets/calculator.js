// Sizes of a gallery before it is built: the sums of index/building/sizes.py, as formulas. A test compares both.
"use strict";

const MIN_CODES_FOR_IVF = 20000;

function listCount(count) {
  let lists = 1;
  while (lists * lists < 12 * count && 2 * lists * 39 <= count && lists < 65536) lists *= 2;
  return lists;
}

function suitableKind(count, length, full) {
  if (full) return length >= 16 ? "va-file" : "flat";
  if (count < MIN_CODES_FOR_IVF) return "flat";
  return length >= 32 ? "ivf-pq" : "ivf-sq8";
}

function bytesPerImage(kind, count, length) {
  const centroids = 4 * length * listCount(count) / count;
  switch (kind) {
    case "half": return 0;
    case "va-file": return 8 * Math.ceil(length / 16) + 8;
    case "ivf-sq8": return length + 8 + centroids;
    case "ivf-pq": return 1.4 * (length / 2 + 8) + centroids; // some images are in a second list
    default: return 4 * length;
  }
}

function sizes(count, codeLength, lengths, fullKind) {
  const built = [...new Set([...lengths.filter((length) => length < codeLength), codeLength])].sort((a, b) => a - b);
  return {
    codes: count * (2 * codeLength + 20),
    indexes: built.map((length) => {
      const full = length === codeLength;
      const kind = (full && fullKind) || suitableKind(count, length, full);
      return { length, kind, bytes: Math.round(count * bytesPerImage(kind, count, length)) };
    }),
  };
}

if (typeof document !== "undefined" && document.getElementById("memory")) {
  const form = document.getElementById("memory"), result = document.getElementById("memory-result");
  const show = (bytes) => bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(1)} MB`;
  const update = () => {
    const values = Object.fromEntries(new FormData(form));
    const lengths = values.lengths.split(",").map(Number).filter((n) => n > 0);
    const { codes, indexes } = sizes(Number(values.count) || 1, Number(values.code_length) || 1, lengths, values.full);
    const total = indexes.reduce((sum, index) => sum + index.bytes, codes);
    const rows = [["codes", "", codes], ...indexes.map((i) => [`length ${i.length}`, i.kind, i.bytes]), ["all", "", total]];
    const table = document.createElement("table");
    for (const [what, kind, bytes] of rows) {
      const row = table.insertRow();
      for (const text of [what, kind, show(bytes)]) row.insertCell().textContent = text;
    }
    result.replaceChildren(table);
  };
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  update();
} else if (typeof module !== "undefined") {
  module.exports = { sizes };
}
