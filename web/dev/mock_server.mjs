// SPDX-License-Identifier: Apache-2.0
// mock_server.mjs [--port 7199] [--dist FOLDER] [--nodes N] [--peers N]: the server's HTTP API with made-up data,
// for work on the page and for its browser tests without a server. Same answers for the same range.
// --nodes N adds a wide synthetic service, to see the page with a big tree; --peers N one with many
// connections.
import { createServer } from 'node:http';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const argument = (name, fallback) => {
  const at = process.argv.indexOf(name);
  return at > 0 ? process.argv[at + 1] : fallback;
};
const kPort = Number(argument('--port', 7199));
const kDist = argument('--dist', join(dirname(fileURLToPath(import.meta.url)), '..', 'dist'));
const kExtraNodes = Number(argument('--nodes', 0));
const kExtraPeers = Number(argument('--peers', 0));
const kWindowMs = 10_000;
const kHz = 19;
const kStarted = Date.now() - 26 * 3600_000;

// --- Data: services with stacks "frame@binary weight"; a frame may end in !i (inlined) ----------------

const kernelExit = ['entry_SYSCALL_64_after_hwframe@[kernel]', 'do_syscall_64@[kernel]'];
const kernelRead = [...kernelExit, 'ksys_read@[kernel]', 'vfs_read@[kernel]', 'ext4_file_read_iter@[kernel]', 'filemap_read@[kernel]'];
const tcpSend = [...kernelExit, '__sys_sendto@[kernel]', 'tcp_sendmsg@[kernel]', 'tcp_sendmsg_locked@[kernel]', 'tcp_push@[kernel]', '__tcp_push_pending_frames@[kernel]', 'tcp_write_xmit@[kernel]', '__tcp_transmit_skb@[kernel]', 'ip_queue_xmit@[kernel]', '__ip_local_out@[kernel]', 'ip_output@[kernel]', '__dev_queue_xmit@[kernel]'];
const faults = ['asm_exc_page_fault@[kernel]', 'exc_page_fault@[kernel]', 'do_user_addr_fault@[kernel]', 'handle_mm_fault@[kernel]', '__handle_mm_fault@[kernel]', 'do_anonymous_page@[kernel]', 'clear_page_erms@[kernel]'];
const schedule = [...kernelExit, 'do_epoll_wait@[kernel]', 'ep_poll@[kernel]', 'schedule@[kernel]', '__schedule@[kernel]', 'finish_task_switch.isra.0@[kernel]'];

const app = (binary, ...frames) => frames.map((frame) => `${frame}@${binary}`);
const search = app('search-indexer', '_start', 'main', 'indexer::Server::Run(indexer::Options const&)', 'indexer::Worker::Loop()');
const tokenize = app('search-indexer', 'indexer::Tokenizer<indexer::Utf8Decoder, std::vector<indexer::Token, std::allocator<indexer::Token>>>::Tokenize(std::basic_string_view<char>, std::vector<indexer::Token>*)');
const score = app('search-indexer', 'indexer::Scorer::ScoreBatch(std::span<indexer::Posting const>, float*)');
const pg = app('postgres', '_start', 'main', 'PostmasterMain', 'ServerLoop', 'BackendStartup', 'PostgresMain', 'exec_simple_query', 'PortalRun', 'PortalRunSelect', 'standard_ExecutorRun', 'ExecutePlan');
const nginx = app('nginx', '_start', 'main', 'ngx_master_process_cycle', 'ngx_spawn_process', 'ngx_worker_process_cycle', 'ngx_process_events_and_timers', 'ngx_epoll_process_events');
const http = [...nginx, ...app('nginx', 'ngx_http_wait_request_handler', 'ngx_http_process_request_line', 'ngx_http_process_request_headers', 'ngx_http_process_request', 'ngx_http_core_run_phases')];
const rust = app('gateway', '_start', 'main', 'std::rt::lang_start_internal', 'gateway::main', 'tokio::runtime::runtime::Runtime::block_on', 'tokio::runtime::scheduler::multi_thread::worker::Context::run_task', '<gateway::proxy::Proxy as tower::Service<http::Request<hyper::Body>>>::call');
const python = app('python3.11', '_start', 'Py_BytesMain', 'pymain_run_python', 'PyRun_SimpleFileObject', 'PyEval_EvalCode', '_PyEval_EvalFrameDefault', '_PyFunction_Vectorcall', '_PyEval_EvalFrameDefault', '_PyFunction_Vectorcall', '_PyEval_EvalFrameDefault');

