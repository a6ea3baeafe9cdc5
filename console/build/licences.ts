// Names the licence of every package whose code is in the output, and refuses one that the house does not allow (deny.toml).
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";

const ALLOWED = new Set(["MIT", "ISC", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause"]);

/** The folder of the package that a module belongs to; none for the console's own. */
function folderOf(id: string): string | undefined {
  const found = /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(id.replace(/^\0/, ""));
  return found?.[0];
}

function described(folder: string): string {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  if (!ALLOWED.has(license)) throw new Error(`${name} ${version} has the licence ${license}, which is not allowed in the console`);
  const file = readdirSync(folder).find((entry) => /^licen[cs]e(\.(md|txt))?$/i.test(entry));
  if (!file) throw new Error(`${name} ${version} comes without the text of its licence`);
  return `${name} ${version} (${license})\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
}

export function licences(): Plugin {
  return {
    name: "licences",
    generateBundle(_, bundle) {
      const folders = new Set<string>();
      for (const part of Object.values(bundle)) {
        const modules = part.type === "chunk" ? part.moduleIds : [];
        for (const folder of modules.map(folderOf)) {
          if (folder && existsSync(join(folder, "package.json"))) folders.add(folder);
        }
      }
      const texts = [...folders].sort().map(described);
      const source = `What others wrote in the console.\n\n${texts.join("\n---\n\n")}`;
      this.emitFile({ type: "asset", fileName: "licences.txt", source });
    },
  };
}
