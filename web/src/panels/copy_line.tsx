// SPDX-License-Identifier: Apache-2.0
import { useSignal } from '@preact/signals';

// A command with a button that copies it. Without a clipboard (plain HTTP on another host) the text
// can still be selected.
export function CopyLine({ text }: { text: string }) {
  const done = useSignal(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      done.value = true;
      setTimeout(() => (done.value = false), 1500);
    } catch {
      // Not allowed here.
    }
  };
  return (
    <span class="copy-line">
      <code>{text}</code>
      <button type="button" class="button-small" onClick={() => void copy()} aria-label={`Copy: ${text}`}>{done.value ? 'Copied' : 'Copy'}</button>
    </span>
  );
}