const kServices = [
  { service: 'search-indexer', nodes: ['node-a', 'node-b', 'node-c'], exe: '/usr/bin/search-indexer', cores: 3.1, stacks: [
    [30, ...search, ...tokenize, 'indexer::Utf8Decoder::Next()@search-indexer!i'],
    [14, ...search, ...tokenize, 'std::vector<indexer::Token, std::allocator<indexer::Token>>::push_back(indexer::Token&&)@search-indexer!i', 'operator new(unsigned long)@libstdc++.so.6.0.30', 'malloc@libc.so.6', '_int_malloc@libc.so.6'],
    [4, ...search, ...tokenize, 'operator new(unsigned long)@libstdc++.so.6.0.30', 'malloc@libc.so.6', ...faults],
    [22, ...search, ...score],
    [9, ...search, ...score, 'expf@libm.so.6'],
    [6, ...search, 'indexer::Segment::Flush(indexer::File*)@search-indexer', 'LZ4_compress_fast_extState@liblz4.so.1'],
    [3, ...search, 'indexer::Segment::Flush(indexer::File*)@search-indexer', '__write@libc.so.6', ...kernelExit, 'ksys_write@[kernel]', 'vfs_write@[kernel]', 'ext4_buffered_write_iter@[kernel]', 'generic_perform_write@[kernel]', 'copy_page_from_iter_atomic@[kernel]'],
    [5, ...search, 'indexer::Queue<indexer::Document>::Pop()@search-indexer', 'pthread_cond_wait@libc.so.6', ...kernelExit, '__x64_sys_futex@[kernel]', 'do_futex@[kernel]', 'futex_wait@[kernel]', 'schedule@[kernel]'],
    [2, ...search, 'libplugin.so+0x1f40@libplugin.so!u', 'libplugin.so+0x23c8@libplugin.so!u'],
  ] },
  { service: 'postgres', nodes: ['node-a', 'node-b'], exe: '/usr/lib/postgresql/15/bin/postgres', cores: 1.9, stacks: [
    [16, ...pg, ...app('postgres', 'ExecAgg', 'agg_retrieve_direct', 'fetch_input_tuple', 'ExecHashJoin', 'ExecScan', 'SeqNext', 'heap_getnextslot', 'heapgettup_pagemode')],
    [11, ...pg, ...app('postgres', 'ExecAgg', 'agg_retrieve_direct', 'ExecInterpExpr', 'slot_deform_heap_tuple')],
    [8, ...pg, ...app('postgres', 'ExecAgg', 'agg_retrieve_direct', 'ExecInterpExpr', 'numeric_add')],
    [7, ...pg, ...app('postgres', 'ExecSort', 'tuplesort_performsort', 'qsort_tuple', 'comparetup_heap', 'varstrfastcmp_locale'), '__strcoll_l@libc.so.6'],
    [6, ...pg, ...app('postgres', 'ExecIndexScan', 'IndexNext', 'index_getnext_slot', 'btgettuple', '_bt_search', '_bt_binsrch', '_bt_compare')],
    [5, ...pg, ...app('postgres', 'ExecScan', 'SeqNext', 'heapgetpage', 'ReadBufferExtended', 'mdread', 'FileRead'), '__pread64@libc.so.6', ...kernelRead, 'copyout@[kernel]'],
    [2, ...pg, ...app('postgres', 'printtup'), '__send@libc.so.6', ...tcpSend],
  ] },
  { service: 'edge-nginx', nodes: ['node-b', 'node-c'], exe: '/usr/sbin/nginx', cores: 1.15, stacks: [
    [9, ...http, ...app('nginx', 'ngx_http_static_handler', 'ngx_http_output_filter', 'ngx_http_gzip_body_filter'), 'deflate@libz.so.1.2.13', 'deflate_fast@libz.so.1.2.13', 'longest_match@libz.so.1.2.13!i'],
    [5, ...http, ...app('nginx', 'ngx_http_proxy_handler', 'ngx_http_upstream_init', 'ngx_http_upstream_connect'), ...kernelExit, '__sys_connect@[kernel]', 'tcp_v4_connect@[kernel]'],
    [6, ...nginx, 'ngx_ssl_handshake_handler@nginx', 'SSL_do_handshake@libssl.so.3', 'tls_process_client_key_exchange@libssl.so.3', 'EVP_PKEY_derive@libcrypto.so.3', 'x25519_scalar_mult@libcrypto.so.3'],
    [4, ...http, ...app('nginx', 'ngx_http_write_filter', 'ngx_linux_sendfile_chain'), 'sendfile64@libc.so.6', ...tcpSend],
    [3, ...app('nginx', '_start', 'main', 'ngx_master_process_cycle', 'ngx_spawn_process', 'ngx_worker_process_cycle', 'ngx_process_events_and_timers'), 'epoll_wait@libc.so.6', ...schedule],
  ] },
  { service: 'gateway', nodes: ['node-c'], exe: '/opt/gateway/gateway', cores: 0.74, stacks: [
    [8, ...rust, 'serde_json::de::Deserializer<serde_json::read::StrRead>::parse_str@gateway!i', 'serde_json::read::parse_escape@gateway'],
    [6, ...rust, '<alloc::vec::Vec<u8> as core::clone::Clone>::clone@gateway!i', '__memcpy_avx_unaligned_erms@libc.so.6'],
    [4, ...rust, 'hyper::proto::h1::conn::Conn<I,B,T>::poll_flush@gateway', '__send@libc.so.6', ...tcpSend],
    [3, ...rust, 'ring::aead::aes_gcm::aes_gcm_seal@gateway', 'aes_hw_ctr32_encrypt_blocks@gateway'],
  ] },
  { service: 'report-cron', nodes: ['node-a'], exe: '/usr/bin/python3.11', cores: 0.42, stacks: [
    [7, ...python, 'PyNumber_Add@python3.11', 'unicode_concatenate@python3.11'],
    [5, ...python, '_PyObject_GC_Alloc@python3.11', 'gc_collect_main@python3.11', 'deduce_unreachable@python3.11'],
    [4, ...python, 'PyDict_SetItem@python3.11', 'insertdict@python3.11'],
    [1, ...python, 'PyObject_Call@python3.11', '_json.cpython-311.so+0x52f1@_json.cpython-311.so!u'],
  ] },
  { service: 'kernel', nodes: ['node-a', 'node-b', 'node-c'], exe: '', cores: 0.21, stacks: [
    [3, ...app('[kernel]', 'ret_from_fork', 'kthread', 'worker_thread', 'process_one_work', 'blk_mq_run_work_fn', 'blk_mq_dispatch_rq_list', 'nvme_queue_rq')],
    [2, ...app('[kernel]', 'ret_from_fork', 'kthread', 'rcu_gp_kthread', 'rcu_gp_fqs_loop')],
    [2, ...app('[kernel]', 'ret_from_fork', 'kthread', 'kswapd', 'balance_pgdat', 'shrink_node', 'shrink_lruvec')],
  ] },
  { service: 'sshd.service', nodes: ['node-a', 'node-b', 'node-c'], exe: '/usr/sbin/sshd', cores: 0.012, stacks: [
    [1, ...app('sshd', '_start', 'main', 'do_authenticated', 'server_loop2', 'channel_after_poll'), 'chachapoly_crypt@sshd'],
  ] },
];

