// Device memory in the order of a stream, page-locked memory, and copies between them.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "driver.h"

namespace driver {
namespace {

// A NaN as a float, and a number that no index has.
constexpr uint32_t POISON = 0xffc0dead;
constexpr size_t PAGE = 4096, TAIL = 256;
// Addresses of device memory, of which nothing is used twice.
constexpr size_t SPACE = size_t{1} << 40;

// Time of a step: about that of a small kernel, and of a byte at 1 TB/s.
constexpr uint64_t STEP = 1000, BYTES_OF_A_NANOSECOND = 1024;

uint64_t take_addresses(size_t room) {
    static uint64_t next = 0, end = 0;
    if (next == 0) {
        void* space = mmap(nullptr, SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (space == MAP_FAILED) return 0;
        next = reinterpret_cast<uint64_t>(space) + PAGE;
        end = reinterpret_cast<uint64_t>(space) + SPACE;
    }
    if (end - next < room + PAGE) return 0;
    const uint64_t taken = next;
    next += room + PAGE;
    return taken;
}

unsigned char* bytes_at(uint64_t address) { return reinterpret_cast<unsigned char*>(address); }

void poison(uint64_t address, size_t bytes) {
    for (size_t i = 0; i + 4 <= bytes; i += 4) std::memcpy(bytes_at(address) + i, &POISON, 4);
}

bool holds(uint64_t address, size_t bytes) {
    const std::string& watched = state().watched;
    if (watched.empty()) return false;
    const auto *begin = bytes_at(address), *end = begin + bytes;
    return std::search(begin, end, watched.begin(), watched.end(), [](unsigned char a, char b) {
               return a == static_cast<unsigned char>(b);
           }) != end;
}

Result appear(uint64_t address) {
    Block& block = state().blocks.at(address);
    if (mprotect(bytes_at(address), block.room, PROT_READ | PROT_WRITE) != 0) return LAUNCH_FAILED;
    poison(address, block.room);
    block.alive = true;
    return SUCCESS;
}

void vanish(uint64_t address, Block& block) {
    if (block.alive) {
        if (holds(address, block.bytes)) state().left_behind++;
        madvise(bytes_at(address), block.room, MADV_DONTNEED);
        mprotect(bytes_at(address), block.room, PROT_NONE);
    }
    block.alive = false;
}

Result disappear(uint64_t address) {
    if (!intact(address)) return wrong("cuMemFreeAsync", "somebody wrote behind the memory", ILLEGAL_ADDRESS);
    vanish(address, state().blocks.at(address));
    return SUCCESS;
}

// The page-locked memory that a copy uses: 0 if the host's memory is not locked.
Result locked(const char* call, uint64_t host, size_t bytes, uint64_t& found) {
    found = 0;
    const State& s = state();
    auto after = s.pinned.upper_bound(host);
    if (after != s.pinned.end() && host + bytes > after->first) return wrong(call, "it begins before page-locked memory");
    if (after == s.pinned.begin()) return SUCCESS;
    const auto& [start, memory] = *--after;
    if (host >= start + memory.bytes) return SUCCESS;
    if (host + bytes > start + memory.bytes) return wrong(call, "it goes beyond page-locked memory");
    found = start;
    return SUCCESS;
}

// Checks a range of the device when a call names it.
Result checked(const char* call, uint64_t address, size_t bytes) {
    std::string why;
    return covering(address, bytes, false, why) == nullptr ? wrong(call, why) : SUCCESS;
}

// Checks it once more when the step runs.
Result reached(const char* call, uint64_t address, size_t bytes) {
    std::string why;
    spend(STEP + bytes / BYTES_OF_A_NANOSECOND);
    return covering(address, bytes, true, why) == nullptr ? wrong(call, why, ILLEGAL_ADDRESS) : SUCCESS;
}

size_t kept_bytes(const Pool& pool) {
    size_t sum = 0;
    for (const size_t bytes : pool.kept) sum += bytes;
    return sum;
}

// Room for `bytes`: a piece that the pool has kept, or new memory of the device.
bool take_room(Pool& pool, size_t bytes) {
    State& s = state();
    const auto piece = std::find_if(pool.kept.begin(), pool.kept.end(), [&](size_t kept) { return kept >= bytes; });
    if (piece != pool.kept.end()) {
        *piece -= bytes;
        if (*piece == 0) pool.kept.erase(piece);
    } else if (bytes > s.total - s.used) {
        return false;
    } else {
        s.used += bytes;
    }
    pool.held += bytes;
    return true;
}

void give_room(Pool& pool, size_t bytes) {
    pool.held -= bytes;
    if (kept_bytes(pool) + bytes <= pool.threshold) {
        pool.kept.push_back(bytes);
    } else {
        state().used -= bytes;
    }
}

}  // namespace

const Block* covering(uint64_t address, size_t bytes, bool running, std::string& why) {
    const State& s = state();
    auto after = s.blocks.upper_bound(address);
    if (after == s.blocks.begin()) return why = "an address that is not of the device", nullptr;
    const auto& [start, block] = *--after;
    if (address >= start + block.room + PAGE) return why = "an address that is not of the device", nullptr;
    if (running ? !block.alive : block.freed)
        return why = running ? "memory before it is allocated or after it is freed" : "memory that is freed", nullptr;
    if (address + bytes > start + block.bytes)
        return why = std::to_string(bytes) + " bytes from byte " + std::to_string(address - start) + " of " +
                     std::to_string(block.bytes), nullptr;
    return &block;
}

bool intact(uint64_t address) {
    auto after = state().blocks.upper_bound(address);
    const auto& [start, block] = *--after;
    if (!block.alive) return true;
    for (uint64_t at = start + block.bytes; at + 4 <= start + block.room; at += 4)
        if (std::memcmp(bytes_at(at), &POISON, 4) != 0) return false;
    return true;
}

uint64_t watched_regions() {
    uint64_t count = 0;
    for (const auto& [start, block] : state().blocks) count += block.alive && holds(start, block.bytes) ? 1 : 0;
    for (const auto& [start, memory] : state().pinned) count += holds(start, memory.bytes) ? 1 : 0;
    return count;
}

void release_memory() {
    State& s = state();
    for (auto& [start, block] : s.blocks) {
        vanish(start, block);
        if (!block.freed && s.pools.find(block.pool) != nullptr) give_room(*block.pool, block.bytes);
        block.freed = true;
    }
    for (const auto& [start, memory] : s.pinned) munmap(bytes_at(start), memory.bytes);
    s.pinned.clear();
}

}  // namespace driver

using namespace driver;

namespace {

struct PoolProperties {
    int type, handles, place, device;
    void* security;
    size_t most;
    unsigned short usage;
    unsigned char reserved[54];
};
static_assert(sizeof(PoolProperties) == 88, "CUmemPoolProps");

}  // namespace

VEILSUM_EXPORT int cuMemPoolCreate(void** pool, const PoolProperties* properties) {
    const Call call("cuMemPoolCreate", Call::Start);
    if (call.before != SUCCESS) return call.before;
    // Pinned memory of device 0, not shared, as much as there is.
    const PoolProperties& p = *properties;
    const bool shared = p.handles != 0 || p.security != nullptr || p.most != 0 || p.usage != 0;
    if (p.type != 1 || p.place != 1 || p.device != 0 || shared)
        return wrong("cuMemPoolCreate", "properties");
    *pool = state().pools.add(Pool{});
    return SUCCESS;
}

VEILSUM_EXPORT int cuMemPoolSetAttribute(void* handle, int attribute, void* value) {
    const Call call("cuMemPoolSetAttribute", Call::Start);
    if (call.before != SUCCESS) return call.before;
    Pool* pool = state().pools.find(handle);
    if (pool == nullptr || attribute != 4) return wrong("cuMemPoolSetAttribute", "no such pool, or no such attribute");
    std::memcpy(&pool->threshold, value, sizeof(pool->threshold));
    return SUCCESS;
}

VEILSUM_EXPORT int cuMemPoolTrimTo(void* handle, size_t keep) {
    const Call call("cuMemPoolTrimTo", Call::Start);
    if (call.before != SUCCESS) return call.before;
    Pool* pool = state().pools.find(handle);
    if (pool == nullptr || keep != 0) return wrong("cuMemPoolTrimTo", "no such pool, or memory to keep");
    // What a step has yet to free cannot be given back.
    if (!pending([](const Step& step) { return std::strcmp(step.name, "free") == 0; })) {
        state().used -= kept_bytes(*pool);
        pool->kept.clear();
    }
    return SUCCESS;
}

VEILSUM_EXPORT int cuMemPoolDestroy(void* handle) {
    const Call call("cuMemPoolDestroy", Call::Start);
    if (call.before != SUCCESS) return call.before;
    State& s = state();
    Pool* pool = s.pools.find(handle);
    if (pool == nullptr) return wrong("cuMemPoolDestroy", std::string("a pool ") + s.pools.fault(handle), INVALID_HANDLE);
    if (pool->held > 0 && s.sticky == SUCCESS) wrong("cuMemPoolDestroy", std::to_string(pool->held) + " bytes are in use");
    s.used -= kept_bytes(*pool) + pool->held;
    s.pools.alive.erase(handle);
    return SUCCESS;
}

VEILSUM_EXPORT int cuMemAllocFromPoolAsync(uint64_t* address, size_t bytes, void* from, void* on) {
    const Call call("cuMemAllocFromPoolAsync", Call::Context);
    if (call.before != SUCCESS) return call.before;
    State& s = state();
    Pool* pool = s.pools.find(from);
    Stream* stream = s.streams.find(on);
    if (pool == nullptr || stream == nullptr || bytes == 0)
        return wrong("cuMemAllocFromPoolAsync", "no such pool, no such stream, or no bytes");
    if (!take_room(*pool, bytes)) return OUT_OF_MEMORY;
    const size_t room = (bytes + TAIL + PAGE - 1) / PAGE * PAGE;
    const uint64_t start = take_addresses(room);
    if (start == 0) return OUT_OF_MEMORY;
    s.blocks[start] = Block{bytes, room, pool};
    *address = start;
    return enqueue(*stream, Step{"alloc", [start] { return appear(start); }});
}

VEILSUM_EXPORT int cuMemFreeAsync(uint64_t address, void* on) {
    const Call call("cuMemFreeAsync", Call::Context);
    if (call.before != SUCCESS) return call.before;
    State& s = state();
    Stream* stream = s.streams.find(on);
    const auto found = s.blocks.find(address);
    if (stream == nullptr || found == s.blocks.end()) return wrong("cuMemFreeAsync", "no such stream, or no such memory");
    if (found->second.freed) return wrong("cuMemFreeAsync", "memory that is freed already");
    found->second.freed = true;
    // In the order of the stream what is freed can be allocated again at once.
    give_room(*found->second.pool, found->second.bytes);
    return enqueue(*stream, Step{"free", [address] { return disappear(address); }});
}

VEILSUM_EXPORT int cuMemGetInfo_v2(size_t* free, size_t* total) {
    const Call call("cuMemGetInfo_v2", Call::Context);
    if (call.before != SUCCESS) return call.before;
    *total = state().total;
    *free = state().total - state().used;
    return SUCCESS;
}

VEILSUM_EXPORT int cuMemHostAlloc(void** address, size_t bytes, unsigned flags) {
    const Call call("cuMemHostAlloc", Call::Context);
    if (call.before != SUCCESS) return call.before;
    if (flags != 0 || bytes == 0) return wrong("cuMemHostAlloc", "flags, or no bytes");
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return OUT_OF_MEMORY;
    poison(reinterpret_cast<uint64_t>(memory), bytes);
    state().pinned[reinterpret_cast<uint64_t>(memory)] = Pinned{bytes};
    *address = memory;
    return SUCCESS;
}

VEILSUM_EXPORT int cuMemFreeHost(void* address) {
    const Call call("cuMemFreeHost", Call::Context);
    if (call.before != SUCCESS) return call.before;
    State& s = state();
    const auto start = reinterpret_cast<uint64_t>(address);
    const auto found = s.pinned.find(start);
    if (found == s.pinned.end()) return wrong("cuMemFreeHost", "no such memory");
    if (pending([&](const Step& step) { return step.host == start; }))
        return wrong("cuMemFreeHost", "a copy that has not run uses the memory");
    if (holds(start, found->second.bytes)) s.left_behind++;
    munmap(address, found->second.bytes);
    s.pinned.erase(found);
    return SUCCESS;
}

VEILSUM_EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* on) {
    const Call call("cuMemcpyHtoDAsync_v2", Call::Context);
    if (call.before != SUCCESS) return call.before;
    Stream* stream = state().streams.find(on);
    if (stream == nullptr) return wrong("cuMemcpyHtoDAsync_v2", "no such stream", INVALID_HANDLE);
    uint64_t host = 0;
    const auto source = reinterpret_cast<uint64_t>(from);
    Result result = checked("cuMemcpyHtoDAsync_v2", to, bytes);
    if (result == SUCCESS) result = locked("cuMemcpyHtoDAsync_v2", source, bytes, host);
    if (result != SUCCESS) return result;
    // What is not locked is copied now; what is, when the step runs.
    auto now = std::make_shared<std::vector<unsigned char>>();
    if (host == 0) now->assign(bytes_at(source), bytes_at(source) + bytes);
    Step step{"copy", [=] {
                  const Result there = reached("cuMemcpyHtoDAsync_v2", to, bytes);
                  if (there == SUCCESS) std::memcpy(bytes_at(to), host == 0 ? now->data() : bytes_at(source), bytes);
                  return there;
              }};
    step.host = host;
    return enqueue(*stream, std::move(step));
}

