// last_words.hpp - the last lines of a test program: why the current case fails, and which processes are left.
#pragma once

#include <string>

namespace testing {

// One write per text, so that no buffer is cloned by a fork.
void write_out(const std::string& text);

// ---- evidence: why a case fails, stored where a signal handler can read it ----

void forget_evidence();
// The first lines are kept, as TAP comments; lines that do not fit are dropped.
void note_evidence(const std::string& line);
std::string evidence();

// The seed of the random numbers of the case.  It becomes evidence with a failure.
void set_seed(unsigned long seed);
void note_seed();

// ---- for signal handlers: no allocation, no stdio ----

// Writes the evidence, and the processes that are left.
void say_last(const char* first_line);

// Ends every child and every descendant: this process adopts orphans.
void kill_everything();

}  // namespace testing
