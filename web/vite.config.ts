// SPDX-License-Identifier: Apache-2.0
// Relative base: the page works behind any path prefix. No inlined assets: the content security
// policy is default-src 'self' and allows neither data: nor inline.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  base: './',
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 200,
  },
  esbuild: { jsx: 'automatic', jsxImportSource: 'preact' },
  server: { proxy: { '/api': 'http://127.0.0.1:7199', '/pprof': 'http://127.0.0.1:7199' } },
  test: { include: ['src/**/*.test.ts'], testTimeout: 30_000 },
});
