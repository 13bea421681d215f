// abi.cpp - a library whose only function has the types of the public headers in its signature, so
// that abidw describes all of them.  The debug information of libevparallel leaves some out: it has
// only their names where no exported function takes them.
// Licence: see COPYING.
//
// Templates are not here: they are compiled into the program, from its own headers.
#include <evparallel/detail/driven_reactor.hpp>
#include <evparallel/evparallel.hpp>
#include <evparallel/fault.hpp>

namespace par = evparallel;
namespace detail = evparallel::detail;

// The structs that users fill in or read, and the classes that they hold.
extern "C" EVPARALLEL_API void public_types(
    par::StackFrame*, par::CrashReport*, par::CallOptions*, par::Call*, par::Errc, par::Delivery,
    par::Cause, par::ResourceUsage*, par::ExitStatus*, par::Error*, par::Fd*, par::Interrupted*,
    par::Interrupts*, par::MapSummary*, par::MapOptions*, par::Writer*, par::Reader*,
    par::CodecScope*, par::Limits*, par::ProcessGroup, par::Options*, par::PoolOptions*,
    par::Percentiles*, par::WorkerEvent*, par::PoolStats*, par::PreflightReport*, par::Progress*,
    par::ProgressForm, par::ProgressOptions*, par::ProgressBar*, par::Timer*, par::Watch*,
    par::Hold*, par::Reactor*, par::ReactorThread*, par::SharedBytes*, par::Preflight,
    par::SnapshotOptions*, par::Snapshot*, par::StartTask*, par::Stdio*, par::OutputLine*,
    par::Restart, par::SuperviseOptions*, par::Supervisor*, par::fault::Plan*, par::fault::Victim,
    par::fault::Armed*, detail::Padding, detail::Values*, par::DefaultIo*) {}

// What the templates of the headers and the library pass to each other.
extern "C" EVPARALLEL_API void shared_types(
    detail::CallTarget*, detail::FunctionList*, detail::MapTask*, detail::MapInterface*,
    detail::PipeInterface*, detail::PoolInterface*, detail::ProcessInterface*, detail::EventSource*,
    detail::LoopRunner*, detail::TimerCallback*, detail::RemoteInterface*, detail::StreamInterface*,
    detail::SupervisorInterface*, detail::ReplyInterface*, detail::ChildInterface*, detail::Task*,
    detail::ReplyHandle*, detail::AnyVisit*, par::Attachment*, detail::CancelledInThread*,
    detail::Cbor*, detail::DocumentIo*, detail::Draft*, detail::DraftBuffer*,
    detail::DrivenReactor*, detail::EventHandle*, detail::InlineBuffer*, detail::JsonCursor*,
    detail::JsonNumber*, detail::LoopAddress*, par::MapHandle*, detail::Msgpack*,
    detail::OwnedByThread*, detail::PackedBlock*, detail::PackedLevel*, detail::PackedReader*,
    detail::PackedWriter*, par::ProgressMeter*, detail::PutPackedPart*,
    detail::ReactorThreadInterface*, par::SharedCall*, detail::WaitingCallback*) {}