VEILSUM_EXPORT int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* on) {
    const Call call("cuMemcpyDtoHAsync_v2", Call::Context);
    if (call.before != SUCCESS) return call.before;
    Stream* stream = state().streams.find(on);
    if (stream == nullptr) return wrong("cuMemcpyDtoHAsync_v2", "no such stream", INVALID_HANDLE);
    uint64_t host = 0;
    const auto target = reinterpret_cast<uint64_t>(to);
    Result result = checked("cuMemcpyDtoHAsync_v2", from, bytes);
    if (result == SUCCESS) result = locked("cuMemcpyDtoHAsync_v2", target, bytes, host);
    if (result != SUCCESS) return result;
    // Whoever reads before the copy has run finds this.
    if (host != 0) poison(target, bytes);
    Step step{"copy", [=] {
                  const Result there = reached("cuMemcpyDtoHAsync_v2", from, bytes);
                  if (there == SUCCESS) std::memcpy(bytes_at(target), bytes_at(from), bytes);
                  return there;
              }};
    step.host = host;
    result = enqueue(*stream, std::move(step));
    // Into memory that is not locked the driver copies before it returns.
    return result != SUCCESS || host != 0 ? result : run_until([&] { return stream->steps.empty(); });
}

VEILSUM_EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* on) {
    const Call call("cuMemcpyDtoDAsync_v2", Call::Context);
    if (call.before != SUCCESS) return call.before;
    Stream* stream = state().streams.find(on);
    if (stream == nullptr) return wrong("cuMemcpyDtoDAsync_v2", "no such stream", INVALID_HANDLE);
    if (from < to + bytes && to < from + bytes) return wrong("cuMemcpyDtoDAsync_v2", "the two ranges overlap");
    Result result = checked("cuMemcpyDtoDAsync_v2", to, bytes);
    if (result == SUCCESS) result = checked("cuMemcpyDtoDAsync_v2", from, bytes);
    if (result != SUCCESS) return result;
    return enqueue(*stream, Step{"copy", [=] {
                                     Result there = reached("cuMemcpyDtoDAsync_v2", to, bytes);
                                     if (there == SUCCESS) there = reached("cuMemcpyDtoDAsync_v2", from, bytes);
                                     if (there == SUCCESS) std::memcpy(bytes_at(to), bytes_at(from), bytes);
                                     return there;
                                 }});
}

