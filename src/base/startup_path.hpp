// startup_path.hpp - keeps together the code that each child runs up to its first answer and at its
// end.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// After a fork the code of a library is mapped anew when it is used, 64 kB at a time, and each time
// costs as much as ten system calls.  The marked functions are in one place of the library, and not
// spread over all of it.
#pragma once

// Put it before a function's definition, or its first declaration.
#define EVPARALLEL_EARLY [[gnu::hot]]
