// last_words.hpp - what a test program says in its last lines: why the case that is running fails, and who is left.
#pragma once

#include <string>

namespace testing {

// One write per text, so that no buffer is cloned by a fork.
void write_out(const std::string& text);

// ---- evidence: why a case fails, kept where a signal handler can read it ----

void forget_evidence();
// The first lines are kept, as TAP comments; what does not fit is left out.
void note_evidence(const std::string& line);
std::string evidence();

// What the case makes its random numbers from.  It becomes evidence with a failure.
void set_seed(unsigned long seed);
void note_seed();

// ---- for signal handlers: no allocation, no stdio ----

// The evidence, and the processes that are left.
void say_last(const char* first_line);

// Ends every child and, as orphans come to us, every descendant.
void kill_everything();

}  // namespace testing
