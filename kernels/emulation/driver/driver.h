// A CUDA driver without a GPU: the functions of libcuda that veilsum calls, over the emulated kernels and memory of the
// host. It is there to find what the host side does wrong, and so stricter than a real one:
//
//   - addresses are never used twice, so that what is freed or foreign is always found; memory is poisoned when it is
//     allocated, and what lies behind it is checked when it is used and freed;
//   - work is deferred until somebody waits for it, streams in an order shuffled by a seed, each in its own order and after
//     the events that it waits for: a missing wait shows, and host memory that is used again too early;
//   - handles are checked, and what is still there when the context is released is a leak.
//
// A mistake of the caller is an error at the call, is kept in a list (control.cpp), and makes the process end with status 70.
// Environment: EMULATED_CUDA_ORDER is `deferred` (default), `deferred:SEED` or `now`; EMULATED_CUDA_MEMORY is the size of
// the device's memory in bytes; EMULATED_CUDA_IMAGES is the folder of the machine code that modules are loaded from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../kernels.h"

#define VEILSUM_EXPORT extern "C" __attribute__((visibility("default")))

namespace driver {

// Values of CUresult.
enum Result : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    OUT_OF_RESOURCES = 701,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
};

struct Event;

// A step of a stream. `host` is the page-locked memory that it uses.
struct Step {
    const char* name;
    std::function<Result()> run;
    Event* wait = nullptr;
    uint64_t version = 0;
    uint64_t host = 0;
    const void* module = nullptr;
};

struct Stream {
    std::deque<Step> steps;
    // Nanoseconds of the device's clock at which its last step ended.
    uint64_t now = 0;
};

struct Event {
    bool timed;
    // How often it was recorded, and which of those has been reached, at what time.
    uint64_t recorded = 0, reached = 0, time = 0;
};

struct Pool {
    size_t held = 0;                // bytes of memory that is allocated from it
    std::vector<size_t> kept;       // sizes of what was freed and not given back
    uint64_t threshold = 0;         // most bytes that it keeps
};

// Device memory. `alive` from the step that allocates to the step that frees.
struct Block {
    size_t bytes, room;
    Pool* pool;
    bool alive = false, freed = false;
};

// Page-locked memory of the host.
struct Pinned {
    size_t bytes;
};

struct Module {
    std::string file;
};

struct Function {
    const emulation::Kernel* kernel;
    const Module* module;
    unsigned most_shared = 48 * 1024;
};

// Handles of one kind: a handle is the address of an object that stays there, so that a dead one is told from a foreign one.
template <class T>
struct Table {
    std::map<void*, std::unique_ptr<T>> all;
    std::map<void*, T*> alive;

    void* add(T value) {
        auto object = std::make_unique<T>(std::move(value));
        void* handle = object.get();
        alive[handle] = object.get();
        all[handle] = std::move(object);
        return handle;
    }
    T* find(const void* handle) const {
        const auto found = alive.find(const_cast<void*>(handle));
        return found == alive.end() ? nullptr : found->second;
    }
    const char* fault(const void* handle) const {
        return all.count(const_cast<void*>(handle)) != 0 ? "was destroyed before" : "was never made";
    }
};

struct State {
    std::mutex lock;
    bool started = false;
    // The primary context: how often it is retained, and its handle, another one every time.
    unsigned retained = 0;
    uintptr_t context = 0;
    // An error that stays until the context is released.
    Result sticky = SUCCESS;
    Table<Stream> streams;
    Table<Event> events;
    // What every stream of the context waits for before it does anything, those that are made later too.
    std::vector<std::pair<Event*, uint64_t>> waits;
    Table<Pool> pools;
    Table<Module> modules;
    Table<Function> functions;
    // By first address; what was freed stays in the list.
    std::map<uint64_t, Block> blocks;
    std::map<uint64_t, Pinned> pinned;
    // Streams that were destroyed with work left.
    std::vector<Stream*> orphans;
    size_t total = 0, used = 0;
    bool now = false;
    uint64_t seed = 0, launches = 0;
    // Control.
    std::vector<std::string> mistakes;
    std::map<std::string, uint64_t> calls;
    std::string fail_call;
    uint64_t fail_after = 0;
    Result fail_with = SUCCESS;
    bool fail_sticks = false, fail_armed = false;
    std::string watched;
    uint64_t left_behind = 0;
};

State& state();

// Something that the caller must not do: noted, and returned.
Result wrong(const char* call, const std::string& what, Result result = INVALID_VALUE);

// A call of the interface: takes the lock, counts, and says what is wrong before it begins.
class Call {
   public:
    enum Needs { Nothing, Start, Context };
    Call(const char* name, Needs needs);
    Result before;

   private:
    std::lock_guard<std::mutex> guard;
};

// ---- memory.cpp ----

// The live memory that holds `bytes` from `address` on, or null; `running` if a step asks, else a caller.
const Block* covering(uint64_t address, size_t bytes, bool running, std::string& why);
// What lies behind the memory, as it was written when that was allocated.
bool intact(uint64_t address);
// Bytes that a search for the watched bytes finds in live memory of the device and in page-locked memory.
uint64_t watched_regions();
void release_memory();

// ---- stream.cpp ----

// Adds a step to a stream; runs it where work is not deferred.
Result enqueue(Stream& stream, Step step);
// Runs what has to run before `done` holds. The sticky error if one comes up.
Result run_until(const std::function<bool()>& done);
Result run_all();
bool pending(const std::function<bool(const Step&)>& uses);
// Moves the clock of the stream whose step runs.
void spend(uint64_t nanoseconds);

}  // namespace driver
