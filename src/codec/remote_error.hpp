// remote_error.hpp - the fixed form in which an error travels.  Never through a user's codec: the
// error may be that one
// does not work.
// Runs in: parent, child.  Licence: see COPYING.  Manual: evparallel_protocol(7).
#pragma once

#include <evparallel/io.hpp>

namespace evparallel {

// The exception that is being handled, as the other side is to see it: a remote_exception with its
// demangled type, what(), the chain of nested exceptions in the text, and the addresses of the place
// that threw it where they were recorded.
Error current_exception_as_remote();

// What is being handled is no exception: the thread is leaving, by pthread_exit() or since it was
// cancelled.  Who handles it has to throw it on, or the C library ends the process.
bool thread_is_leaving() noexcept;
// For who cannot throw it on, in a child: the last thread of a process ends it as exit(0) does.
void end_if_thread_leaves() noexcept;

void write_error(Writer&, const Error&);
// Fails: Errc::bad_message.
Error read_error(Reader);
// The same for who is to hear an error in any case: where it is malformed, that.
Error error_in(Reader);

}  // namespace evparallel
