// precompiled.cpp - the code that programs with precompiled.hpp leave out.
#include "precompiled.hpp"

#ifndef __clang__
template class nlohmann::basic_json<>;
template class nlohmann::detail::serializer<nlohmann::json>;
template class nlohmann::detail::lexer<nlohmann::json, TextInput>;
template class nlohmann::detail::parser<nlohmann::json, TextInput>;
#endif
