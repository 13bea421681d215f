// export.hpp - what leaves the shared library: everything else is hidden.
// Licence: see COPYING.
#pragma once

#define EVPARALLEL_API __attribute__((visibility("default")))