VEILSUM_EXPORT int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void* on) {
    const Call call("cuMemsetD8Async", Call::Context);
    if (call.before != SUCCESS) return call.before;
    Stream* stream = state().streams.find(on);
    if (stream == nullptr) return wrong("cuMemsetD8Async", "no such stream", INVALID_HANDLE);
    const Result result = checked("cuMemsetD8Async", to, bytes);
    if (result != SUCCESS) return result;
    return enqueue(*stream, Step{"set", [=] {
                                     const Result there = reached("cuMemsetD8Async", to, bytes);
                                     if (there == SUCCESS) std::memset(bytes_at(to), value, bytes);
                                     return there;
                                 }});
}

namespace {

// CUDA_MEMCPY2D.
struct Rectangle {
    size_t from_x, from_y;
    unsigned from_type;
    const void* from_host;
    uint64_t from_device;
    void* from_array;
    size_t from_pitch;
    size_t to_x, to_y;
    unsigned to_type;
    void* to_host;
    uint64_t to_device;
    void* to_array;
    size_t to_pitch;
    size_t width, height;
};
static_assert(sizeof(Rectangle) == 128, "CUDA_MEMCPY2D");

// Bytes from the first of a rectangle's to the last.
size_t spanned(size_t pitch, size_t width, size_t height) { return (height - 1) * pitch + width; }

}  // namespace

