// precompiled.hpp - the headers in which most of the time of a fuzz build would go: they are compiled once.
//
// Only those of the lower floors: a source has names of its own for what a header of a higher floor may name.
#include "pipe/pipe_core.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <unordered_map>