function noise(text) {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; ++i) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  hash = Math.imul(hash ^ (hash >>> 12), 0x297a2d39);
  return ((hash ^ (hash >>> 15)) >>> 0) / 4294967296;
}

if (kExtraNodes > 0) {
  const stacks = [];
  for (let made = 0; made < kExtraNodes; ) {
    const stack = [1 + Math.floor(50 * noise(`w${made}`) ** 4)];
    let place = Math.floor(noise(`p${made}`) * 64);
    for (let depth = 0; depth < 12 + 20 * noise(`d${made}`); ++depth) {
      stack.push(`wide::layer_${depth}::step_${place}@wide`);
      place = Math.floor(place * 1.7 + 8 * noise(`${made}/${depth}`)) % 5000;
    }
    stacks.push(stack);
    made += 4;
  }
  kServices.push({ service: 'wide', nodes: ['node-a'], exe: '/usr/bin/wide', cores: 2, stacks });
}

// One series per service and node.
const kSeries = kServices.flatMap((service) =>
  service.nodes.map((node) => ({
    labels: { service: service.service, node, exe: service.exe, comm: service.exe.split('/').pop() || 'kworker' },
    service,
    cores: service.cores / service.nodes.length,
  })));

// CPU nanoseconds of a series in the window that begins at t.
function windowValue(series, t) {
  if (t < kStarted) return 0;
  const name = series.labels.service + series.labels.node;
  const phase = noise(name) * 6.28;
  const wave = 1 + 0.25 * Math.sin(t / 130_000 + phase) + 0.2 * Math.sin(t / 3_700_000 + phase);
  const spike = noise(`${name}spike${Math.floor(t / 120_000)}`) > 0.93 ? 1.8 : 1;
  const samples = Math.round(series.cores * wave * spike * (0.85 + 0.3 * noise(name + t)) * kHz * (kWindowMs / 1000));
  return samples * Math.round(1e9 / kHz);
}

