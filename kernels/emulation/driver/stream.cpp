// Streams and events: steps in order, when somebody waits for them.
#include <algorithm>

#include "driver.h"

namespace driver {
namespace {

Stream* working = nullptr;

// SplitMix64.
uint64_t next_random() {
    uint64_t z = state().seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

std::vector<Stream*> all_streams() {
    std::vector<Stream*> all = state().orphans;
    for (const auto& stream : state().streams.alive) all.push_back(stream.second);
    return all;
}

bool ready(const Stream& stream) {
    if (stream.steps.empty()) return false;
    const Step& first = stream.steps.front();
    return first.wait == nullptr || first.wait->reached >= first.version;
}

// The context answers nothing any more; what was to be done is not.
Result lose(Result result) {
    state().sticky = result;
    for (Stream* stream : all_streams()) stream->steps.clear();
    return result;
}

Result run_one(Stream& stream) {
    const Step step = std::move(stream.steps.front());
    stream.steps.pop_front();
    if (step.wait != nullptr) stream.now = std::max(stream.now, step.wait->time);
    working = &stream;
    const Result result = step.run ? step.run() : SUCCESS;
    return result == SUCCESS ? SUCCESS : lose(result);
}

}  // namespace

void spend(uint64_t nanoseconds) { working->now += nanoseconds; }

Result run_until(const std::function<bool()>& done) {
    while (!done()) {
        std::vector<Stream*> able = all_streams();
        able.erase(std::remove_if(able.begin(), able.end(), [](const Stream* s) { return !ready(*s); }), able.end());
        if (able.empty()) return wrong("waiting", "for something that nobody will do", lose(LAUNCH_FAILED));
        const Result result = run_one(*able[next_random() % able.size()]);
        if (result != SUCCESS) return result;
    }
    return SUCCESS;
}

Result run_all() {
    return run_until([] {
        const std::vector<Stream*> all = all_streams();
        return std::all_of(all.begin(), all.end(), [](const Stream* s) { return s->steps.empty(); });
    });
}

Result enqueue(Stream& stream, Step step) {
    stream.steps.push_back(std::move(step));
    if (!state().now) return SUCCESS;
    // An error of the step shows at the next call, as it would on a card that is fast.
    run_until([&] { return stream.steps.empty(); });
    return SUCCESS;
}

bool pending(const std::function<bool(const Step&)>& uses) {
    for (const Stream* stream : all_streams())
        if (std::any_of(stream->steps.begin(), stream->steps.end(), uses)) return true;
    return false;
}

}  // namespace driver

using namespace driver;

VEILSUM_EXPORT int cuStreamCreate(void** stream, unsigned flags) {
    const Call call("cuStreamCreate", Call::Context);
    if (call.before != SUCCESS) return call.before;
    if (flags > 1) return wrong("cuStreamCreate", "flags");
    *stream = state().streams.add(Stream{});
    for (const auto& [event, version] : state().waits)
        enqueue(*state().streams.find(*stream), Step{"wait", nullptr, event, version});
    return SUCCESS;
}

VEILSUM_EXPORT int cuStreamDestroy_v2(void* handle) {
    const Call call("cuStreamDestroy_v2", Call::Context);
    if (call.before != SUCCESS) return call.before;
    State& s = state();
    Stream* stream = s.streams.find(handle);
    if (stream == nullptr)
        return wrong("cuStreamDestroy_v2", std::string("a stream ") + s.streams.fault(handle), INVALID_HANDLE);
    if (!stream->steps.empty()) s.orphans.push_back(stream);
    s.streams.alive.erase(handle);
    return SUCCESS;
}

VEILSUM_EXPORT int cuStreamSynchronize(void* handle) {
    const Call call("cuStreamSynchronize", Call::Context);
    if (call.before != SUCCESS) return call.before;
    Stream* stream = state().streams.find(handle);
    if (stream == nullptr) return wrong("cuStreamSynchronize", "no such stream", INVALID_HANDLE);
    return run_until([&] { return stream->steps.empty(); });
}

VEILSUM_EXPORT int cuStreamWaitEvent(void* handle, void* of, unsigned flags) {
    const Call call("cuStreamWaitEvent", Call::Context);
    if (call.before != SUCCESS) return call.before;
    Stream* stream = state().streams.find(handle);
    Event* event = state().events.find(of);
    if (stream == nullptr || event == nullptr || flags != 0)
        return wrong("cuStreamWaitEvent", "no such stream, or no such event", INVALID_HANDLE);
    return enqueue(*stream, Step{"wait", nullptr, event, event->recorded});
}

VEILSUM_EXPORT int cuEventCreate(void** event, unsigned flags) {
    const Call call("cuEventCreate", Call::Context);
    if (call.before != SUCCESS) return call.before;
    if (flags > 3) return wrong("cuEventCreate", "flags");
    *event = state().events.add(Event{(flags & 2) == 0});
    return SUCCESS;
}

VEILSUM_EXPORT int cuEventDestroy_v2(void* handle) {
    const Call call("cuEventDestroy_v2", Call::Context);
    if (call.before != SUCCESS) return call.before;
    State& s = state();
    if (s.events.find(handle) == nullptr)
        return wrong("cuEventDestroy_v2", std::string("an event ") + s.events.fault(handle), INVALID_HANDLE);
    s.events.alive.erase(handle);
    return SUCCESS;
}

VEILSUM_EXPORT int cuEventRecord(void* handle, void* on) {
    const Call call("cuEventRecord", Call::Context);
    if (call.before != SUCCESS) return call.before;
    Event* event = state().events.find(handle);
    Stream* stream = state().streams.find(on);
    if (stream == nullptr || event == nullptr)
        return wrong("cuEventRecord", "no such stream, or no such event", INVALID_HANDLE);
    const uint64_t version = ++event->recorded;
    return enqueue(*stream, Step{"record", [event, stream, version] {
                                     event->reached = version;
                                     event->time = stream->now;
                                     return SUCCESS;
                                 }});
}

// All that the context has been given so far, whoever made the stream.
VEILSUM_EXPORT int cuCtxRecordEvent(void* context, void* handle) {
    const Call call("cuCtxRecordEvent", Call::Context);
    if (call.before != SUCCESS) return call.before;
    Event* event = state().events.find(handle);
    if (event == nullptr || reinterpret_cast<uintptr_t>(context) != state().context)
        return wrong("cuCtxRecordEvent", "no such context, or no such event", INVALID_HANDLE);
    const uint64_t version = ++event->recorded;
    const std::vector<Stream*> streams = all_streams();
    auto left = std::make_shared<size_t>(streams.size());
    if (streams.empty()) event->reached = version;
    for (Stream* stream : streams)
        enqueue(*stream, Step{"record", [event, stream, version, left] {
                                  event->time = std::max(event->time, stream->now);
                                  if (--*left == 0) event->reached = std::max(event->reached, version);
                                  return SUCCESS;
                              }});
    return SUCCESS;
}

// All that the context is given from now on waits, on every stream.
VEILSUM_EXPORT int cuCtxWaitEvent(void* context, void* handle) {
    const Call call("cuCtxWaitEvent", Call::Context);
    if (call.before != SUCCESS) return call.before;
    State& s = state();
    Event* event = s.events.find(handle);
    if (event == nullptr || reinterpret_cast<uintptr_t>(context) != s.context)
        return wrong("cuCtxWaitEvent", "no such context, or no such event", INVALID_HANDLE);
    const uint64_t version = event->recorded;
    s.waits.emplace_back(event, version);
    for (const auto& stream : s.streams.alive) enqueue(*stream.second, Step{"wait", nullptr, event, version});
    return SUCCESS;
}

VEILSUM_EXPORT int cuEventQuery(void* handle) {
    const Call call("cuEventQuery", Call::Context);
    if (call.before != SUCCESS) return call.before;
    const Event* event = state().events.find(handle);
    if (event == nullptr) return wrong("cuEventQuery", "no such event", INVALID_HANDLE);
    return event->reached == event->recorded ? SUCCESS : NOT_READY;
}

VEILSUM_EXPORT int cuEventSynchronize(void* handle) {
    const Call call("cuEventSynchronize", Call::Context);
    if (call.before != SUCCESS) return call.before;
    const Event* event = state().events.find(handle);
    if (event == nullptr) return wrong("cuEventSynchronize", "no such event", INVALID_HANDLE);
    return run_until([&] { return event->reached == event->recorded; });
}

VEILSUM_EXPORT int cuEventElapsedTime(float* milliseconds, void* from, void* to) {
    const Call call("cuEventElapsedTime", Call::Context);
    if (call.before != SUCCESS) return call.before;
    const Event *start = state().events.find(from), *end = state().events.find(to);
    if (start == nullptr || end == nullptr || !start->timed || !end->timed || start->recorded == 0 || end->recorded == 0)
        return wrong("cuEventElapsedTime", "events that have no time", INVALID_HANDLE);
    if (start->reached != start->recorded || end->reached != end->recorded) return NOT_READY;
    *milliseconds = static_cast<float>(static_cast<double>(end->time) - static_cast<double>(start->time)) * 1e-6f;
    return SUCCESS;
}