// Rows within the device; the pitch is at least the width.
VEILSUM_EXPORT int cuMemcpy2DAsync_v2(const Rectangle* rectangle, void* on) {
    const char* name = "cuMemcpy2DAsync_v2";
    const Call call(name, Call::Context);
    if (call.before != SUCCESS) return call.before;
    Stream* stream = state().streams.find(on);
    if (stream == nullptr) return wrong(name, "no such stream", INVALID_HANDLE);
    const Rectangle r = *rectangle;
    const bool plain = r.from_type == 2 && r.to_type == 2 && r.from_x + r.from_y + r.to_x + r.to_y == 0;
    if (!plain || r.width == 0 || r.height == 0 || r.from_pitch < r.width || r.to_pitch < r.width)
        return wrong(name, "not rows of the device, or a pitch below the width");
    const size_t source = spanned(r.from_pitch, r.width, r.height), target = spanned(r.to_pitch, r.width, r.height);
    if (r.from_device < r.to_device + target && r.to_device < r.from_device + source)
        return wrong(name, "the two ranges overlap");
    Result result = checked(name, r.to_device, target);
    if (result == SUCCESS) result = checked(name, r.from_device, source);
    if (result != SUCCESS) return result;
    return enqueue(*stream, Step{"copy", [=] {
                                     Result there = reached(name, r.to_device, target);
                                     if (there == SUCCESS) there = reached(name, r.from_device, source);
                                     for (size_t row = 0; there == SUCCESS && row < r.height; row++)
                                         std::memcpy(bytes_at(r.to_device + row * r.to_pitch),
                                                     bytes_at(r.from_device + row * r.from_pitch), r.width);
                                     return there;
                                 }});
}

// What an address belongs to. Any address may be asked for.
VEILSUM_EXPORT int cuPointerGetAttribute(void* value, int attribute, uint64_t address) {
    const Call call("cuPointerGetAttribute", Call::Context);
    if (call.before != SUCCESS) return call.before;
    const State& s = state();
    auto after = s.blocks.upper_bound(address);
    if (after == s.blocks.begin()) return INVALID_VALUE;
    const auto& [start, block] = *--after;
    if (address >= start + block.bytes || block.freed) return INVALID_VALUE;
    const uint64_t first = start, bytes = block.bytes;
    const unsigned device_memory = 2;
    const int ordinal = 0;
    switch (attribute) {
        case 2: std::memcpy(value, &device_memory, 4); return SUCCESS;
        case 9: std::memcpy(value, &ordinal, 4); return SUCCESS;
        case 11: std::memcpy(value, &first, 8); return SUCCESS;
        case 12: std::memcpy(value, &bytes, 8); return SUCCESS;
        default: return wrong("cuPointerGetAttribute", "attribute " + std::to_string(attribute) + " is not emulated");
    }
}