function windows(range) {
  const first = Math.ceil(range.from / kWindowMs) * kWindowMs;
  return Array.from({ length: Math.max(0, Math.ceil((Math.min(range.to, Date.now()) - first) / kWindowMs)) }, (_, i) => first + i * kWindowMs);
}

// --- Requests ----------------------------------------------------------------------------------------

class BadRequest extends Error {}

function parseTime(text, fallback) {
  if (!text) return fallback;
  const relative = /^now(?:-(\d+)(ms|s|m|h|d|w))?$/.exec(text);
  const unit = { ms: 1, s: 1e3, m: 6e4, h: 36e5, d: 864e5, w: 6048e5 };
  if (relative) return Date.now() - (relative[1] ? Number(relative[1]) * unit[relative[2]] : 0);
  if (/^\d+$/.test(text)) return Number(text);
  const parsed = Date.parse(text);
  if (Number.isNaN(parsed)) throw new BadRequest(`time "${text}": expected unix milliseconds, RFC 3339 or now-15m`);
  return parsed;
}

function parseQuery(url) {
  const p = url.searchParams;
  const text = (p.get('query') ?? '').trim();
  const matchers = [];
  if (text !== '' && !/^\{.*\}$/.test(text)) throw new BadRequest('query: column 1: expected "{"');
  for (const [, name, op, value] of text.matchAll(/([\w.]+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"/g)) {
    const plain = value.replace(/\\(.)/g, '$1');
    if (op.includes('~')) {
      try {
        const regex = new RegExp(`^(?:${plain})$`);
        matchers.push((labels) => regex.test(labels[name] ?? '') === (op === '=~'));
      } catch (error) {
        throw new BadRequest(`query: regular expression "${plain}": missing )`);
      }
    } else {
      matchers.push((labels) => ((labels[name] ?? '') === plain) === (op === '='));
    }
  }
  const type = p.get('type') ?? 'cpu';
  if (type !== 'cpu' && type !== 'samples') throw new BadRequest(`type "${type}": expected cpu or samples`);
  const range = { from: parseTime(p.get('from'), Date.now() - 900_000), to: parseTime(p.get('to'), Date.now()) };
  if (range.from >= range.to) throw new BadRequest('from is not before to');
  return {
    series: kSeries.filter(({ labels }) => matchers.every((matcher) => matcher(labels))),
    range,
    scale: type === 'cpu' ? 1 : 1 / Math.round(1e9 / kHz),
    unit: type === 'cpu' ? 'nanoseconds' : 'count',
  };
}

function buildTree(query) {
  const root = { name: 'total', file: '', flags: 0, self: 0, total: 0, children: new Map() };
  for (const series of query.series) {
    const samples = windows(query.range).reduce((sum, t) => sum + windowValue(series, t), 0) / Math.round(1e9 / kHz);
    const weights = series.service.stacks.map((stack) => stack[0]);
    const all = weights.reduce((sum, weight) => sum + weight, 0);
    let given = 0;
    let share = 0;
    series.service.stacks.forEach((stack) => {
      share += stack[0];
      const count = Math.round((samples * share) / all) - given;
      given += count;
      if (count > 0) addStack(root, stack.slice(1), count * (query.scale === 1 ? Math.round(1e9 / kHz) : 1));
    });
  }
  return root;
}

const kStripped = 4; // NameReason of proto/ingest.proto

// The binaries of frames without a name.
function unnamed(query) {
  const binaries = new Map();
  let all = 0;
  const visit = (node) => {
    for (const child of node.children.values()) {
      all += child.total;
      if (child.flags & 4) {
        const one = binaries.get(child.file) ?? { self: 0, total: 0, frames: 0 };
        one.self += child.self;
        one.total = Math.max(one.total, child.total);
        one.frames += child.total;
        binaries.set(child.file, one);
      }
      visit(child);
    }
  };
  const root = buildTree(query);
  visit(root);
  const rows = [...binaries].sort((a, b) => b[1].frames - a[1].frames).map(([file, numbers]) => ({
    path: `/usr/lib/${file}`, build_id: '0123456789abcdef0123456789abcdef01234567', reason: 'stripped',
    text: 'The file is stripped, and no debug information for it was found.', detail: '',
    advice: `firewatch debuginfo upload /usr/lib/${file}`, ...numbers,
  }));
  return { unit: query.unit, total: root.total, all_frames: all, frames: rows.reduce((sum, row) => sum + row.frames, 0), binaries: rows };
}

function addStack(root, frames, value) {
  let node = root;
  node.total += value;
  for (const frame of frames) {
    let child = node.children.get(frame);
    if (!child) {
      const at = frame.lastIndexOf('@');
      const [file, mark] = frame.slice(at + 1).split('!');
      const flags = (mark === 'i' ? 1 : 0) | (file === '[kernel]' ? 2 : 0) | (mark === 'u' ? 4 : 0);
      child = { name: frame.slice(0, at), file, flags, self: 0, total: 0, children: new Map() };
      if (mark === 'u') child.flags |= kStripped << 4;
      else if (file === 'search-indexer') Object.assign(child, { source: `/src/search/indexer/${file}.cc`, line: 10 + 7 * node.children.size });
      node.children.set(frame, child);
    }
    child.total += value;
    node = child;
  }
  node.self += value;
}

function encodeTree(root, maxNodes) {
  const names = new Map([['', 0]]);
  const intern = (name) => names.get(name) ?? (names.set(name, names.size), names.size - 1);
  const nodes = [{ node: root, parent: 0 }];
  for (let i = 0; i < nodes.length; ++i) {
    let children = [...nodes[i].node.children.values()];
    const room = maxNodes - nodes.length;
    if (children.length > room) {
      children.sort((a, b) => b.total - a.total);
      const cut = children.slice(Math.max(0, room));
      const rest = cut.reduce((sum, child) => sum + child.total, 0);
      children = children.slice(0, Math.max(0, room));
      if (rest > 0) children.push({ name: '(other)', file: '', flags: 8, self: rest, total: rest, children: new Map() });
    }
    children.sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const node of children) nodes.push({ node, parent: i });
  }
  const out = [];
  const varint = (value) => {
    while (value >= 0x80) {
      out.push((value % 0x80) | 0x80);
      value = Math.floor(value / 0x80);
    }
    out.push(value);
  };
  const nameColumn = nodes.map(({ node }) => intern(node.name));
  const fileColumn = nodes.map(({ node }) => intern(node.file));
  const sourceColumn = nodes.map(({ node }) => intern(node.source ?? ''));
  varint(nodes.length);
  varint(names.size);
  for (const name of names.keys()) {
    const bytes = Buffer.from(name);
    varint(bytes.length);
    for (const byte of bytes) out.push(byte);
  }
  nodes.forEach(({ parent }, i) => varint(parent - (i > 0 ? nodes[i - 1].parent : 0)));
  nameColumn.forEach(varint);
  nodes.forEach(({ node }) => varint(2 * node.self));
  nodes.forEach(({ node }) => varint(2 * node.total));
  nodes.forEach(({ node }) => varint(node.flags));
  fileColumn.forEach(varint);
  sourceColumn.forEach(varint);
  nodes.forEach(({ node }) => varint(node.line ?? 0));
  return { bytes: Buffer.concat([Buffer.from('FWFT\x02', 'latin1'), Buffer.from(out)]), count: nodes.length };
}

function foldedOf(root) {
  const lines = [];
  const walk = (node, path) => {
    if (node.self > 0 && path.length) lines.push(`${path.join(';')} ${node.self}`);
    for (const child of node.children.values()) walk(child, [...path, child.name]);
  };
  walk(root, []);
  return lines.join('\n') + '\n';
}

// --- Connections: who connects to whom, "address:port connections-per-window KiB-per-connection loss" --

const kTalks = [
  ['gateway', '10.4.1.11', 'checkout-api', '10.4.1.20', 8080, 14, 22, 0.0002],
  ['gateway', '10.4.1.11', 'search-indexer', '10.4.1.31', 9200, 9, 140, 0.0009],
  ['checkout-api', '10.4.1.20', 'postgres', '10.4.1.40', 5432, 3, 310, 0.0001],
  ['checkout-api', '10.4.1.20', '', '185.199.108.153', 443, 2, 12, 0.031],
  ['search-indexer', '10.4.1.31', 'postgres', 'fd00:4:1::40', 5432, 1, 2400, 0.004],
  ['report-cron', '10.4.1.52', 'postgres', '10.4.1.40', 5432, 0.3, 5200, 0],
  ['report-cron', '10.4.1.52', '', '203.0.113.9', 25, 0.2, 3, 0.2],
  ['sshd.service', '198.51.100.7', 'sshd.service', '10.4.1.11', 22, 0.02, 60, 0.002],
];

function talk([client, clientAddress, server, serverAddress, port, rate, kib, loss], count) {
  const opened = Math.round(rate * count);
  const dead = loss > 0.1;
  const out = opened * kib * 128;
  const numbers = {
    opened: dead ? 0 : opened, closed: dead ? 0 : Math.max(0, opened - 3), failed: dead ? opened : Math.round(opened * loss * 4),
    resets_sent: 0, resets_received: Math.round(opened * loss * 9), retransmits: dead ? 0 : Math.round((out / 1400) * loss),
    syn_retransmits: dead ? opened * 6 : Math.round(opened * loss), bytes_sent: dead ? 0 : out, bytes_received: dead ? 0 : out * 7,
    segments_sent: dead ? 0 : Math.ceil(out / 1400), segments_received: dead ? 0 : Math.ceil(out / 200),
    duration_us: dead ? 0 : opened * 180_000, rtt_us: dead ? 0 : Math.round(90 + 4e5 * loss * (1 + noise(client + server))), living: dead ? 0 : Math.min(opened, 3),
  };
  const rows = [];
  const row = (service, role, remote, turned) => {
    const series = kSeries.find(({ labels }) => labels.service === service);
    if (series && opened > 0) rows.push({ series, role, remote, port, ...numbers, ...turned });
  };
  row(client, 'connect', serverAddress, {});
  if (!dead) {
    row(server, 'accept', clientAddress, {
      resets_sent: numbers.resets_received, resets_received: 0, syn_retransmits: 0, failed: 0, retransmits: numbers.retransmits * 2,
      bytes_sent: numbers.bytes_received, bytes_received: numbers.bytes_sent,
      segments_sent: numbers.segments_received, segments_received: numbers.segments_sent,
    });
  }
  return rows;
}

const kOrders = {
  retransmits: (row) => row.retransmits, bytes: (row) => row.bytes_sent + row.bytes_received, failed: (row) => row.failed,
  opened: (row) => row.opened, rtt: (row) => row.rtt_us,
};

function connections(url) {
  const { series, range } = parseQuery(url);
  const order = kOrders[url.searchParams.get('sort') ?? 'retransmits'];
  if (!order) throw new BadRequest('sort: expected retransmits, bytes, failed, opened or rtt');
  const limit = Number(url.searchParams.get('limit') ?? 200);
  const times = windows(range).filter((t) => t >= kStarted);
  const many = Array.from({ length: kExtraPeers }, (_, i) =>
    ['gateway', '', '', `10.${20 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`, 443, 0.1 + 3 * noise(`rate${i}`) ** 3, 1 + 200 * noise(`kib${i}`) ** 2, 0.02 * noise(`loss${i}`) ** 4]);
  const chosen = new Set(series);
  const all = [...kTalks, ...many].flatMap((one) => talk(one, times.length)).filter((row) => chosen.has(row.series));
  const total = { opened: 0, closed: 0, failed: 0, resets_sent: 0, resets_received: 0, retransmits: 0, syn_retransmits: 0, bytes_sent: 0, bytes_received: 0, segments_sent: 0, segments_received: 0, duration_us: 0, rtt_us: 0, living: 0 };
  for (const row of all) for (const name of Object.keys(total)) total[name] += row[name];
  total.rtt_us = all.length ? Math.round(total.rtt_us / all.length) : 0;
  const rows = all.sort((a, b) => order(b) - order(a)).slice(0, limit)
    .map(({ series: { labels }, ...row }) => ({ labels: { ...labels, container_id: '' }, ...row }));
  return { from_ms: range.from, to_ms: range.to, rows, total, left_out: all.length - rows.length, windows: times.length };
}

const kModules = {
  'node-a': [{ name: 'cpu', state: 'active', why: '' }, { name: 'network', state: 'active', why: '' }],
  'node-b': [{ name: 'cpu', state: 'active', why: '' }, { name: 'network', state: 'degraded', why: 'no reasons of dropped packets: the kernel has no tracepoint skb:kfree_skb with a reason (5.17)' }],
  'node-c': [{ name: 'cpu', state: 'active', why: '' }, { name: 'network', state: 'active', why: '' }, { name: 'enforce', state: 'off', why: 'the configuration names no interface' }],
};

const kHandlers = {
  '/api/v1/connections': connections,
  '/api/v1/series'(url) {
    const query = parseQuery(url);
    const step = Number(url.searchParams.get('step') ?? 10_000);
    const groupBy = url.searchParams.get('group_by');
    const groups = new Map();
    for (const series of query.series) {
      const key = groupBy ? series.labels[groupBy] : '';
      const group = groups.get(key) ?? groups.set(key, { labels: groupBy ? { [groupBy]: key } : {}, total: 0, points: new Map() }).get(key);
      for (const t of windows(query.range)) {
        const value = windowValue(series, t) * query.scale;
        if (value === 0) continue;
        const at = Math.floor(t / step) * step;
        group.points.set(at, (group.points.get(at) ?? 0) + value);
        group.total += value;
      }
    }
    const list = [...groups.values()].filter((group) => group.total > 0).sort((a, b) => b.total - a.total)
      .map((group) => ({ ...group, points: [...group.points.entries()].sort((a, b) => a[0] - b[0]) }));
    return { step_ms: step, unit: query.unit, from_ms: query.range.from, to_ms: query.range.to, total: list.reduce((sum, group) => sum + group.total, 0), groups: list };
  },
  '/api/v1/profile'(url) {
    const query = parseQuery(url);
    const root = buildTree(query);
    const format = url.searchParams.get('format') ?? 'json';
    if (format === 'folded') return { text: foldedOf(root), type: 'text/plain', name: 'firewatch.folded' };
    if (format === 'pprof') return { text: foldedOf(root), type: 'application/octet-stream', name: 'firewatch.pb.gz' };
    if (format === 'json') return { name: 'total', total: root.total };
    const { bytes, count } = encodeTree(root, Number(url.searchParams.get('max_nodes') ?? 0) || Infinity);
    return { bytes, headers: { 'X-Firewatch-Total': root.total, 'X-Firewatch-Unit': query.unit, 'X-Firewatch-Nodes': count } };
  },
  '/api/v1/unnamed': (url) => unnamed(parseQuery(url)),
  '/api/v1/labels': () => ({ names: ['comm', 'exe', 'node', 'service'] }),
  '/api/v1/status': () => ({
    version: '0.1.0-mock', now_ms: Date.now(),
    nodes: ['node-a', 'node-b', 'node-c'].map((node) => ({ node, last_seen_ms: Date.now() - 4000, hz: kHz, agent_version: '0.1.0', modules: kModules[node] })),
    store: { disk_bytes: 48_234_496, windows: 28_080, duplicates: 3, oldest_ms: kStarted, newest_ms: Date.now() - 4000 },
    losses: { ring_full: 12, stack_truncated: 431 },
    stack_ends: { root: 181_205, kernel_only: 9_120, frame_pointer_missing: 7_511, truncated: 431 },
  }),
};

const kTypes = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml' };

function answer(url) {
  const values = /^\/api\/v1\/labels\/([\w.]+)\/values$/.exec(url.pathname);
  if (values) return { values: [...new Set(parseQuery(url).series.map(({ labels }) => labels[values[1]] ?? ''))].sort() };
  return kHandlers[url.pathname]?.(url);
}

function send(request, response, status, type, body, headers = {}) {
  const zip = /gzip/.test(request.headers['accept-encoding'] ?? '') && body.length > 1000;
  response.writeHead(status, {
    'Content-Type': type,
    // What the server sends with the page; a violation is an error in the browser tests.
    'Content-Security-Policy': "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    ...(zip ? { 'Content-Encoding': 'gzip' } : {}),
    ...headers,
  });
  response.end(zip ? gzipSync(body) : body);
}

function handle(request, response) {
  const url = new URL(request.url, 'http://mock');
  try {
    const result = answer(url);
    if (result?.bytes) return send(request, response, 200, 'application/octet-stream', result.bytes, result.headers);
    if (result?.text) return send(request, response, 200, result.type, Buffer.from(result.text), { 'Content-Disposition': `attachment; filename="${result.name}"` });
    if (result) return send(request, response, 200, 'application/json', Buffer.from(JSON.stringify(result)));
    const path = url.pathname === '/' ? '/index.html' : normalize(url.pathname);
    const file = join(kDist, path);
    if (!file.startsWith(kDist) || !existsSync(file)) return send(request, response, 404, 'application/json', Buffer.from('{"error":"no such path"}'));
    return send(request, response, 200, kTypes[extname(file)] ?? 'application/octet-stream', readFileSync(file));
  } catch (error) {
    const status = error instanceof BadRequest ? 400 : 500;
    if (status === 500) console.error(error);
    return send(request, response, status, 'application/json', Buffer.from(JSON.stringify({ error: error.message })));
  }
}

const server = createServer(handle);
server.listen(kPort, '127.0.0.1', () => console.log(`mock server on http://127.0.0.1:${server.address().port}/`));
