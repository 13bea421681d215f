// startup_path.hpp - the code that each child passes up to its first answer, and at its end, kept together.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// After a fork the code of a library is mapped anew where it is used, 64 kB at a time, and each time
// costs as much as ten system calls.  What is marked stands in one place of the library, and not
// strewn over all of it.
#pragma once

// Before a function's definition, or its first declaration.
#define EVPARALLEL_EARLY [[gnu::hot]]
