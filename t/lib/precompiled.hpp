// precompiled.hpp - the headers that most test programs include, which are compiled once; see GNUmakefile.am.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

// A third of the code of a test program would be that of documents. The precompiled headers of clang++ have code.
#ifndef __clang__
#include <nlohmann/json.hpp>

extern template class nlohmann::basic_json<>;
extern template class nlohmann::detail::serializer<nlohmann::json>;
using TextInput = nlohmann::detail::iterator_input_adapter<const char*>;
extern template class nlohmann::detail::lexer<nlohmann::json, TextInput>;
extern template class nlohmann::detail::parser<nlohmann::json, TextInput>;
#endif
