// extensions.hpp - state that the objects on one loop share.
// Runs in: parent, child.  Licence: see COPYING.
#pragma once

#include <memory>
#include <utility>
#include <vector>

namespace evparallel::detail {

// One object of each type, made at its first use.
class Extensions {
public:
  template <class T>
  T& get() {
    static const char type = 0;
    for (const auto& [of, object] : objects_)
      if (of == &type) return *static_cast<T*>(object.get());
    objects_.emplace_back(&type, std::make_shared<T>());
    return *static_cast<T*>(objects_.back().second.get());
  }

private:
  std::vector<std::pair<const char*, std::shared_ptr<void>>> objects_;  // by the address of a type
};

}  // namespace evparallel::detail
