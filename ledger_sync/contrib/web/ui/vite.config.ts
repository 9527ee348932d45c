import { defineConfig } from "vite";

// Two entries under stable names. Chunks that both use lie beside them and are imported relatively,
// so the folder can be served under any path.
export default defineConfig({
  base: "./",
  publicDir: false,
  build: {
    outDir: "../static",
    emptyOutDir: true,
    assetsDir: "",
    target: "es2022",
    modulePreload: false,
    rollupOptions: {
      input: {
        "ledger-sync-modal": "src/ledger-sync-modal.ts",
        "ledger-sync-console": "src/ledger-sync-console.ts",
      },
      preserveEntrySignatures: "strict",
      output: {
        entryFileNames: "[name].js",
        chunkFileNames: "ledger-sync-shared-[hash].js",
      },
    },
  },
  test: {
    environment: "node",
    include: ["src/**/*.test.ts"],
  },
} as Parameters<typeof defineConfig>[0]);
