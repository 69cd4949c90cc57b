// Files that were dropped or chosen, those of whole folders included, with the paths that ids are made of.

/**
 * The files of a drop: { file, path } of each, with the path below what was dropped, in its order. Hidden files of folders are
 * left out, as the commands leave them out. Call it in the event's own turn: afterwards the drop is empty.
 */
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.() ?? null);
  if (!entries.some((entry) => entry?.isDirectory)) return chosenFiles(transfer.files);
  const given = [];
  for (const entry of entries) if (entry) await collect(entry, "", given);
  return given;
}

/** The files of a file input, as those of a drop. */
export const chosenFiles = (files) => [...files].filter((file) => !/\/\./.test(file.webkitRelativePath)).map((file) => ({ file, path: file.webkitRelativePath || file.name }));

async function collect(entry, above, given) {
  const path = above + entry.name;
  if (entry.isFile) {
    const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
    given.push({ file, path }); // null: it cannot be read
    return;
  }
  const children = await childrenOf(entry);
  children.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const child of children) if (!child.name.startsWith(".")) await collect(child, `${path}/`, given);
}

/** All entries of a folder: a reader gives some at a time, and none at the end. */
async function childrenOf(folder) {
  const reader = folder.createReader();
  const all = [];
  for (;;) {
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!some.length) return all;
    all.push(...some);
  }
}

/** The id of a file by its path, as eigenlens/image_ids.py has it: what an id may not hold is written as `\xNN`. */
export function idOf(path) {
  const hex = (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  const escaped = path.replace(/\\(?=x[0-9a-f]{2})/g, "\\x5c").replace(/[\x00-\x1f\x7f]/g, hex).normalize("NFC");
  return escaped.replace(/(^|\/)(c(?=ontent$)|t(?=humbnail$))/, (_, slash, first) => slash + hex(first));
}
