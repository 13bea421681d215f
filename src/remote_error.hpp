// remote_error.hpp - the fixed form in which an error travels.  Never through a user's codec: the
// error may be that one
// does not work.
// Licence: see COPYING.  Manual: evparallel_protocol(7).
#pragma once

#include <evparallel/io.hpp>

namespace evparallel {

// The exception that is being handled, as the other side is to see it: a remote_exception with its
// demangled type, what(), the chain of nested exceptions in the text, and the addresses of the place
// that threw it where they were recorded.
Error current_exception_as_remote();

void write_error(Writer&, const Error&);
// Fails: Errc::bad_message.
Error read_error(Reader);
// The same for who is to hear an error in any case: where it is malformed, that.
Error error_in(Reader);

}  // namespace evparallel
