// child_environment.hpp - the environment of a child as Options describe it: name, directory, CPUs,
// environment variables, standard streams.
// Runs in: parent.  Licence: see COPYING.  Manual: evparallel_child(3), evparallel_protocol(7).
#pragma once

#include "system/stdio_plan.hpp"
#include "spawn/captured_output.hpp"

#include <evparallel/options.hpp>

#include <string>

namespace evparallel::detail {

// Made once for all children of one Remote.  Holds copies of the descriptors that Options name.
class ChildEnvironment {
public:
  // Fails: std::logic_error for options that make no sense; Error{spawn_failed} (no descriptors).
  explicit ChildEnvironment(const Options&);

  const std::string& text() const noexcept { return text_; }
  bool captures() const noexcept;
  // The streams of one child; `output` gets the other ends of those that are captured.
  // Fails: Error{spawn_failed} (no descriptors).
  StdioPlan open_streams(CapturedOutput* output) const;

private:
  std::string text_;
  Stdio streams_[StdioPlan::count];
  DupFd given_[StdioPlan::count];
};

}  // namespace evparallel::detail
