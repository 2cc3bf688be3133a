// What every call begins with, the list of mistakes, and how a test looks inside.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "driver.h"

namespace driver {
namespace {

// The context that is current on this thread.
thread_local uintptr_t current = 0;

// Ends the process with a status of its own, where somebody made a mistake that no test asked for.
struct AtExit {
    ~AtExit() {
        const State& s = state();
        for (const std::string& mistake : s.mistakes) std::fprintf(stderr, "emulated CUDA driver: %s\n", mistake.c_str());
        if (!s.mistakes.empty()) _exit(70);
    }
} at_exit;

}  // namespace

// Never destroyed: statics of the program may call until the very end.
State& state() {
    static State* const only = [] {
        auto* s = new State;
        const char* memory = std::getenv("EMULATED_CUDA_MEMORY");
        s->total = memory == nullptr ? size_t{2} << 30 : std::strtoull(memory, nullptr, 10);
        const char* order = std::getenv("EMULATED_CUDA_ORDER");
        s->now = order != nullptr && std::strcmp(order, "now") == 0;
        const char* seed = order == nullptr ? nullptr : std::strchr(order, ':');
        if (seed != nullptr) s->seed = std::strtoull(seed + 1, nullptr, 10);
        return s;
    }();
    return *only;
}

Result wrong(const char* call, const std::string& what, Result result) {
    state().mistakes.push_back(std::string(call) + ": " + what);
    return result;
}

Call::Call(const char* name, Needs needs) : before(SUCCESS), guard(state().lock) {
    State& s = state();
    s.calls[name]++;
    if (s.fail_armed && (s.fail_call.empty() || s.fail_call == name) && s.fail_after-- == 0) {
        s.fail_armed = false;
        if (s.fail_sticks) s.sticky = s.fail_with;
        before = s.fail_with;
    } else if (needs != Nothing && !s.started) {
        before = wrong(name, "before cuInit", NOT_INITIALIZED);
    } else if (needs == Context && (current == 0 || current != s.context)) {
        before = wrong(name, current == 0 ? "no context is current on this thread" : "the current context is released",
                       INVALID_CONTEXT);
    } else if (needs == Context && s.sticky != SUCCESS) {
        before = s.sticky;
    }
}

}  // namespace driver

using namespace driver;

VEILSUM_EXPORT int cuCtxGetCurrent(void** context) {
    const Call call("cuCtxGetCurrent", Call::Start);
    if (call.before == SUCCESS) *context = reinterpret_cast<void*>(current);
    return call.before;
}

VEILSUM_EXPORT int cuCtxSetCurrent(void* context) {
    const Call call("cuCtxSetCurrent", Call::Start);
    if (call.before != SUCCESS) return call.before;
    const auto handle = reinterpret_cast<uintptr_t>(context);
    if (handle != 0 && handle != state().context) return wrong("cuCtxSetCurrent", "no such context", INVALID_CONTEXT);
    current = handle;
    return SUCCESS;
}

// ---- for tests; none of these is of CUDA ----

// How many mistakes there are, and as many of them as fit, a line each.
VEILSUM_EXPORT size_t emulated_cuda_mistakes(char* text, size_t len) {
    const std::lock_guard<std::mutex> guard(state().lock);
    std::string all;
    for (const std::string& mistake : state().mistakes) all += mistake + "\n";
    if (len > 0) std::snprintf(text, len, "%s", all.c_str());
    return state().mistakes.size();
}

// Forgets the mistakes, which a test has made on purpose.
VEILSUM_EXPORT void emulated_cuda_forgive() {
    const std::lock_guard<std::mutex> guard(state().lock);
    state().mistakes.clear();
}

// How often a function was called.
VEILSUM_EXPORT unsigned long long emulated_cuda_calls(const char* name) {
    const std::lock_guard<std::mutex> guard(state().lock);
    return state().calls[name];
}

// From now on the call number `after` of `name` (or of anything, if it is empty) fails, and if it sticks all that follow.
VEILSUM_EXPORT void emulated_cuda_fail(const char* name, unsigned long long after, int result, int sticks) {
    const std::lock_guard<std::mutex> guard(state().lock);
    State& s = state();
    s.fail_call = name;
    s.fail_after = after;
    s.fail_with = static_cast<Result>(result);
    s.fail_sticks = sticks != 0;
    s.fail_armed = true;
}

// Bytes to look for from now on in all that is freed.
VEILSUM_EXPORT void emulated_cuda_watch(const void* bytes, size_t len) {
    const std::lock_guard<std::mutex> guard(state().lock);
    state().watched.assign(static_cast<const char*>(bytes), len);
    state().left_behind = 0;
}

// How many regions held the watched bytes when they were freed.
VEILSUM_EXPORT unsigned long long emulated_cuda_left_behind() {
    const std::lock_guard<std::mutex> guard(state().lock);
    return state().left_behind;
}

// How many regions of memory that is not freed hold them now; all work has been done.
VEILSUM_EXPORT unsigned long long emulated_cuda_held() {
    const std::lock_guard<std::mutex> guard(state().lock);
    run_all();
    return watched_regions();
}

// What there is: streams, events, pools, modules, blocks of device memory and of page-locked memory.
VEILSUM_EXPORT void emulated_cuda_live(unsigned long long counts[6]) {
    const std::lock_guard<std::mutex> guard(state().lock);
    const State& s = state();
    const auto blocks = std::count_if(s.blocks.begin(), s.blocks.end(), [](const auto& b) { return !b.second.freed; });
    const size_t found[6] = {s.streams.alive.size(), s.events.alive.size(),       s.pools.alive.size(),
                             s.modules.alive.size(), static_cast<size_t>(blocks), s.pinned.size()};
    std::copy(found, found + 6, counts);
}
