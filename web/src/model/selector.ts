// SPDX-License-Identifier: Apache-2.0
// The query text, read on the client for chips, suggestions and early errors. The server's parser
// has the last word; this one accepts the same grammar: {service="x", node!="y", exe=~"a.*"}.

export type MatchOp = '=' | '!=' | '=~' | '!~';
export interface Matcher {
  name: string;
  op: MatchOp;
  value: string;
}

export type Parsed = { ok: true; matchers: Matcher[] } | { ok: false; error: string; column: number };

export function parseSelector(text: string): Parsed {
  let at = 0;
  const skip = () => {
    while (at < text.length && /\s/.test(text[at])) ++at;
  };
  const fail = (expected: string): Parsed => {
    const found = at >= text.length ? 'the end' : `“${text[at]}”`;
    return { ok: false, error: `column ${at + 1}: expected ${expected}, found ${found}`, column: at + 1 };
  };
  const matchers: Matcher[] = [];
  skip();
  if (at === text.length) return { ok: true, matchers };
  if (text[at] !== '{') return fail('“{”');
  ++at;
  for (;;) {
    skip();
    if (text[at] === '}') break;
    const name = /^[a-zA-Z_][a-zA-Z0-9_.]*/.exec(text.slice(at))?.[0];
    if (!name) return fail(matchers.length ? 'a label name' : 'a label name or “}”');
    at += name.length;
    skip();
    const op = /^(=~|!~|!=|=)/.exec(text.slice(at))?.[0] as MatchOp | undefined;
    if (!op) return fail('=, !=, =~ or !~');
    at += op.length;
    skip();
    if (text[at] !== '"') return fail('a value in double quotes');
    const begin = at++;
    let value = '';
    while (at < text.length && text[at] !== '"') {
      if (text[at] === '\\' && at + 1 < text.length) ++at, (value += text[at] === 'n' ? '\n' : text[at]);
      else value += text[at];
      ++at;
    }
    if (at >= text.length) {
      at = begin;
      return { ok: false, error: `column ${begin + 1}: the value has no closing quote`, column: begin + 1 };
    }
    ++at;
    matchers.push({ name, op, value });
    skip();
    if (text[at] === ',') ++at;
    else if (text[at] !== '}') return fail('“,” or “}”');
  }
  ++at;
  skip();
  return at === text.length ? { ok: true, matchers } : fail('nothing more');
}

export function formatMatcher(matcher: Matcher): string {
  const value = matcher.value.replace(/[\\"]/g, '\\$&').replace(/\n/g, '\\n');
  return `${matcher.name}${matcher.op}"${value}"`;
}

export function formatSelector(matchers: Matcher[]): string {
  return matchers.length === 0 ? '' : `{${matchers.map(formatMatcher).join(', ')}}`;
}

// A click on a service: replaces equality on the same label, keeps the rest.
export function withEqual(matchers: Matcher[], name: string, value: string): Matcher[] {
  return [...matchers.filter((m) => m.name !== name), { name, op: '=', value }];
}

// --- Suggestions ---------------------------------------------------------------------------------

// What is being written at the caret: a label's name, an operator or a value; [from, to) is the
// text that a suggestion replaces.
export type Spot =
  | { kind: 'name'; prefix: string; from: number; to: number }
  | { kind: 'value'; name: string; prefix: string; from: number; to: number }
  | { kind: 'none' };

export function spotAt(text: string, caret: number): Spot {
  const before = text.slice(0, caret);
  const value = /([a-zA-Z_][a-zA-Z0-9_.]*)\s*(?:=~|!~|!=|=)\s*("?)((?:[^"\\]|\\.)*)$/.exec(before);
  if (value && !/[,{]/.test(value[2] === '' ? value[3] : '')) {
    const rest = /^(?:[^"\\,}]|\\.)*"?/.exec(text.slice(caret))![0];
    const from = caret - value[3].length - value[2].length;
    return { kind: 'value', name: value[1], prefix: value[3], from, to: caret + rest.length };
  }
  const name = /(?:^|[{,])\s*([a-zA-Z_][a-zA-Z0-9_.]*)?$/.exec(before);
  if (!name) return { kind: 'none' };
  const prefix = name[1] ?? '';
  const rest = /^[a-zA-Z0-9_.]*\s*(?:=~|!~|!=|=)?/.exec(text.slice(caret))![0];
  return { kind: 'name', prefix, from: caret - prefix.length, to: caret + rest.length };
}

// The text after a suggestion was taken, and where the caret stands then.
export function applySuggestion(text: string, spot: Spot, choice: string): { text: string; caret: number } {
  if (spot.kind === 'none') return { text, caret: text.length };
  let head = text.slice(0, spot.from);
  let tail = text.slice(spot.to);
  let put: string;
  if (spot.kind === 'name') {
    if (!head.includes('{')) head = '{' + head;
    put = `${choice}=`;
  } else {
    put = `"${choice.replace(/[\\"]/g, '\\$&')}"`;
    if (!tail.trim()) tail = '}';
  }
  return { text: head + put + tail, caret: head.length + put.length };
}
