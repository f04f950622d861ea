// SPDX-License-Identifier: Apache-2.0
// The network namespace of a thread, and changes of the interfaces in it.
#pragma once

#include <string>

#include "base/unique_fd.h"

namespace firewatch::agent {

// What tells this thread's network namespace from others: its cookie, which is never given twice;
// its inode before Linux 5.14, which is, once the namespace is gone.
std::string NamespaceKey();

// Readable when an interface of this thread's network namespace has come, gone or changed. Invalid
// when the kernel refuses.
base::UniqueFd OpenLinkMonitor();
// What changed is asked for anew, so messages are thrown away, and lost ones do no harm.
void DrainLinkMonitor(int fd);

}  // namespace firewatch::agent
