/** Files of an artifact as folders, and what two of them have apart. Pure. */

/** @typedef {{path: string, size_bytes: number, hash: string, is_here: boolean}} File */
/** @typedef {{name: string, path: string, folders: Folder[], files: File[], size_bytes: number}} Folder */

/** @param {File[]} files @returns {Folder} */
export function foldersOf(files) {
  const root = folder("", "");
  for (const file of files) {
    let at = root;
    at.size_bytes += file.size_bytes;
    for (const name of file.path.split("/").slice(0, -1)) {
      const path = at.path ? `${at.path}/${name}` : name;
      let next = at.folders.find((each) => each.name === name);
      if (!next) at.folders.push((next = folder(name, path)));
      at = next;
      at.size_bytes += file.size_bytes;
    }
    at.files.push(file);
  }
  return root;
}

/** @param {string} name @param {string} path @returns {Folder} */
const folder = (name, path) => ({ name, path, folders: [], files: [], size_bytes: 0 });

/** @typedef {{path: string, kind: "added" | "removed" | "changed", before?: File, after?: File}} Difference */

/**
 * What two versions of an artifact have apart, by path.
 * @param {File[]} before @param {File[]} after
 * @returns {Difference[]}
 */
export function filesApart(before, after) {
  const [left, right] = [before, after].map((files) => new Map(files.map((file) => [file.path, file])));
  /** @param {string} path @returns {Difference} */
  const difference = (path) => {
    const [was, is] = [left.get(path), right.get(path)];
    return { path, kind: was && is ? "changed" : was ? "removed" : "added", before: was, after: is };
  };
  return [...new Set([...left.keys(), ...right.keys()])].sort().map(difference).filter(({ before: was, after: is }) => was?.hash !== is?.hash);
}

/**
 * Whether a checkpoint is the best or the last one, as callbacks say it: in what they tell of it, or in its name.
 * @param {{name: string, metadata?: any}} artifact
 * @returns {string[]}
 */
export function marksOf({ name, metadata }) {
  const told = [metadata?.role, metadata?.kind, metadata?.is_best && "best", metadata?.is_last && "last", name.split("/").at(-1)?.replace(/\.[a-z0-9]+$/i, "")];
  return ["best", "last"].filter((mark) => told.includes(mark));
}
