// remote_error.hpp - the fixed form in which an error is sent.
// Runs in: parent, child.  Licence: see COPYING.  Manual: evparallel_protocol(7).
//
// A user's codec is never used for it: the error may be that a codec does not work.
#pragma once

#include <evparallel/io.hpp>

namespace evparallel::detail {

// The exception that is being handled, in the form for the other side: a remote_exception with its
// demangled type, what(), the chain of nested exceptions in the text, and the addresses of its
// throw site if they were recorded.
Error current_exception_as_remote();

// True if the object that is being handled is no exception, but the thread is leaving, by
// pthread_exit() or because it was cancelled.  The handler has to rethrow it, or the C library ends
// the process.
bool thread_is_leaving() noexcept;
// For a handler in a child that cannot rethrow it: the last thread of a process ends the process as
// exit(0) does.
void end_if_thread_leaves() noexcept;

void write_error(Writer&, const Error&);
// Fails: Errc::bad_message.
Error read_error(Reader);
// The same for a caller that needs an error in any case: if the error is malformed, returns the
// error that says so.
Error error_in(Reader);

}  // namespace evparallel::detail
