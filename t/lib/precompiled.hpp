// precompiled.hpp - the headers that most test programs include: `make check PRECOMPILED=yes` compiles them once.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>
