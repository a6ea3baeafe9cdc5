// How the console is built: into the folder that the control plane embeds, which is committed.
import { defineConfig } from "vite";
import { licences } from "./build/licences.ts";
import { seal } from "./build/seal.ts";

const OUT = process.env["CONSOLE_OUT"] ?? "../crates/control/console";

export default defineConfig({
  base: "/console/",
  build: {
    outDir: OUT,
    emptyOutDir: true,
    target: "es2022",
    // Data in URLs is refused by the page's own policy; one chunk needs nothing loaded before it.
    assetsInlineLimit: 0,
    modulePreload: false,
    reportCompressedSize: false,
  },
  plugins: [licences(), seal()],
  // `npm run dev` beside a control plane on this machine.
  server: { proxy: { "/v1": process.env["INSULA_URL"] ?? "http://127.0.0.1:8081" } },
});
