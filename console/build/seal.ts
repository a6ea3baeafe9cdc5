// Writes into the output what it was built from, so that a test can tell, without Node, whether it is that of the sources.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import type { Plugin } from "vite";

/** What is no source: brought in, made, or only read by people. */
const LEFT_OUT = new Set(["node_modules", ".gitignore", "README.md", "src/api/schema.gen.ts"]);

function sources(folder: string): string[] {
  const found = [];
  for (const entry of readdirSync(folder || ".", { withFileTypes: true })) {
    const path = folder ? `${folder}/${entry.name}` : entry.name;
    if (LEFT_OUT.has(path)) continue;
    if (entry.isDirectory()) found.push(...sources(path));
    else found.push(path);
  }
  return found;
}

/** SHA-256 over each source's path, length and content, by path. `e2e/tests/house/console.rs` computes the same. */
export function seal(): Plugin {
  return {
    name: "seal",
    generateBundle() {
      const hash = createHash("sha256");
      const paths = sources("").sort((a, b) => (a < b ? -1 : 1));
      for (const path of paths) {
        const content = readFileSync(path);
        hash.update(`${path}\n${content.length}\n`).update(content);
      }
      this.emitFile({ type: "asset", fileName: "sources.sha256", source: `${hash.digest("hex")}\n` });
    },
  };
}
