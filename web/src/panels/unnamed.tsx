// SPDX-License-Identifier: Apache-2.0
// Which binaries have frames without a name, why, and what helps. The footer says how much it is.
import { signal, useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { ApiError, apiUrl, getJson, type Unnamed } from '../api';
import { formatPercent } from '../model/format';
import { unnamedShare } from '../model/reasons';
import { fullTree, view } from '../state';
import { CopyLine } from './copy_line';

export const unnamedOpen = signal(false);

export function UnnamedShare() {
  const tree = fullTree.value;
  if (!tree) return null;
  const share = unnamedShare(tree);
  if (share === 0) return <span title="Every frame has a name"><b>0 %</b> of frames have no name</span>;
  return (
    <button type="button" class="link" onClick={() => (unnamedOpen.value = true)} data-testid="unnamed-share"
      title="Which binaries, why, and what helps">
      <b>{formatPercent(share, 1)}</b> of frames have no name
    </button>
  );
}

export function UnnamedDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  const answer = useSignal<Unnamed | null>(null);
  const problem = useSignal('');
  useEffect(() => {
    if (!unnamedOpen.value) {
      dialog.current?.close();
      return;
    }
    dialog.current?.showModal();
    const ask = new AbortController();
    const { query, from, to, type } = view.peek();
    answer.value = null;
    problem.value = '';
    getJson<Unnamed>(apiUrl('unnamed', { query, from, to, type }), ask.signal).then(
      (got) => (answer.value = got),
      (error: unknown) => {
        if (!ask.signal.aborted) problem.value = error instanceof ApiError ? error.message : String(error);
      },
    );
    return () => ask.abort();
  }, [unnamedOpen.value]);
  return (
    <dialog class="help unnamed" ref={dialog} aria-label="Frames without a name" onClose={() => (unnamedOpen.value = false)}
      onKeyDown={(event) => event.stopPropagation()}
      onClick={(event) => {
        if (event.target === dialog.current) unnamedOpen.value = false; // the ground around it
      }}>
      <h2>Frames without a name</h2>
      <p>Names that arrive later are shown for profiles stored before, too.</p>
      {problem.value && <p role="alert">{problem.value}</p>}
      {answer.value && <List answer={answer.value} />}
      <button type="button" class="button-main" onClick={() => (unnamedOpen.value = false)}>Close</button>
    </dialog>
  );
}

function List({ answer }: { answer: Unnamed }) {
  if (answer.binaries.length === 0) return <p>Every frame has a name now.</p>;
  return (
    <ul class="unnamed-list" data-testid="unnamed-list" tabIndex={0} aria-label="Binaries with frames without a name">
      {answer.binaries.map((one) => (
        <li key={`${one.path} ${one.build_id} ${one.reason}`}>
          <div><b>{one.path.split('/').pop() || one.build_id.slice(0, 12) || 'no file'}</b> <span class="unnamed-share">{formatPercent(one.frames, answer.all_frames)} of frames</span></div>
          <div class="unnamed-text" title={one.build_id && `${one.path}, build id ${one.build_id}`}>{one.text}{one.detail && ` (${one.detail})`}</div>
          {one.advice.startsWith('firewatch ') ? <CopyLine text={one.advice} /> : one.advice && <div class="unnamed-text">{one.advice}</div>}
        </li>
      ))}
    </ul>
  );
}
