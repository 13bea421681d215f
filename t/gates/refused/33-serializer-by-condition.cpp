// expect: adl_serializer
// The compiler cannot decide which of two conditions is the narrower one, and its error has its own
// text: the program must choose its own serializer.
#ifdef EVPARALLEL_TEST_ACCEPTED
#define EVPARALLEL_NO_STD_JSON
#endif
#include <evparallel/evparallel.hpp>
#include <optional>
namespace par = evparallel;

template <class T>
constexpr bool is_optional = false;
template <class T>
constexpr bool is_optional<std::optional<T>> = true;

template <class T>
struct nlohmann::adl_serializer<T, std::enable_if_t<is_optional<T>>> {
  static void to_json(json& to, const T& value) {
    to = json::array();
    if (value) to.push_back(*value);
  }
  static void from_json(const json& from, T& value) {
    value.reset();
    if (!from.empty()) value = from.at(0).template get<typename T::value_type>();
  }
};

void keep(par::Reactor& loop) {
  auto kept = par::run(loop, [](std::optional<int> n) { return n; });
}
