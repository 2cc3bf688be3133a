// The scheduler of the emulation, and its C interface. One launch at a time in a process.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include "cuda.h"
#include "fiber.h"
#include "kernels.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// The bounds of the section of static shared memory, made by the linker; absent if no kernel has any.
extern "C" __attribute__((weak, visibility("hidden"))) unsigned char __start_veilsum_shared[];
extern "C" __attribute__((weak, visibility("hidden"))) unsigned char __stop_veilsum_shared[];

namespace emulation {
namespace {

constexpr unsigned MAX_THREADS = 1024;
constexpr unsigned MAX_SHARED = 227 * 1024;
// Written behind the dynamic shared memory and checked after each block.
constexpr unsigned SHARED_TAIL = 4096;
constexpr size_t STACK = 256 * 1024, GUARD = 64 * 1024;
// A NaN as a float, and a number that no index has.
constexpr unsigned POISON = 0xffc0dead;

enum class State { Ready, Barrier, Warp, Done };

struct Fiber {
    Context context;
    unsigned char* stack = nullptr;
    State state = State::Done;
    // Where it waits.
    const char* file = nullptr;
    int line = 0;
    // Its part of a warp operation, and the result.
    WarpOp op = WarpOp::Sync;
    unsigned mask = 0, source = 0;
    uint64_t value = 0;
};

std::vector<Fiber> fibers(MAX_THREADS);
std::vector<unsigned> ready;
Context scheduler;
unsigned running, threads, live, waiting;
alignas(128) unsigned char shared[MAX_SHARED + SHARED_TAIL];
std::string failure;
uint64_t random_state;
struct {
    const Kernel* kernel;
    const void* params;
    void* const* buffers;
} work;

// SplitMix64.
uint64_t next_random() {
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

unsigned below(unsigned bound) { return static_cast<unsigned>(((next_random() >> 32) * bound) >> 32); }

void set_ready(unsigned thread) {
    fibers[thread].state = State::Ready;
    ready.push_back(thread);
}

// Leaves the fiber: for good if it failed, because nobody resumes it then.
void pause() { switch_to(fibers[running].context, scheduler); }

[[noreturn]] void fail(const std::string& why) {
    failure = why;
    for (;;) pause();
}

[[noreturn]] void fiber_body() {
    work.kernel->call(work.kernel->function, work.params, work.buffers);
    fibers[running].state = State::Done;
    live--;
    for (;;) pause();
}

uint64_t fold(WarpOp op, uint64_t a, uint64_t b) {
    switch (op) {
        case WarpOp::Add: return static_cast<unsigned>(a + b);
        case WarpOp::Max: return a < b ? b : a;
        case WarpOp::Min: return a < b ? a : b;
        case WarpOp::Or: return a | b;
        case WarpOp::And: return a & b;
        default: return a ^ b;
    }
}

// The results of a warp operation whose lanes have all arrived; `first` is the thread of lane 0.
void complete(unsigned first, unsigned mask, WarpOp op) {
    uint64_t results[32] = {}, folded = 0;
    bool begun = false;
    for (unsigned lane = 0; lane < 32; lane++) {
        if ((mask >> lane & 1) == 0) continue;
        const Fiber& fiber = fibers[first + lane];
        if (op == WarpOp::Shuffle) {
            if (fiber.source > 31 || (mask >> fiber.source & 1) == 0)
                fail("lane " + std::to_string(lane) + " reads lane " + std::to_string(fiber.source) +
                     ", which is not in the mask, at line " + std::to_string(fiber.line));
            results[lane] = fibers[first + fiber.source].value;
        } else if (op == WarpOp::Ballot) {
            folded |= fiber.value << lane;
        } else {
            folded = begun ? fold(op, folded, fiber.value) : fiber.value;
            begun = true;
        }
    }
    for (unsigned lane = 0; lane < 32; lane++) {
        if ((mask >> lane & 1) == 0) continue;
        fibers[first + lane].value = op == WarpOp::Shuffle ? results[lane] : folded;
        set_ready(first + lane);
    }
}

std::string place(const Fiber& fiber) {
    const char* file = fiber.file == nullptr ? "" : fiber.file;
    const char* slash = std::strrchr(file, '/');
    return std::string(slash == nullptr ? file : slash + 1) + ":" + std::to_string(fiber.line);
}

// Nobody can run: says who waits where.
std::string deadlock() {
    std::string text = "the block cannot go on:";
    unsigned told = 0;
    for (unsigned i = 0; i < threads && told < 4; i++) {
        const Fiber& fiber = fibers[i];
        if (i > 0 && fiber.state == fibers[i - 1].state && fiber.line == fibers[i - 1].line) continue;
        const char* state = fiber.state == State::Done      ? " has ended,"
                            : fiber.state == State::Barrier ? " waits at the barrier "
                                                            : " waits for its warp at line ";
        text += " thread " + std::to_string(i) + state;
        if (fiber.state == State::Barrier) text += place(fiber) + ",";
        if (fiber.state == State::Warp) text += std::to_string(fiber.line) + ",";
        told++;
    }
    text.pop_back();
    return text;
}

void fill_words(unsigned char* begin, size_t bytes) {
    for (size_t i = 0; i + 4 <= bytes; i += 4) std::memcpy(begin + i, &POISON, 4);
}

// A stack with a page below it that nobody may touch.
unsigned char* new_stack() {
    void* memory = mmap(nullptr, GUARD + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    mprotect(memory, GUARD, PROT_NONE);
    return static_cast<unsigned char*>(memory) + GUARD;
}

void begin_block(unsigned shared_bytes) {
    fill_words(shared, shared_bytes / 4 * 4 + SHARED_TAIL);
    if (__start_veilsum_shared != nullptr)
        fill_words(__start_veilsum_shared, static_cast<size_t>(__stop_veilsum_shared - __start_veilsum_shared));
    ready.clear();
    live = threads;
    waiting = 0;
    for (unsigned i = 0; i < threads; i++) {
        Fiber& fiber = fibers[i];
        if (fiber.stack == nullptr && (fiber.stack = new_stack()) == nullptr) {
            failure = "no memory for the stack of a thread";
            return;
        }
        prepare(fiber.context, fiber.stack, STACK, fiber_body);
        set_ready(i);
    }
}

bool tail_is_untouched(unsigned shared_bytes) {
    for (unsigned i = shared_bytes / 4 * 4; i + 4 <= shared_bytes + SHARED_TAIL; i += 4)
        if (std::memcmp(shared + i, &POISON, 4) != 0) return i < shared_bytes;
    return true;
}

void run_block(unsigned shared_bytes) {
    begin_block(shared_bytes);
    while (live > 0 && failure.empty()) {
        if (ready.empty()) {
            failure = deadlock();
            return;
        }
        const unsigned at = below(static_cast<unsigned>(ready.size()));
        running = ready[at];
        ready[at] = ready.back();
        ready.pop_back();
        threadIdx = {running, 0, 0};
        switch_to(scheduler, fibers[running].context);
    }
    if (failure.empty() && !tail_is_untouched(shared_bytes))
        failure = "the kernel wrote beyond its " + std::to_string(shared_bytes) + " bytes of dynamic shared memory";
}

std::string run_grid(unsigned grid_x, unsigned grid_y, unsigned shared_bytes) {
    blockDim = {threads, 1, 1};
    gridDim = {grid_x, grid_y, 1};
    std::vector<unsigned> order(static_cast<size_t>(grid_x) * grid_y);
    for (size_t i = 0; i < order.size(); i++) {
        order[i] = static_cast<unsigned>(i);
        std::swap(order[i], order[below(static_cast<unsigned>(i + 1))]);
    }
    for (unsigned block : order) {
        blockIdx = {block % grid_x, block / grid_x, 0};
        run_block(shared_bytes);
        if (!failure.empty()) return "block " + std::to_string(block) + ": " + failure;
    }
    return "";
}

std::string check(const char* entry, const Kernel* kernel, unsigned shared_bytes, size_t params_len, int n) {
    if (kernel == nullptr) return std::string("there is no kernel ") + entry;
    if (kernel->params_len != params_len)
        return std::string(entry) + " takes " + std::to_string(kernel->params_len) + " bytes of parameters, not " +
               std::to_string(params_len);
    if (kernel->buffers != n)
        return std::string(entry) + " takes " + std::to_string(kernel->buffers) + " buffers, not " + std::to_string(n);
    if (threads == 0 || threads > MAX_THREADS) return "a block has 1 to 1024 threads";
    return shared_bytes > MAX_SHARED ? "a block has at most 227 KiB of shared memory" : "";
}

}  // namespace

void barrier(const char* file, int line) {
    Fiber& fiber = fibers[running];
    fiber.state = State::Barrier;
    fiber.file = file;
    fiber.line = line;
    waiting++;
    if (waiting == threads) {
        for (unsigned i = 0; i < threads; i++)
            if (fibers[i].line != line || std::strcmp(fibers[i].file, file) != 0)
                fail("threads wait at different barriers: " + place(fibers[i]) + " and " + place(fiber));
        waiting = 0;
        for (unsigned i = 0; i < threads; i++) set_ready(i);
    }
    pause();
}

uint64_t warp(WarpOp op, unsigned mask, uint64_t value, unsigned source, int line) {
    const unsigned first = running / 32 * 32;
    Fiber& fiber = fibers[running];
    // A full mask means the lanes that exist, in a last warp that is not whole.
    if (threads - first < 32) mask &= (1u << (threads - first)) - 1;
    fiber.state = State::Warp;
    fiber.op = op;
    fiber.mask = mask;
    fiber.value = value;
    fiber.source = source;
    fiber.line = line;
    if ((mask >> (running - first) & 1) == 0) fail("a lane is not in its own mask, at line " + std::to_string(line));
    bool all = true;
    for (unsigned lane = 0; lane < 32; lane++) {
        if ((mask >> lane & 1) == 0) continue;
        const Fiber& other = fibers[first + lane];
        all = all && other.state == State::Warp && other.mask == mask && other.op == op && other.line == line;
    }
    if (all) complete(first, mask, op);
    pause();
    return fiber.value;
}

void* shared_base() { return shared; }

// Made at first use: kernels are enrolled by constructors of other files, in any order.
std::vector<Kernel>& kernels() {
    static std::vector<Kernel> all;
    return all;
}

void enroll(const char* entry, const char* file, void (*kernel)(), Call call, size_t params_len, int buffers) {
    const char* slash = std::strrchr(file, '/');
    std::string stem = slash == nullptr ? file : slash + 1;
    stem.resize(std::min(stem.size(), stem.find('.')));
    kernels().push_back({entry, stem, kernel, call, params_len, buffers});
}

}  // namespace emulation

extern "C" int veilsum_launch(
    const char* entry, unsigned grid_x, unsigned grid_y, unsigned threads, unsigned shared_bytes, const void* params,
    size_t params_len, void* const* buffers, int n, unsigned long long seed, char* error, size_t error_len) {
    static std::mutex one_launch;
    const std::lock_guard<std::mutex> guard(one_launch);
    const emulation::Kernel* kernel = nullptr;
    for (const emulation::Kernel& candidate : emulation::kernels())
        if (candidate.entry == entry) kernel = &candidate;
    emulation::threads = threads;
    emulation::random_state = seed;
    emulation::failure.clear();
    std::string text = emulation::check(entry, kernel, shared_bytes, params_len, n);
    if (text.empty()) {
        emulation::work = {kernel, params, buffers};
        text = emulation::run_grid(grid_x, grid_y, shared_bytes);
    }
    if (error_len > 0) std::snprintf(error, error_len, "%s", text.c_str());
    return text.empty() ? 0 : 1;
}

// The name of kernel `index`, or null after the last.
extern "C" __attribute__((visibility("default"))) const char* veilsum_entry(size_t index) {
    return index < emulation::kernels().size() ? emulation::kernels()[index].entry.c_str() : nullptr;
}
