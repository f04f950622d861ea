// SPDX-License-Identifier: Apache-2.0
import { render } from 'preact';

render(<h1>Firewatch</h1>, document.getElementById('app')!);
