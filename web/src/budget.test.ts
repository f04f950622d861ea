// SPDX-License-Identifier: Apache-2.0
// Limits of the built page: size, number of files, and nothing that the content security policy
// (default-src 'self') would refuse. FIREWATCH_WEB_DIST names the build; without it one is made.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { beforeAll, describe, expect, test } from 'vitest';

let dist = process.env.FIREWATCH_WEB_DIST ?? '';
const root = new URL('..', import.meta.url).pathname;

beforeAll(() => {
  if (dist && existsSync(join(dist, 'index.html'))) return;
  dist = join(mkdtempSync(join(tmpdir(), 'firewatch-web-')), 'dist');
  execFileSync(process.execPath, [join(root, 'node_modules/vite/bin/vite.js'), 'build', '--logLevel', 'error', '--outDir', dist], { cwd: root });
}, 120_000);

const files = () => readdirSync(dist, { recursive: true }).map(String).filter((name) => name.includes('.'));

describe('the built page', () => {
  test('scripts and styles are at most 100 KB after gzip, in at most 10 files', () => {
    const sizes = files().filter((name) => /\.(js|css)$/.test(name))
      .map((name) => gzipSync(readFileSync(join(dist, name)), { level: 9 }).length);
    const sum = sizes.reduce((total, size) => total + size, 0);
    console.log(`page: ${(sum / 1000).toFixed(1)} KB of scripts and styles after gzip, ${files().length} files`);
    expect(sum).toBeGreaterThan(10_000);
    expect(sum).toBeLessThanOrEqual(100_000);
    expect(files().length).toBeLessThanOrEqual(10);
  });

  test('has no inline script or style, and every address is relative', () => {
    const html = readFileSync(join(dist, 'index.html'), 'utf8');
    expect(html).not.toMatch(/<script(?![^>]*\bsrc=)/);
    expect(html).not.toMatch(/<style|\sstyle=|\son\w+=/);
    const addresses = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map((match) => match[1]);
    expect(addresses.length).toBeGreaterThanOrEqual(3);
    for (const address of addresses) expect(address).toMatch(/^\.\//);
  });

  test('loads nothing from elsewhere and evaluates no text', () => {
    for (const name of files().filter((file) => /\.(js|css)$/.test(file))) {
      const text = readFileSync(join(dist, name), 'utf8');
      expect(text).not.toMatch(/\beval\(|new Function\(/);
      expect(text).not.toMatch(/url\(\s*['"]?(https?:|data:|\/\/)|@import/);
      expect(text.match(/https?:\/\/(?!www\.w3\.org)[\w.-]+/g) ?? []).toEqual([]);
    }
  });
});
