#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# install_modules.sh: `npm ci` in the folder given, only when its modules are missing or its lock file
# has changed. Builds of several presets share one node_modules, so the check holds a file lock.
set -eu
cd "$1"
exec 9> .npm-lock
flock 9
if ! cmp -s package-lock.json node_modules/.installed-lock; then
  npm ci --no-audit --no-fund --loglevel=error
  cp package-lock.json node_modules/.installed-lock
fi
