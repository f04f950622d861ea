// SPDX-License-Identifier: Apache-2.0
// embed.mjs DIST OUT.cc: makes the C++ table behind web/assets.h.
//
// Each file of DIST and its gzip form are taken into the binary by .incbin: megabytes cost the
// compiler nothing. The etag stands in the text, so the source changes whenever a byte of the page
// does and no compiler cache can serve an old page.
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { dirname, extname, join, relative } from 'node:path';
import { gzipSync } from 'node:zlib';

const kTypes = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.json': 'application/json',
  '.txt': 'text/plain; charset=utf-8',
};

function listFiles(folder) {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? listFiles(path) : [path];
  });
}

const [dist, out] = process.argv.slice(2);
if (!dist || !out) {
  console.error('usage: embed.mjs DIST OUT.cc');
  process.exit(2);
}
const blobs = join(dirname(out), 'blobs');
mkdirSync(blobs, { recursive: true });

const entries = listFiles(dist)
  .map((file) => ({ file, path: '/' + relative(dist, file).replaceAll('\\', '/') }))
  .sort((a, b) => (a.path < b.path ? -1 : 1));
const assembly = [];
const declarations = [];
const rows = [];
entries.forEach(({ file, path }, index) => {
  const type = kTypes[extname(path)];
  if (!type) throw new Error(`no content type for ${path}: add it to kTypes`);
  const bytes = readFileSync(file);
  const gzip = gzipSync(bytes, { level: 9 });
  const etag = createHash('sha256').update(bytes).digest('hex').slice(0, 20);
  const symbols = [['raw', bytes]];
  if (gzip.length < bytes.length) symbols.push(['gzip', gzip]);
  for (const [kind, content] of symbols) {
    const blob = join(blobs, `${etag}.${kind}`);
    writeFileSync(blob, content);
    const symbol = `firewatch_web_${kind}_${index}`;
    assembly.push(`    ".balign 16\\n${symbol}:\\n.incbin \\"${blob}\\"\\n"`);
    declarations.push(`extern "C" __attribute__((visibility("hidden"))) const unsigned char ${symbol}[];`);
  }
  const view = (kind, content) =>
    content ? `std::span<const unsigned char>(firewatch_web_${kind}_${index}, ${content.length})` : '{}';
  const immutable = /-[\w-]{8,}\.\w+$/.test(path) && path.startsWith('/assets/');
  rows.push(
    `      {"${path}", "${type}", "\\"${etag}\\"",\n       ${view('gzip', symbols[1]?.[1])},\n` +
      `       ${view('raw', bytes)}, ${immutable}},`,
  );
});

writeFileSync(
  out,
  `// SPDX-License-Identifier: Apache-2.0
// Made by web/dev/embed.mjs; do not edit.
#include "web/assets.h"

asm(".pushsection .rodata\\n"
${assembly.join('\n')}
    ".popsection\\n");
${declarations.join('\n')}

namespace firewatch::web {

std::span<const Asset> Assets() {
  static const Asset assets[] = {
${rows.join('\n')}
  };
  return assets;
}

}  // namespace firewatch::web
`,
);
