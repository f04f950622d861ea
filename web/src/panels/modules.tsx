// SPDX-License-Identifier: Apache-2.0
// What the agents' modules do: in the footer their names and what is not active, behind it why.
import { signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { type ModuleReason, moduleReasons, moduleText, summarizeModules } from '../model/modules';
import { status } from '../state';

export const modulesOpen = signal(false);
const kMaxNodes = 8;

export function Modules() {
  const all = summarizeModules(status.value?.nodes ?? []);
  if (all.length === 0) return null; // agents from before they had modules
  return (
    <button type="button" class="link modules" onClick={() => (modulesOpen.value = true)} data-testid="modules" title="What they do on which node, and why not">
      modules{' '}
      {all.map((module, i) => {
        const lacking = module.off + module.degraded > 0;
        return <span key={module.name}>{i > 0 && ', '}<b class={lacking ? 'warn' : ''}>{moduleText(module)}</b></span>;
      })}
    </button>
  );
}

export function ModulesDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (modulesOpen.value) dialog.current?.showModal();
    else dialog.current?.close();
  }, [modulesOpen.value]);
  return (
    <dialog class="help unnamed" ref={dialog} aria-label="Modules of the agents" onClose={() => (modulesOpen.value = false)}
      onKeyDown={(event) => event.stopPropagation()}
      onClick={(event) => {
        if (event.target === dialog.current) modulesOpen.value = false; // the ground around it
      }}>
      <h2>Modules of the agents</h2>
      <p>On the machine itself, <code>firewatch doctor --modules</code> says more.</p>
      {modulesOpen.value && (
        <ul class="unnamed-list" data-testid="modules-list" tabIndex={0} aria-label="Modules and their states">
          {moduleReasons(status.value?.nodes ?? []).map((one) => <Reason key={`${one.name} ${one.state} ${one.why}`} {...one} />)}
        </ul>
      )}
      <button type="button" class="button-main" onClick={() => (modulesOpen.value = false)}>Close</button>
    </dialog>
  );
}

function Reason({ name, state, why, nodes }: ModuleReason) {
  const more = nodes.length - kMaxNodes;
  return (
    <li>
      <div><b>{name}</b> <span class={`state state-${state}`}>{state}</span></div>
      {why && <div class="unnamed-text">{why}</div>}
      <div class="unnamed-text" title={nodes.join('\n')}>{nodes.slice(0, kMaxNodes).join(', ')}{more > 0 && ` and ${more} more`}</div>
    </li>
  );
}
